// SPDX-License-Identifier: Apache-2.0
// Which cgroups are engines': their links, and their ids in st_config.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

// "st_getsockopt_4711" -> 4711, if that is a link of this hook.
std::uint64_t engine_of_link(const std::string& name, const Hook& hook) {
  const std::string prefix = std::string(hook.program) + "_";
  std::uint64_t id = 0;
  if (hook.engine && name.starts_with(prefix)) {
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), id);
  }
  return id;
}

}  // namespace

void Dataplane::Impl::find_engines() {
  std::set<std::uint64_t> ids;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(links_dir(options.pin_dir), error)) {
    for (const Hook& hook : hooks()) {
      ids.insert(engine_of_link(entry.path().filename().string(), hook));
    }
  }
  ids.erase(0);
  for (const std::uint64_t id : ids) {
    engines.push_back({.dir = "", .id = id});
  }
}

void Dataplane::Impl::fill_engines(st_config& config) const {
  std::fill(std::begin(config.engine_cgroup_ids), std::end(config.engine_cgroup_ids), 0);
  for (std::size_t i = 0; i < std::min<std::size_t>(engines.size(), ST_ENGINE_CGROUPS); ++i) {
    config.engine_cgroup_ids[i] = engines[i].id;
  }
}

Result<void> Dataplane::Impl::write_engines() const {
  const int fd = map_fd("st_config");
  auto cell = map_lookup<st_config>(fd, "st_config", std::uint32_t{0});
  ST_TRY(cell);
  st_config config = cell->value_or(st_config{});
  fill_engines(config);
  return map_update(fd, "st_config", std::uint32_t{0}, config);
}

Result<void> Dataplane::Impl::detach_engine(std::uint64_t cgroup_id) {
  std::erase_if(engines, [&](const CgroupPlace& engine) { return engine.id == cgroup_id; });
  ST_TRY(write_engines());
  for (const Hook& hook : hooks()) {
    if (!hook.engine) {
      continue;
    }
    ST_TRY(end_link(link_path(options, hook, cgroup_id)));
  }
  return {};
}

bool Dataplane::Impl::lives(const CgroupPlace& engine) const {
  // The link knows whether its cgroup still lives, where we do not know the folder.
  if (engine.dir.empty()) {
    return linked_cgroup(link_path(options, hooks()[1], engine.id)) == engine.id;
  }
  const auto id = cgroup_id(engine.dir);
  return id && *id == engine.id;
}

Result<void> Dataplane::Impl::forget_dead_engines() {
  const auto known = engines;
  for (const CgroupPlace& engine : known) {
    if (!lives(engine)) {
      ST_TRY(detach_engine(engine.id));
    }
  }
  return {};
}

Result<std::uint64_t> Dataplane::attach_engine(const std::string& cgroup_dir) {
  auto id = cgroup_id(cgroup_dir);
  ST_TRY(id);
  ST_TRY(impl_->forget_dead_engines());
  const CgroupPlace place{.dir = cgroup_dir, .id = *id};
  auto known = std::find_if(impl_->engines.begin(), impl_->engines.end(),
                            [&](const CgroupPlace& engine) { return engine.id == *id; });
  if (known == impl_->engines.end() && impl_->engines.size() >= ST_ENGINE_CGROUPS) {
    return make_error(ErrorCode::kFull,
                      fmt::format("{} engines have a cgroup of their own already: end one of them",
                                  int{ST_ENGINE_CGROUPS}));
  }
  for (const Hook& hook : hooks()) {
    if (hook.engine) {
      ST_TRY(impl_->attach(hook, place));
    }
  }
  if (known == impl_->engines.end()) {
    impl_->engines.push_back(place);
  } else {
    known->dir = cgroup_dir;
  }
  ST_TRY(impl_->write_engines());
  return *id;
}

Result<void> Dataplane::keep_only_engine(std::uint64_t cgroup_id) {
  const auto known = impl_->engines;
  for (const CgroupPlace& engine : known) {
    if (engine.id != cgroup_id) {
      ST_TRY(impl_->detach_engine(engine.id));
    }
  }
  return {};
}

}  // namespace sidetrack::dataplane
