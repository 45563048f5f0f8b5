// SPDX-License-Identifier: Apache-2.0
#include "agent/main/adapters.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>

namespace sidetrack::agent {

namespace {

dataplane::PolicyContent to_content(const policy::CompiledPolicy& compiled) {
  dataplane::PolicyContent content;
  for (const policy::PortSet& set : compiled.sets) {
    dataplane::PortPages pages;
    for (const policy::PortSet::Page& page : set.pages()) {
      dataplane::PortPage row{.number = page.number};
      std::copy(page.bits.begin(), page.bits.end(), std::begin(row.bits.bits));
      pages.push_back(row);
    }
    content.sets.push_back(std::move(pages));
  }
  content.exclude_set = compiled.exclude_ports;
  content.include_set = compiled.include_ports;
  content.has_include = compiled.has_include;
  content.cidrs.reserve(compiled.cidrs.size());
  for (const policy::CompiledCidr& cidr : compiled.cidrs) {
    content.cidrs.push_back({.address = cidr.address,
                             .prefix = cidr.prefix,
                             .exclude_set = cidr.exclude_set,
                             .include_set = cidr.include_set});
  }
  return content;
}

}  // namespace

Result<std::uint32_t> RealKernel::acquire_policy(const policy::CompiledPolicy& compiled) {
  return dataplane_.acquire_policy(compiled.fingerprint(), to_content(compiled));
}

Result<std::vector<std::pair<std::uint64_t, st_pod>>> RealKernel::pods() {
  auto rows = dataplane_.pods();
  if (rows) {
    std::erase_if(*rows, [this](const auto& row) { return guests_.contains(row.first); });
  }
  return rows;
}

Result<void> RealKernel::set_tuning(std::uint64_t netns_cookie, const st_tuning& tuning) {
  const auto now = dataplane_.tuning(netns_cookie);
  ST_TRY(now);
  return std::memcmp(&*now, &tuning, sizeof(tuning)) == 0
             ? Result<void>()
             : dataplane_.set_tuning(netns_cookie, tuning);
}

Result<void> RealKernel::add_guest(std::uint64_t netns_cookie) {
  guests_.insert(netns_cookie);
  st_pod row{};
  row.mode = ST_MODE_DISABLED;
  return dataplane_.upsert_pod(netns_cookie, row);
}

Result<void> RealKernel::remove_guest(std::uint64_t netns_cookie) {
  guests_.erase(netns_cookie);
  return dataplane_.erase_pod(netns_cookie);
}

std::optional<reconcile::EngineListeners> RealEngines::listeners(std::uint64_t netns_cookie) const {
  std::optional<reconcile::EngineListeners> newest;
  engines::SessionId newest_id = 0;
  bool newest_drains = true;
  for (const engines::SessionInfo& session : server_.sessions()) {
    const engines::PodListeners* listeners = server_.listeners(session.id, netns_cookie);
    // A draining engine still accepts: better than none, worse than any other.
    const bool better = !newest || (newest_drains && !session.draining) ||
                        (newest_drains == session.draining && session.id > newest_id);
    if (listeners != nullptr && better) {
      newest = reconcile::EngineListeners{.slot = session.slot, .listeners = *listeners};
      newest_id = session.id;
      newest_drains = session.draining;
    }
  }
  return newest;
}

std::optional<reconcile::FileId> RealNetns::identify(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    return std::nullopt;
  }
  return reconcile::FileId{.device = status.st_dev, .inode = status.st_ino};
}

}  // namespace sidetrack::agent
