// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"
#include "agent/dataplane/pinned.h"

namespace sidetrack::dataplane {

namespace {

namespace fs = std::filesystem;
constexpr const char* kBpffs = "/sys/fs/bpf";

bool on_bpffs(const std::string& path) {
  struct statfs filesystem {};
  return statfs(path.c_str(), &filesystem) == 0 && filesystem.f_type == BPF_FS_MAGIC;
}

Result<void> make_dir(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return errno_error("make " + path, errno);
  }
  return {};
}

// The nearest folder above `path` that exists.
std::string existing_parent(const std::string& path) {
  fs::path parent = fs::path(path).parent_path();
  while (!parent.empty() && parent != "/" && !fs::exists(parent)) {
    parent = parent.parent_path();
  }
  return parent.string();
}

Result<UniqueFd> open_map(const std::string& pin_dir, const std::string& map) {
  const std::string path = version_dir(pin_dir) + "/maps/" + map;
  UniqueFd fd(bpf_obj_get(path.c_str()));
  if (!fd.valid()) {
    return errno_error("open " + path, errno);
  }
  return fd;
}

// The process that has locked it, as /proc/locks has it: "1: FLOCK ADVISORY WRITE 4711 00:1c:99
// ..."
std::string holder_of(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return "unknown";
  }
  const std::string file =
      fmt::format("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, advisory, mode, process, where;
    words >> number >> kind >> advisory >> mode >> process >> where;
    if (kind == "FLOCK" && mode == "WRITE" && where == file) {
      return process;
    }
  }
  return "unknown";
}

}  // namespace

std::string version_dir(const std::string& pin_dir) {
  return pin_dir + "/v1";
}

std::string links_dir(const std::string& pin_dir) {
  return version_dir(pin_dir) + "/links";
}

Result<void> make_pin_dirs(const std::string& pin_dir) {
  if (pin_dir.rfind(kBpffs, 0) == 0 && !on_bpffs(kBpffs) &&
      mount("bpf", kBpffs, "bpf", 0, "mode=0700") != 0) {
    return errno_error(std::string("mount bpffs on ") + kBpffs, errno);
  }
  if (const std::string parent = existing_parent(pin_dir); !on_bpffs(parent)) {
    return make_error(ErrorCode::kInvalid,
                      "pin folder " + pin_dir + ": " + parent +
                          " is not on a bpf file system; choose a --pin-dir below /sys/fs/bpf");
  }
  for (const std::string& dir :
       {pin_dir, version_dir(pin_dir), version_dir(pin_dir) + "/maps", links_dir(pin_dir)}) {
    ST_TRY(make_dir(dir));
  }
  return {};
}

Result<UniqueFd> lock_pins(const std::string& pin_dir) {
  // An agent that is just ending may still hold it: whoever waited for its state folder would else
  // be refused here.
  constexpr std::chrono::seconds kPatience{2};
  UniqueFd fd(open(pin_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    return errno_error("open " + pin_dir, errno);
  }
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return errno_error("lock " + pin_dir, errno);
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return make_error(
          ErrorCode::kBusy,
          fmt::format("another agent (process {}), with another state folder, has the pin folder "
                      "{}: stop it",
                      holder_of(fd.get()), pin_dir));
    }
    std::this_thread::sleep_for(
        std::chrono::milliseconds(20));  // waits for the other's end, with a deadline
  }
  return fd;
}

