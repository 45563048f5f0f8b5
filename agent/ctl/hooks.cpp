// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/hooks.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <utility>

#include "sidetrack/unique_fd.h"

namespace sidetrack::ctl {
namespace {

constexpr std::array<std::pair<bpf_attach_type, const char*>, 7> kHooks = {{
    {BPF_CGROUP_INET4_CONNECT, "cgroup/connect4"},
    {BPF_CGROUP_INET6_CONNECT, "cgroup/connect6"},
    {BPF_CGROUP_SOCK_OPS, "sockops"},
    {BPF_CGROUP_GETSOCKOPT, "cgroup/getsockopt"},
    {BPF_CGROUP_SETSOCKOPT, "cgroup/setsockopt"},
    {BPF_CGROUP_INET4_GETPEERNAME, "cgroup/getpeername4"},
    {BPF_CGROUP_INET6_GETPEERNAME, "cgroup/getpeername6"},
}};

std::string program_name(std::uint32_t id) {
  const UniqueFd fd(bpf_prog_get_fd_by_id(id));
  bpf_prog_info info{};
  __u32 size = sizeof(info);
  if (!fd.valid() || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) {
    return "";
  }
  return std::string(info.name);
}

// The prog_id line of a program's or link's fdinfo; 0 if it has none (a map).
std::uint32_t program_id_of(int fd) {
  std::ifstream file(fmt::format("/proc/self/fdinfo/{}", fd));
  std::string key;
  std::string value;
  while (file >> key >> value) {
    if (key == "prog_id:") {
      std::uint32_t id = 0;
      std::from_chars(value.data(), value.data() + value.size(), id);
      return id;
    }
    std::getline(file, value);
  }
  return 0;
}

}  // namespace

Result<std::vector<HookedProgram>> hooked_programs(const std::string& cgroup_dir) {
  const UniqueFd cgroup(::open(cgroup_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup.valid()) {
    return errno_error("open cgroup " + cgroup_dir, errno);
  }
  std::vector<HookedProgram> programs;
  for (const auto& [type, hook] : kHooks) {
    std::array<__u32, 64> ids{};  // the kernel takes at most 64 programs per hook and cgroup
    __u32 flags = 0;
    auto count = static_cast<__u32>(ids.size());
    if (bpf_prog_query(cgroup.get(), type, 0, &flags, ids.data(), &count) != 0) {
      const int error = errno;
      if (error == EINVAL) {
        continue;  // a hook that this kernel does not have
      }
      return errno_error(std::string("query ") + hook + " of " + cgroup_dir, error);
    }
    for (__u32 i = 0; i < count; ++i) {
      programs.push_back({.hook = hook, .id = ids.at(i), .name = program_name(ids.at(i))});
    }
  }
  return programs;
}

std::set<std::uint32_t> pinned_programs(const std::string& pin_dir) {
  std::set<std::uint32_t> ids;
  std::error_code error;
  std::filesystem::recursive_directory_iterator entry(
      pin_dir, std::filesystem::directory_options::skip_permission_denied, error);
  const std::filesystem::recursive_directory_iterator end;
  for (; !error && entry != end; entry.increment(error)) {
    std::error_code unreadable;
    if (entry->is_directory(unreadable)) {
      continue;
    }
    const UniqueFd fd(bpf_obj_get(entry->path().c_str()));
    if (fd.valid()) {
      ids.insert(program_id_of(fd.get()));
    }
  }
  ids.erase(0);
  return ids;
}

}  // namespace sidetrack::ctl
