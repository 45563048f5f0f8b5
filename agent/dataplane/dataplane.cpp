// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/dataplane.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "agent/dataplane/impl.h"
#include "agent/dataplane/pinned.h"

namespace sidetrack::dataplane {

namespace {

// libbpf says why a load failed only through its print callback; the last lines go into the error.
constexpr std::size_t kLogTail = 2000;
thread_local std::string g_libbpf_log;

int collect_log(libbpf_print_level level, const char* format, va_list arguments) {
  if (level == LIBBPF_DEBUG) {
    return 0;
  }
  // Of any length: the verifier gives its reason at the end.
  char* line = nullptr;
  const int size = vasprintf(&line, format, arguments);
  if (size < 0) {
    return size;
  }
  g_libbpf_log += line;
  free(line);
  if (g_libbpf_log.size() > 4 * kLogTail) {
    g_libbpf_log.erase(0, g_libbpf_log.size() - kLogTail);
  }
  return size;
}

// "st_adopt: invalid func unknown#160", where the log ends as it does when the verifier refuses.
std::string refusal_in(const std::string& log) {
  const std::size_t end = log.rfind("\nprocessed ");
  if (end == std::string::npos || end == 0) {
    return "";
  }
  const std::size_t begin = log.rfind('\n', end - 1) + 1;
  const std::size_t quote = log.find('\'', end);
  const std::size_t unquote = log.find('\'', quote + 1);
  return unquote == std::string::npos
             ? log.substr(begin, end - begin)
             : log.substr(quote + 1, unquote - quote - 1) + ": " + log.substr(begin, end - begin);
}

// All that libbpf has said follows it in the message of a load_error().
constexpr const char* kLibbpfSays = "; libbpf: ";
// In its words for "none of the places where it may be has it", of all versions.
constexpr const char* kNoBtf = "kernel BTF";

Error load_error(int error_number) {
  utsname system{};
  uname(&system);
  std::string log = g_libbpf_log.size() > kLogTail
                        ? g_libbpf_log.substr(g_libbpf_log.size() - kLogTail)
                        : g_libbpf_log;
  const std::string hint =
      error_number == EPERM ? " (root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, is needed)" : "";
  Error error = errno_error(fmt::format("load BPF programs on kernel {}{}", system.release, hint),
                            error_number);
  // Out of files or memory says nothing of the kernel's abilities.
  const bool is_short = error_number == EMFILE || error_number == ENFILE || error_number == ENOMEM;
  error.code = error_number == EPERM ? ErrorCode::kPermission
               : is_short            ? ErrorCode::kFull
                                     : ErrorCode::kUnsupported;
  if (log.find("parameter mismatch") != std::string::npos) {
    // libbpf's words when a pinned map is not laid out as ours.
    error.code = ErrorCode::kInvalid;
    error.message +=
        " (pins of another version: run `sidetrack-agent uninstall`, or choose another --pin-dir)";
  }
  if (const std::string refusal = refusal_in(log); !refusal.empty()) {
    error.message += ": " + refusal;
  } else if (log.find(kNoBtf) != std::string::npos) {
    error.message +=
        ": the kernel's BTF is missing (/sys/kernel/btf/vmlinux): mount sysfs, or boot a kernel "
        "with CONFIG_DEBUG_INFO_BTF=y";
  }
  error.message += log.empty() ? "" : kLibbpfSays + log;
  return error;
}

std::optional<bpf_map_info> pinned_map(const std::string& path) {
  const UniqueFd pinned(bpf_obj_get(path.c_str()));
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  if (!pinned.valid() || bpf_obj_get_info_by_fd(pinned.get(), &info, &size) != 0) {
    return std::nullopt;
  }
  return info;
}

// libbpf takes over a map only with the flags that it was made with, which are no matter of what is
// in it.
void keep_flags(bpf_map* map, const std::string& path) {
  if (const auto pinned = pinned_map(path)) {
    (void)bpf_map__set_map_flags(map, pinned->map_flags);
  }
}

// A trial: the same helper came to both kinds of programs at once (5.15).
bool has_netns_helper() {
  return libbpf_probe_bpf_helper(BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_get_netns_cookie, nullptr) != 0 &&
         libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCKOPT, BPF_FUNC_get_netns_cookie,
                                 nullptr) != 0;
}

}  // namespace