// Its agent holds a lock on the folder (lock_pins). Ours is shared and given back at once; an
// agent that starts just then tries again.
bool are_in_use(const std::string& pin_dir) {
  const UniqueFd fd(open(pin_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.valid() && flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

Result<void> set_bypass(const std::string& pin_dir, bool on) {
  auto fd = open_map(pin_dir, "st_bypass");
  ST_TRY(fd);
  return map_update(fd->get(), "st_bypass", std::uint32_t{0}, std::uint32_t{on ? 1U : 0U});
}

Result<bool> bypass(const std::string& pin_dir) {
  auto fd = open_map(pin_dir, "st_bypass");
  ST_TRY(fd);
  auto cell = map_lookup<std::uint32_t>(fd->get(), "st_bypass", std::uint32_t{0});
  ST_TRY(cell);
  return cell->value_or(0) != 0;
}

namespace {

// An agent may take rows away meanwhile.
Result<void> disable_pod(const UniqueFd& pods, std::uint64_t cookie) {
  auto row = map_lookup<st_pod>(pods.get(), "st_pods", cookie);
  ST_TRY(row);
  if (!*row) {
    return {};
  }
  (*row)->mode = ST_MODE_DISABLED;
  const auto updated = map_update(pods.get(), "st_pods", cookie, **row, BPF_EXIST);
  return !updated && updated.error().error_number == ENOENT ? Result<void>() : updated;
}

Result<void> disable_pods(const UniqueFd& pods) {
  auto keys = map_keys<std::uint64_t>(pods.get(), "st_pods");
  ST_TRY(keys);
  Result<void> outcome;
  for (const std::uint64_t cookie : *keys) {
    if (auto disabled = disable_pod(pods, cookie); !disabled) {
      outcome = std::move(disabled);  // the others, all the same
    }
  }
  return outcome;
}

}  // namespace

Result<void> stop_redirecting(const std::string& pin_dir, Beside beside) {
  auto fd = open_map(pin_dir, "st_pods");
  if (!fd) {
    return fd.error().error_number == ENOENT ? Result<void>() : fd.error();
  }
  if (beside == Beside::kAgentThatHangs) {
    return disable_pods(*fd);
  }
  const auto lock = lock_pins(pin_dir);
  ST_TRY(lock);
  return disable_pods(*fd);
}

Result<std::uint64_t> open_redirected(const std::string& pin_dir) {
  auto fd = open_map(pin_dir, "st_pod_state");
  if (!fd) {
    return fd.error().error_number == ENOENT ? Result<std::uint64_t>(0U) : fd.error();
  }
  auto keys = map_keys<std::uint64_t>(fd->get(), "st_pod_state");
  ST_TRY(keys);
  std::uint64_t sum = 0;
  for (const std::uint64_t cookie : *keys) {
    auto state = map_lookup<st_pod_state>(fd->get(), "st_pod_state", cookie);
    ST_TRY(state);
    for (std::size_t i = 0; *state && i < std::size((*state)->budget); ++i) {
      sum += static_cast<std::uint64_t>(std::max<std::int64_t>(0, (*state)->budget[i].live));
    }
  }
  return sum;
}

Result<std::vector<std::uint64_t>> pinned_engine_cgroups(const std::string& pin_dir) {
  std::vector<std::uint64_t> ids;
  auto fd = open_map(pin_dir, "st_config");
  if (!fd) {
    return fd.error().error_number == ENOENT ? Result(ids) : fd.error();
  }
  auto config = map_lookup<st_config>(fd->get(), "st_config", std::uint32_t{0});
  ST_TRY(config);
  for (std::size_t i = 0; *config && i < ST_ENGINE_CGROUPS; ++i) {
    if (const std::uint64_t id = (*config)->engine_cgroup_ids[i]; id != 0) {
      ids.push_back(id);
    }
  }
  return ids;
}

Result<std::vector<std::string>> Dataplane::uninstall(const std::string& pin_dir) {
  std::vector<std::string> removed;
  std::error_code error;
  if (!fs::exists(pin_dir, error)) {
    return removed;
  }
  if (!on_bpffs(pin_dir)) {
    return make_error(ErrorCode::kInvalid, "pin folder " + pin_dir +
                                               " is not on a bpf file system: nothing was removed");
  }
  const auto lock = lock_pins(pin_dir);
  ST_TRY(lock);
  ST_TRY(stop_fast_path(pin_dir));
  // Links first: from then on nothing runs; sockets keep what they have.
  for (const std::string& part : {links_dir(pin_dir), version_dir(pin_dir) + "/maps"}) {
    for (const auto& entry : fs::directory_iterator(part, error)) {
      const std::string path = entry.path().string();
      if (unlink(path.c_str()) != 0) {
        return errno_error("remove " + path, errno);
      }
      removed.push_back(path);
    }
    error.clear();
  }
  for (const std::string& dir :
       {links_dir(pin_dir), version_dir(pin_dir) + "/maps", version_dir(pin_dir), pin_dir}) {
    if (rmdir(dir.c_str()) != 0 && errno != ENOENT) {
      return errno_error("remove " + dir, errno);
    }
    removed.push_back(dir);
  }
  return removed;
}

}  // namespace sidetrack::dataplane
