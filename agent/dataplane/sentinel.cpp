// SPDX-License-Identifier: Apache-2.0
// The sentinel's links: pinned, so that it watches as long as sockets skip TCP, whoever lives.
#include <bpf/libbpf.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <span>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

constexpr const char* kTracefs = "/sys/kernel/tracing";

struct Watch {
  const char* program;
  const char* function = nullptr;  // that fentry needs
  bool needed = true;              // false: older kernels do well without it
};
constexpr std::array<Watch, 4> kTracepoints = {Watch{"st_sentinel_splice"},
                                               {"st_sentinel_ioctl"},
                                               {"st_sentinel_fcntl"},
                                               {"st_sentinel_io_uring"}};
constexpr std::array<Watch, 5> kFunctions = {
    Watch{"st_watch_ioctl", "security_file_ioctl"},
    {"st_watch_ioctl_compat", "security_file_ioctl_compat", false},
    {"st_watch_fcntl", "security_file_fcntl"},
    {"st_watch_splice", "tcp_splice_read"},
    {"st_watch_io_uring"}};

// Whether this kernel has the function, and lets a program watch it: a trial with an empty one.
bool can_watch(const char* function) {
  const int id = libbpf_find_vmlinux_btf_id(function, BPF_TRACE_FENTRY);
  if (id <= 0) {
    return false;
  }
  const std::array<bpf_insn, 2> program = {
      bpf_insn{.code = BPF_ALU64 | BPF_MOV | BPF_K,
               .dst_reg = BPF_REG_0,
               .src_reg = 0,
               .off = 0,
               .imm = 0},
      bpf_insn{.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  bpf_prog_load_opts options{};
  options.sz = sizeof(options);
  options.expected_attach_type = BPF_TRACE_FENTRY;
  options.attach_btf_id = static_cast<std::uint32_t>(id);
  const UniqueFd loaded(bpf_prog_load(BPF_PROG_TYPE_TRACING, "st_trial", "GPL", program.data(),
                                      program.size(), &options));
  return loaded.valid() && UniqueFd(bpf_raw_tracepoint_open(nullptr, loaded.get())).valid();
}

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

// Those that are loaded, or none.
Result<void> attach_all(bpf_object* object, const std::string& dir, std::span<const Watch> set) {
  for (const Watch& watch : set) {
    bpf_program* program = bpf_object__find_program_by_name(object, watch.program);
    if (bpf_program__fd(program) >= 0) {
      ST_TRY(attach(program, dir + watch.program));
    }
  }
  return {};
}

Result<void> detach_all(const std::string& dir, std::span<const Watch> set) {
  for (const Watch& watch : set) {
    if (unlink((dir + watch.program).c_str()) != 0 && errno != ENOENT) {
      return errno_error("remove " + dir + watch.program, errno);
    }
  }
  return {};
}

}  // namespace

bool choose_sentinel_programs(sidetrack_bpf* skeleton, bool fast_path) {
  const auto load = [skeleton](const Watch& watch, bool on) {
    bpf_program__set_autoload(bpf_object__find_program_by_name(skeleton->obj, watch.program), on);
  };
  for (const Watch& watch : kTracepoints) {
    load(watch, fast_path);
  }
  std::array<bool, kFunctions.size()> can{};
  bool fentry = fast_path;
  for (std::size_t i = 0; i < kFunctions.size() && fentry; ++i) {
    can[i] = kFunctions[i].function == nullptr || can_watch(kFunctions[i].function);
    fentry = can[i] || !kFunctions[i].needed;
  }
  for (std::size_t i = 0; i < kFunctions.size(); ++i) {
    load(kFunctions[i], fentry && can[i]);
  }
  return fentry;
}

bool Dataplane::has_fentry_sentinel() const {
  return impl_->has_fentry;
}

Result<Sentinel> Dataplane::set_sentinel(Sentinel sentinel) {
  const std::string dir = version_dir(impl_->options.pin_dir) + "/links/";
  if (sentinel == Sentinel::kOff) {
    ST_TRY(detach_all(dir, kTracepoints));
    ST_TRY(detach_all(dir, kFunctions));
    return sentinel;
  }
  if (!impl_->fast_path_problem.empty()) {
    return make_error(ErrorCode::kUnsupported, impl_->fast_path_problem);
  }
  if (sentinel == Sentinel::kFentry && !impl_->has_fentry) {
    return make_error(ErrorCode::kUnsupported, "this kernel does not load the fentry sentinel");
  }
  // The new one watches before the old one goes.
  if (sentinel != Sentinel::kTracepoint && impl_->has_fentry) {
    ST_TRY(attach_all(impl_->skeleton->obj, dir, kFunctions));
    ST_TRY(detach_all(dir, kTracepoints));
    return Sentinel::kFentry;
  }
  ST_TRY(mount_tracefs());
  ST_TRY(attach_all(impl_->skeleton->obj, dir, kTracepoints));
  ST_TRY(detach_all(dir, kFunctions));
  return Sentinel::kTracepoint;
}

}  // namespace sidetrack::dataplane
