// SPDX-License-Identifier: Apache-2.0
#include "agent/main/traces.h"

#include <unistd.h>

#include <filesystem>

#include "agent/dataplane/dataplane.h"
#include "agent/main/cgroups.h"

namespace sidetrack::agent {

namespace fs = std::filesystem;

Traces::Traces(const Options& options) {
  std::error_code error;
  const fs::path state = fs::absolute(options.state_dir, error);
  const fs::path lock = state / "agent.lock";
  lock_file_ = fs::exists(lock, error) ? "" : lock.string();
  for (fs::path folder = state; folder.has_relative_path() && !fs::exists(folder, error);
       folder = folder.parent_path()) {
    folders_.push_back(folder.string());
  }
  // Not to be seen is not missing.
  pin_dir_ = fs::exists(options.pin_dir + "/v1", error) || error ? "" : options.pin_dir;
  if (options.engine == reconcile::EngineKind::kEmbedded && options.engine_cgroup_dir.empty()) {
    if (const auto made = default_engine_cgroup(options); made && !fs::exists(*made, error)) {
      folders_.push_back(*made);
    }
  }
}

void Traces::undo() const {
  if (!pin_dir_.empty()) {
    (void)dataplane::Dataplane::uninstall(pin_dir_);
  }
  if (!lock_file_.empty()) {
    (void)unlink(lock_file_.c_str());
  }
  for (const std::string& folder : folders_) {
    (void)rmdir(folder.c_str());  // with something in it, it is somebody's
  }
}

}  // namespace sidetrack::agent
