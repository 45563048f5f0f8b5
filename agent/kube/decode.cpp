// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/kube/decode_kinds.h"
#include "agent/kube/fields.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

struct Kind {
  std::string_view api_version;
  std::string_view name;
  Object (*decode)(const Field&);  // null: known and of no use
};
constexpr std::array kKinds{
    Kind{"v1", "Namespace", decode_namespace},
    Kind{"v1", "Pod", decode_pod},
    Kind{"v1", "Service", decode_service},
    Kind{"v1", "Node", decode_node},
    Kind{"v1", "ConfigMap", nullptr},
    Kind{"discovery.k8s.io/v1", "EndpointSlice", decode_endpoint_slice},
};

const Kind* find_kind(std::string_view api_version, std::string_view name) {
  const auto* found = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& kind) {
    return kind.api_version == api_version && kind.name == name;
  });
  return found == kKinds.end() ? nullptr : found;
}

// Takes the size of `value` from `budget`; false once it is used up or `value` nests too deeply.
bool fits(const json& value, std::size_t& budget, std::size_t depth) {
  constexpr std::size_t kNodeBytes = 4;
  const std::size_t own =
      kNodeBytes + (value.is_string() ? value.get_ref<const std::string&>().size() : 0);
  if (depth == 0 || own > budget) {
    return false;
  }
  budget -= own;
  if (value.is_array()) {
    return std::all_of(value.begin(), value.end(),
                       [&](const json& item) { return fits(item, budget, depth - 1); });
  }
  if (!value.is_object()) {
    return true;
  }
  for (const auto& member : value.get_ref<const json::object_t&>()) {
    if (member.first.size() > budget) {
      return false;
    }
    budget -= member.first.size();
    if (!fits(member.second, budget, depth - 1)) {
      return false;
    }
  }
  return true;
}

// What an issue calls the object: as much of "Kind/namespace/name" as can be read.
std::string name_for_issues(const std::string& kind, const json& value) {
  const auto text = [&](const char* key) {
    const json* metadata = value.contains("metadata") ? &value["metadata"] : nullptr;
    const bool usable = metadata != nullptr && metadata->is_object() && metadata->contains(key) &&
                        (*metadata)[key].is_string();
    return usable ? cut_shown((*metadata)[key].get_ref<const std::string&>()) : std::string();
  };
  const std::string name = text("name");
  const std::string space = text("namespace");
  if (name.empty()) {
    return kind;
  }
  const bool cluster_scoped = kind == "Namespace" || kind == "Node";
  return cluster_scoped ? kind + "/" + name
                        : fmt::format("{}/{}/{}", kind, space.empty() ? "default" : space, name);
}

bool has_error(const std::vector<Issue>& issues) {
  return std::any_of(issues.begin(), issues.end(),
                     [](const Issue& issue) { return !issue.warning; });
}

class Decoder {
 public:
  Decoded run(const json& value) {
    std::vector<Issue> issues;
    const Field root(&value, "", issues);
    const std::string kind = value.is_object() ? root.at("kind").text() : std::string();
    constexpr std::string_view kList = "List";
    if (kind.ends_with(kList) && value.contains("items")) {
      list_kind_ = kind.substr(0, kind.size() - kList.size());
      list_version_ = list_kind_.empty() ? std::string() : root.at("apiVersion").required_text();
      static_cast<void>(root.at("items").items());  // notes an issue if this is no list
      keep(issues, kind);
      const json& items = value["items"];
      for (std::size_t i = 0; items.is_array() && i < items.size(); ++i) {
        decode_one(items[i], fmt::format("/items/{}", i));
      }
    } else {
      decode_one(value, "");
    }
    return std::move(decoded_);
  }

 private:
  void decode_one(const json& value, const std::string& pointer) {
    std::vector<Issue> issues;
    const Field field(&value, pointer, issues);
    std::string name;
    if (!value.is_object()) {
      field.fail("must be a Kubernetes object");
    } else if (std::size_t budget = kMaxObjectBytes; !fits(value, budget, kMaxObjectDepth)) {
      field.fail(fmt::format("is larger than {} MiB or nested deeper than {}",
                             kMaxObjectBytes >> 20U, kMaxObjectDepth));
    } else {
      name = decode_kind(field, issues);
    }
    keep(issues, name);
  }

  // Returns what issues call the object.
  std::string decode_kind(const Field& field, const std::vector<Issue>& issues) {
    const Field kind_field = field.at("kind");
    const Field version_field = field.at("apiVersion");
    const bool in_list = !list_kind_.empty();
    const std::string kind =
        in_list && !kind_field.present() ? list_kind_ : kind_field.required_text();
    const std::string version =
        in_list && !version_field.present() ? list_version_ : version_field.required_text();
    std::string name = name_for_issues(cut_shown(kind), *field.value());
    if (has_error(issues)) {
      return name;
    }
    const Kind* known = find_kind(version, kind);
    if (known == nullptr) {
      kind_field.warn(cut_shown(version + " " + kind) + " is not read by Sidetrack; skipped");
    } else if (known->decode != nullptr) {
      Object object = known->decode(field);
      const auto* slice = std::get_if<EndpointSlice>(&object);
      if (slice != nullptr && slice->address_type == "FQDN") {
        field.at("addressType").warn("FQDN endpoints are not used; skipped");
      } else if (!has_error(issues)) {
        decoded_.objects.push_back(
            DecodedObject{.object = std::move(object), .pointer = field.pointer()});
      }
    }
    return name;
  }

  void keep(std::vector<Issue>& issues, const std::string& name) {
    for (Issue& issue : issues) {
      const bool first_error = !issue.warning && !error_kept_;
      if (decoded_.issues.size() < kMaxIssues || first_error) {
        error_kept_ = error_kept_ || !issue.warning;
        issue.object = name;
        decoded_.issues.push_back(std::move(issue));
      }
    }
    issues.clear();
  }

  Decoded decoded_;
  std::string list_kind_;  // "Pod" in a PodList; empty outside such a list
  std::string list_version_;
  bool error_kept_ = false;
};

std::string key_of(const Metadata& metadata) {
  return metadata.namespace_name.empty() ? metadata.name
                                         : metadata.namespace_name + "/" + metadata.name;
}

const char* kind_of(const Namespace&) {
  return "Namespace";
}
const char* kind_of(const Pod&) {
  return "Pod";
}
const char* kind_of(const Service&) {
  return "Service";
}
const char* kind_of(const EndpointSlice&) {
  return "EndpointSlice";
}
const char* kind_of(const Node&) {
  return "Node";
}

auto& map_for(ObjectSet& set, const Namespace&) {
  return set.namespaces;
}
auto& map_for(ObjectSet& set, const Pod&) {
  return set.pods;
}
auto& map_for(ObjectSet& set, const Service&) {
  return set.services;
}
auto& map_for(ObjectSet& set, const EndpointSlice&) {
  return set.endpoint_slices;
}
auto& map_for(ObjectSet& set, const Node&) {
  return set.nodes;
}

}  // namespace

std::string object_name(const Object& object) {
  return std::visit(
      [](const auto& value) {
        return fmt::format("{}/{}", kind_of(value), key_of(value.metadata));
      },
      object);
}

bool put_object(ObjectSet& set, Object object) {
  return std::visit(
      [&](auto& value) {
        auto& map = map_for(set, value);
        std::string key = key_of(value.metadata);
        return map.insert_or_assign(std::move(key), std::move(value)).second;
      },
      object);
}

Decoded decode(const json& value) {
  return Decoder().run(value);
}

}  // namespace sidetrack::kube
