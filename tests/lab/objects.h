// SPDX-License-Identifier: Apache-2.0
// Objects: the folder that the agent's `files` source reads, kept by a test. One JSON file per
// object, each written atomically, at once with every call. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::lab {

using StringMap = std::map<std::string, std::string>;

struct NamespaceSpec {
  std::string name{};
  StringMap labels{};
  StringMap annotations{};
};

struct PodSpec {
  std::string namespace_name{};
  std::string name{};
  std::string netns_path{};  // annotation sidetrack.io/netns; empty: none
  std::vector<std::string> addresses{};
  StringMap labels{};
  StringMap annotations{};
  std::string node_name{"node-1"};
  std::vector<std::uint16_t> container_ports{};
  std::string owner{};  // its controller: "ReplicaSet/web"
};

struct Backend {
  std::vector<std::string> addresses{};  // of both families; each goes into the slice of its family
  bool ready = true;
  std::string node_name{"node-1"};
  std::string zone{};
};

struct ServiceSpec {
  std::string namespace_name{};
  std::string name{};
  std::vector<std::string> cluster_addresses{};
  std::uint16_t port = 80;
  std::uint16_t target_port = 80;
  std::vector<Backend> backends{};
};

enum class Kind { kNamespace, kPod };

class Objects {
 public:
  explicit Objects(std::filesystem::path folder);
  ~Objects();
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

  Result<void> put(const NamespaceSpec& spec);
  Result<void> put(const PodSpec& spec);
  // The Service and its EndpointSlices (one per family that it has backends in).
  Result<void> put(const ServiceSpec& spec);
  // Any other file, as it is ("broken.yaml").
  Result<void> put_text(const std::string& file_name, const std::string& text) const;

  // Sets or (nullopt) removes one label or annotation. `name`: "NAMESPACE", "NAMESPACE/POD".
  // kNotFound: was never put.
  Result<void> set_label(Kind kind, const std::string& name, const std::string& key,
                         const std::optional<std::string>& value);
  Result<void> set_annotation(Kind kind, const std::string& name, const std::string& key,
                              const std::optional<std::string>& value);
  Result<void> remove(Kind kind, const std::string& name);

 private:
  struct State;
  Result<void> edit(Kind kind, const std::string& name, const char* section, const std::string& key,
                    const std::optional<std::string>& value);

  std::filesystem::path folder_;
  std::unique_ptr<State> state_;
};

}  // namespace sidetrack::lab
