// SPDX-License-Identifier: Apache-2.0
// The sentinel's links: pinned, so that it watches as long as sockets skip TCP, whoever lives.
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

constexpr const char* kTracefs = "/sys/kernel/tracing";

constexpr std::array<const char*, 4> kPrograms = {"st_sentinel_splice", "st_sentinel_ioctl",
                                                  "st_sentinel_fcntl", "st_sentinel_io_uring"};

Result<void> mount_tracefs() {
  struct statfs filesystem {};
  if (statfs(kTracefs, &filesystem) == 0 && filesystem.f_type == TRACEFS_MAGIC) {
    return {};
  }
  if (mount("tracefs", kTracefs, "tracefs", 0, "mode=0700") != 0) {
    return errno_error(std::string("mount tracefs on ") + kTracefs, errno);
  }
  return {};
}

// The new link watches before the old one goes.
Result<void> attach(bpf_program* program, const std::string& path) {
  bpf_link* link = bpf_program__attach(program);
  if (link == nullptr) {
    return errno_error(std::string("attach ") + bpf_program__section_name(program), errno);
  }
  Result<void> result;
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    result = errno_error("remove " + path, errno);
  } else if (bpf_link__pin(link, path.c_str()) != 0) {
    result = errno_error("pin " + path, errno);
  }
  bpf_link__disconnect(link);  // the pin has it
  bpf_link__destroy(link);
  return result;
}

}  // namespace

Result<void> Dataplane::set_sentinel(Sentinel sentinel) {
  const std::string dir = version_dir(impl_->options.pin_dir) + "/links/";
  if (sentinel == Sentinel::kOff) {
    for (const char* name : kPrograms) {
      if (unlink((dir + name).c_str()) != 0 && errno != ENOENT) {
        return errno_error("remove " + dir + name, errno);
      }
    }
    return {};
  }
  if (!impl_->fast_path_problem.empty()) {
    return make_error(ErrorCode::kUnsupported, impl_->fast_path_problem);
  }
  ST_TRY(mount_tracefs());
  for (const char* name : kPrograms) {
    bpf_program* program = bpf_object__find_program_by_name(impl_->skeleton->obj, name);
    ST_TRY(attach(program, dir + name));
  }
  return {};
}

}  // namespace sidetrack::dataplane