Dataplane::Dataplane(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dataplane::~Dataplane() {
  if (impl_->engine_memory != nullptr) {
    munmap(impl_->engine_memory, Impl::kEngineBytes);
  }
  impl_->close_fast_path();
}

int Dataplane::Impl::map_fd(const char* name) const {
  return bpf_object__find_map_fd_by_name(skeleton->obj, name);
}

Result<void> Dataplane::Impl::load(const Parts& parts) {
  g_libbpf_log.clear();
  skeleton.reset(sidetrack_bpf::open());
  if (!skeleton) {
    return load_error(errno);
  }
  skeleton->rodata->st_has_netns_helper = has_netns_helper();
  choose_fast_programs(skeleton.get(), parts.fast_path);
  has_fentry = choose_sentinel_programs(skeleton.get(), parts.fast_path);
  bpf_program__set_autoload(skeleton->progs.st_look, parts.looks);
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton->obj) {
    if (bpf_map__is_internal(map)) {
      continue;
    }
    const std::string path = version_dir(options.pin_dir) + "/maps/" + bpf_map__name(map);
    if (bpf_map__set_pin_path(map, path.c_str()) != 0) {
      return errno_error("pin " + path, errno);
    }
    keep_flags(map, path);
  }
  if (const int error = sidetrack_bpf::load(skeleton.get()); error != 0) {
    return load_error(-error);
  }
  return {};
}

Result<void> Dataplane::Impl::load_what_loads() {
  const auto whole = load({});
  if (whole) {
    return {};
  }
  const auto problem_of = [](const Error& error) {
    return error.message.substr(0, error.message.find(kLibbpfSays));
  };
  fast_path_problem = problem_of(whole.error());
  const auto redirect = load({.fast_path = false});
  if (redirect) {
    return {};
  }
  look_problem = problem_of(redirect.error());
  return load({.fast_path = false, .looks = false});
}

Result<void> Dataplane::check_pins(const std::string& pin_dir) {
  libbpf_set_print(collect_log);
  const std::unique_ptr<sidetrack_bpf, SkeletonDeleter> skeleton(sidetrack_bpf::open());
  if (!skeleton) {
    return load_error(errno);
  }
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton->obj) {
    const std::string path = version_dir(pin_dir) + "/maps/" + bpf_map__name(map);
    const auto pinned = bpf_map__is_internal(map) ? std::nullopt : pinned_map(path);
    if (!pinned) {
      continue;
    }
    if (pinned->type != bpf_map__type(map) || pinned->key_size != bpf_map__key_size(map) ||
        pinned->value_size != bpf_map__value_size(map) ||
        pinned->max_entries != bpf_map__max_entries(map)) {
      return make_error(ErrorCode::kInvalid,
                        path +
                            " is of another version: it cannot be taken over. Run "
                            "`sidetrack-agent uninstall` first, or choose another --pin-dir");
    }
  }
  return {};
}

Result<std::unique_ptr<Dataplane>> Dataplane::open(const Options& options) {
  libbpf_set_print(collect_log);
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  auto cgroup = cgroup_id(options.cgroup_dir);
  ST_TRY(cgroup);
  impl->cgroup = {.dir = options.cgroup_dir, .id = *cgroup};
  ST_TRY(make_pin_dirs(options.pin_dir));
  auto lock = lock_pins(options.pin_dir);
  ST_TRY(lock);
  impl->pin_lock = std::move(*lock);
  ST_TRY(impl->load_what_loads());
  ST_TRY(impl->policies.open({.policies = impl->map_fd("st_policies"),
                              .cidrs = impl->map_fd("st_cidrs"),
                              .port_pages = impl->map_fd("st_port_pages")}));
  std::uint64_t any = 0;
  impl->skeleton->bss->st_has_tunings =
      bpf_map_get_next_key(impl->map_fd("st_tunings"), nullptr, &any) == 0 ? 1 : 0;
  ST_TRY(impl->read_namespaces());
  ST_TRY(impl->open_rings());
  ST_TRY(impl->map_engines());
  ST_TRY(impl->open_fast_path());
  impl->find_engines();
  for (const Hook& hook : hooks()) {
    if (!hook.engine && !hook.fast_path) {
      ST_TRY(impl->attach(hook, impl->cgroup));
    }
  }
  return std::unique_ptr<Dataplane>(new Dataplane(std::move(impl)));
}

}  // namespace sidetrack::dataplane
