// SPDX-License-Identifier: Apache-2.0
// The sentinel's links: pinned, so that it watches as long as sockets skip TCP, whoever lives.
#include <bpf/libbpf.h>
#include <linux/magic.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
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

// "tp/syscalls/sys_enter_splice" -> the number of that tracepoint.
Result<std::uint64_t> tracepoint_id(const std::string& section) {
  const std::string path = std::string(kTracefs) + "/events/" + section.substr(3) + "/id";
  std::ifstream file(path);
  std::uint64_t id = 0;
  if (!(file >> id)) {
    return errno_error("read " + path, errno == 0 ? EIO : errno);
  }
  return id;
}

// Not by libbpf: its link of a tracepoint holds two descriptors until it ends, and then disables
// the event under the pin.
Result<UniqueFd> make_link(const bpf_program* program) {
  const int fd = bpf_program__fd(program);
  const std::string section = bpf_program__section_name(program);
  const bool is_raw = bpf_program__type(program) == BPF_PROG_TYPE_RAW_TRACEPOINT;
  if (is_raw || bpf_program__type(program) == BPF_PROG_TYPE_TRACING) {
    // "raw_tp/io_uring_create"; a function's program knows its own.
    UniqueFd link(
        bpf_raw_tracepoint_open(is_raw ? section.c_str() + section.find('/') + 1 : nullptr, fd));
    return link.valid() ? Result(std::move(link)) : errno_error("attach a program", errno);
  }
  auto id = tracepoint_id(section);
  ST_TRY(id);
  perf_event_attr event{};
  event.type = PERF_TYPE_TRACEPOINT;
  event.size = sizeof(event);
  event.config = *id;
  const UniqueFd tracepoint(
      static_cast<int>(syscall(SYS_perf_event_open, &event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!tracepoint.valid()) {
    return errno_error("open a tracepoint", errno);
  }
  UniqueFd link(bpf_link_create(fd, tracepoint.get(), BPF_PERF_EVENT, nullptr));
  if (!link.valid() || ioctl(tracepoint.get(), PERF_EVENT_IOC_ENABLE, 0) != 0) {
    return errno_error("link a tracepoint", errno);
  }
  return link;
}

// Whether the link pinned at `path` is of this very program.
bool is_linked(const bpf_program* program, const std::string& path) {
  const UniqueFd link(bpf_obj_get(path.c_str()));
  bpf_link_info linked{};
  bpf_prog_info loaded{};
  std::uint32_t linked_size = sizeof(linked);
  std::uint32_t loaded_size = sizeof(loaded);
  return link.valid() && bpf_obj_get_info_by_fd(link.get(), &linked, &linked_size) == 0 &&
         bpf_obj_get_info_by_fd(bpf_program__fd(program), &loaded, &loaded_size) == 0 &&
         linked.prog_id == loaded.id;
}

// The new link watches before the old one goes.
Result<void> attach(bpf_program* program, const std::string& path) {
  if (is_linked(program, path)) {
    return {};
  }
  auto link = make_link(program);
  if (!link) {
    return link.error().within(std::string("attach ") + bpf_program__section_name(program));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return errno_error("remove " + path, errno);
  }
  if (bpf_obj_pin(link->get(), path.c_str()) != 0) {
    return errno_error("pin " + path, errno);
  }
  return {};  // the pin has it
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
    return make_error(
        ErrorCode::kUnsupported,
        "this kernel does not load the fentry sentinel: set --fast-path-sentinel to auto, "
        "which takes the one of system calls then");
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
