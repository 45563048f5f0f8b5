// SPDX-License-Identifier: Apache-2.0
// ObjectStore: the objects that the API server told of, brought up to date change by change. A list
// removes what it did not name, but only once it is whole. No I/O; not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "agent/kube/decode.h"
#include "agent/kube/resource.h"

namespace sidetrack::kube {

struct Change {
  enum class Kind : std::uint8_t {
    kListBegin,  // a list begins: what follows of this resource is in it
    kPut,        // `object`
    kKeep,       // the object `key` is there but cannot be used: `problems`
    kDelete,     // `key`
    kListEnd,    // the list was whole: what it did not name is gone
    kVersion,    // nothing but the version
  };
  Kind kind = Kind::kPut;
  Resource resource = Resource::kNamespaces;
  std::string key;
  std::optional<Object> object;
  std::string version;  // the state after this change; empty where it has none
  std::vector<Problem> problems;
};

class ObjectStore {
 public:
  // More objects of one resource are not taken.
  static constexpr std::size_t kMaxObjects = 200'000;
  static constexpr std::size_t kMaxProblemObjects = 1000;

  // `objects` must outlive this; nobody else changes it.
  explicit ObjectStore(ObjectSet& objects, std::size_t max_objects = kMaxObjects)
      : objects_(objects), max_objects_(max_objects) {}

  // True if the objects or problems() are others now.
  bool apply(Change change);

  // Those objects that apply() made others since the call before.
  [[nodiscard]] ObjectKeys take_changes();
  [[nodiscard]] std::vector<Problem> problems() const;
  [[nodiscard]] std::size_t count(Resource resource) const;
  // Of the last change of `resource`.
  [[nodiscard]] const std::string& version(Resource resource) const {
    return versions_[index_of(resource)];
  }
  // Up to `count` objects of `resource` as lines of text (object_text.h), each with ",\n" before it
  // unless it is the first of all; `after` is the key to go on from and becomes the last one. False
  // once there are no more.
  bool append_text(Resource resource, std::string& after, std::size_t count,
                   std::string& text) const;

 private:
  struct List {
    bool open = false;
    std::unordered_set<std::string> seen;
  };
  bool put(Change& change);
  bool erase(Resource resource, const std::string& key);
  void note(Resource resource, const std::string& key);
  bool end_list(Resource resource);
  bool set_problems(Resource resource, const std::string& key, std::vector<Problem> problems);

  ObjectSet& objects_;
  ObjectKeys changes_;
  std::array<List, kResourceCount> lists_;
  std::array<std::string, kResourceCount> versions_;
  std::array<std::uint64_t, kResourceCount> refused_{};  // for want of room, since the last list
  std::map<std::pair<Resource, std::string>, std::vector<Problem>> problems_;
  std::size_t max_objects_;
};

}  // namespace sidetrack::kube
