// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/object_store.h"

#include <fmt/format.h>

#include <utility>

#include "agent/kube/object_text.h"

namespace sidetrack::kube {
namespace {

// Calls `use` with the map of `resource`.
template <typename Set, typename Use>
auto with_map(Set& set, Resource resource, const Use& use) {
  switch (resource) {
    case Resource::kNamespaces:
      return use(set.namespaces);
    case Resource::kPods:
      return use(set.pods);
    case Resource::kServices:
      return use(set.services);
    case Resource::kEndpointSlices:
      return use(set.endpoint_slices);
    case Resource::kNodes:
      break;
  }
  return use(set.nodes);
}

}  // namespace

bool ObjectStore::apply(Change change) {
  const std::size_t index = index_of(change.resource);
  if (!change.version.empty()) {
    versions_[index] = change.version;
  }
  if (lists_[index].open && !change.key.empty()) {
    lists_[index].seen.insert(change.key);
  }
  switch (change.kind) {
    case Change::Kind::kListBegin:
      lists_[index] = List{.open = true, .seen = {}};
      return std::exchange(refused_[index], 0) != 0;
    case Change::Kind::kPut:
      return put(change);
    case Change::Kind::kKeep:
      return set_problems(change.resource, change.key, std::move(change.problems));
    case Change::Kind::kDelete:
      lists_[index].seen.erase(change.key);
      return erase(change.resource, change.key);
    case Change::Kind::kListEnd:
      return end_list(change.resource);
    case Change::Kind::kVersion:
      break;
  }
  return false;
}

bool ObjectStore::put(Change& change) {
  if (!change.object || change.object->index() != index_of(change.resource)) {
    return false;
  }
  const bool cleared = set_problems(change.resource, change.key, {});
  return with_map(objects_, change.resource, [&](auto& map) {
    using Value = typename std::decay_t<decltype(map)>::mapped_type;
    Value& value = std::get<Value>(*change.object);
    const auto found = map.find(change.key);
    if (found == map.end()) {
      if (map.size() >= max_objects_) {
        return refused_[index_of(change.resource)]++ == 0 || cleared;
      }
      map.emplace(change.key, std::move(value));
    } else if (found->second == value) {
      return cleared;
    } else {
      found->second = std::move(value);
    }
    note(change.resource, change.key);
    return true;
  });
}

bool ObjectStore::erase(Resource resource, const std::string& key) {
  const bool cleared = set_problems(resource, key, {});
  const bool was_there =
      with_map(objects_, resource, [&](auto& map) { return map.erase(key) != 0; });
  if (was_there) {
    note(resource, key);
  }
  return was_there || cleared;
}

void ObjectStore::note(Resource resource, const std::string& key) {
  with_map(changes_, resource, [&](auto& keys) { keys.insert(key); });
}

ObjectKeys ObjectStore::take_changes() {
  return std::exchange(changes_, {});
}

bool ObjectStore::end_list(Resource resource) {
  List& list = lists_[index_of(resource)];
  if (!std::exchange(list.open, false)) {
    return false;
  }
  const auto seen = std::exchange(list.seen, {});
  const auto is_gone = [&](const std::string& key) { return !seen.contains(key); };
  const bool problems_gone = std::erase_if(problems_, [&](const auto& entry) {
                               return entry.first.first == resource && is_gone(entry.first.second);
                             }) != 0;
  const auto leaves = [&](const auto& entry) {
    const bool gone = is_gone(entry.first);
    if (gone) {
      note(resource, entry.first);
    }
    return gone;
  };
  return with_map(objects_, resource, [&](auto& map) { return std::erase_if(map, leaves) != 0; }) ||
         problems_gone;
}

bool ObjectStore::set_problems(Resource resource, const std::string& key,
                               std::vector<Problem> problems) {
  const std::pair at(resource, key);
  const auto found = problems_.find(at);
  if (problems.empty()) {
    return found != problems_.end() && problems_.erase(at) != 0;
  }
  if (found != problems_.end()) {
    return std::exchange(found->second, problems) != problems;
  }
  if (problems_.size() >= kMaxProblemObjects) {
    return false;
  }
  problems_.emplace(at, std::move(problems));
  return true;
}

std::vector<Problem> ObjectStore::problems() const {
  std::vector<Problem> all;
  for (const auto& [at, problems] : problems_) {
    all.insert(all.end(), problems.begin(), problems.end());
  }
  for (const Resource resource : kResources) {
    if (refused_[index_of(resource)] != 0) {
      all.push_back(Problem{.object = "API server",
                            .key = std::string(names_of(resource).plural),
                            .value = "",
                            .reason = fmt::format("there are more than {}: those beyond are not "
                                                  "taken",
                                                  max_objects_),
                            .of_source = true});
    }
  }
  return all;
}

std::size_t ObjectStore::count(Resource resource) const {
  return with_map(objects_, resource, [](const auto& map) { return map.size(); });
}

bool ObjectStore::append_text(Resource resource, std::string& after, std::size_t count,
                              std::string& text) const {
  return with_map(objects_, resource, [&](const auto& map) {
    auto at = after.empty() ? map.begin() : map.upper_bound(after);
    for (; at != map.end() && count > 0; ++at, --count) {
      text += after.empty() ? "" : ",\n";
      text += to_text(at->second);
      after = at->first;
    }
    return at != map.end();
  });
}

}  // namespace sidetrack::kube
