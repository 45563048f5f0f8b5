// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/others.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <sys/file.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

#include "agent/dataplane/dataplane.h"
#include "agent/dataplane/impl.h"
#include "agent/dataplane/pinned.h"
#include "sidetrack/files/mounts.h"

namespace sidetrack::dataplane {

namespace {

namespace fs = std::filesystem;

// Deeper than any pin folder that people make; a bpffs may hold thousands of pins of others.
constexpr int kMostDepth = 8;

// Ids of the programs of this type on the cgroup itself.
Result<std::vector<std::uint32_t>> programs_on(const std::string& cgroup_dir,
                                               bpf_attach_type type) {
  const UniqueFd cgroup(::open(cgroup_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup.valid()) {
    return errno_error("open cgroup " + cgroup_dir, errno);
  }
  std::vector<std::uint32_t> ids(64);  // the kernel takes at most 64 per hook and cgroup
  auto count = static_cast<std::uint32_t>(ids.size());
  std::uint32_t flags = 0;
  if (bpf_prog_query(cgroup.get(), type, 0, &flags, ids.data(), &count) != 0) {
    return errno_error("list the programs of cgroup " + cgroup_dir, errno);
  }
  ids.resize(count);
  return ids;
}

bool has_name(std::uint32_t program_id, std::string_view name) {
  const UniqueFd program(bpf_prog_get_fd_by_id(program_id));
  bpf_prog_info info{};
  std::uint32_t size = sizeof(info);
  return program.valid() && bpf_obj_get_info_by_fd(program.get(), &info, &size) == 0 &&
         name == info.name;
}

// The program that the link of st_connect4 in a pin folder holds; 0 = none.
std::uint32_t pinned_connect(const std::string& pin_dir) {
  const UniqueFd link(bpf_obj_get((version_dir(pin_dir) + "/links/st_connect4").c_str()));
  bpf_link_info info{};
  std::uint32_t size = sizeof(info);
  return link.valid() && bpf_obj_get_info_by_fd(link.get(), &info, &size) == 0 ? info.prog_id : 0;
}

std::vector<std::string> bpf_file_systems() {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream text;
  text << file.rdbuf();
  std::vector<std::string> points;
  for (const files::Mount& mount : files::parse_mountinfo(text.str())) {
    if (mount.type == "bpf") {
      points.push_back(mount.point);
    }
  }
  return points;
}

// The folder under `point` whose pins hold the program; empty = none.
std::string find_pin_dir(const std::string& point, std::uint32_t program_id) {
  std::error_code error;
  fs::recursive_directory_iterator entry(point, fs::directory_options::skip_permission_denied,
                                         error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry.depth() >= kMostDepth) {
      entry.disable_recursion_pending();
    }
    if (entry->path().filename() == "st_connect4") {
      // PIN_DIR/v1/links/st_connect4
      const std::string dir = entry->path().parent_path().parent_path().parent_path().string();
      if (pinned_connect(dir) == program_id) {
        return dir;
      }
    }
  }
  return "";
}

// The cgroups above, the nearest first, as far as they are to be seen from here.
std::vector<std::string> cgroups_above(const std::string& cgroup_dir) {
  std::vector<std::string> dirs;
  std::error_code error;
  fs::path dir = fs::canonical(cgroup_dir, error);
  while (!error && dir.has_relative_path() && cgroup_id(dir.parent_path().string())) {
    dir = dir.parent_path();
    dirs.push_back(dir.string());
  }
  return dirs;
}

// Each folder by itself: one that goes meanwhile ends only its own listing.
void list_below(const std::string& cgroup_dir, std::vector<std::string>& dirs) {
  std::error_code error;
  fs::directory_iterator entry(cgroup_dir, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_directory(ignored) &&
        !entry->path().filename().string().starts_with(kSelfTestCgroup)) {
      dirs.push_back(entry->path().string());
      list_below(entry->path().string(), dirs);
    }
  }
}

Result<void> add_others_on(const std::string& cgroup_dir, Relation relation, std::uint32_t ours,
                           std::vector<OtherInstallation>& others) {
  auto programs = programs_on(cgroup_dir, BPF_CGROUP_INET4_CONNECT);
  ST_TRY(programs);
  for (const std::uint32_t id : *programs) {
    if (id == ours || !has_name(id, "st_connect4")) {
      continue;
    }
    OtherInstallation other{.cgroup_dir = cgroup_dir, .relation = relation, .program_id = id};
    for (const std::string& point : bpf_file_systems()) {
      if (other.pin_dir.empty()) {
        other.pin_dir = find_pin_dir(point, id);
      }
    }
    other.agent_runs = !other.pin_dir.empty() && are_in_use(other.pin_dir);
    others.push_back(std::move(other));
  }
  return {};
}

}  // namespace

Result<std::vector<OtherInstallation>> other_installations(const std::string& cgroup_dir,
                                                           const std::string& pin_dir) {
  const std::uint32_t ours = pinned_connect(pin_dir);
  std::vector<OtherInstallation> others;
  ST_TRY(add_others_on(cgroup_dir, Relation::kSame, ours, others));
  for (const std::string& dir : cgroups_above(cgroup_dir)) {
    ST_TRY(add_others_on(dir, Relation::kAbove, ours, others));
  }
  std::vector<std::string> below;
  list_below(cgroup_dir, below);
  for (const std::string& dir : below) {
    // One that went meanwhile has none.
    if (auto added = add_others_on(dir, Relation::kBelow, ours, others);
        !added && added.error().code != ErrorCode::kNotFound) {
      return added.error();
    }
  }
  return others;
}

Result<bool> is_engine_cgroup(const std::string& cgroup_dir) {
  auto programs = programs_on(cgroup_dir, BPF_CGROUP_GETSOCKOPT);
  ST_TRY(programs);
  for (const std::uint32_t id : *programs) {
    if (has_name(id, "st_getsockopt")) {
      return true;
    }
  }
  return false;
}

}  // namespace sidetrack::dataplane
