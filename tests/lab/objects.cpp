// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/objects.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <nlohmann/json.hpp>

#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

bool is_v6(const std::string& address) {
  return address.find(':') != std::string::npos;
}

json metadata_of(const std::string& name, const std::string& namespace_name,
                 const StringMap& labels, const StringMap& annotations) {
  json metadata = {{"name", name},
                   {"uid", "uid-" + namespace_name + "-" + name},
                   {"labels", labels},
                   {"annotations", annotations}};
  if (!namespace_name.empty()) {
    metadata["namespace"] = namespace_name;
  }
  return metadata;
}

std::string file_of(Kind kind, const std::string& name) {
  std::string file = (kind == Kind::kNamespace ? "namespace-" : "pod-") + name + ".json";
  std::replace(file.begin(), file.end(), '/', '.');
  return file;
}

// The slice of one family; null if no backend has an address in it.
json slice_of(const ServiceSpec& spec, bool v6) {
  json endpoints = json::array();
  for (const Backend& backend : spec.backends) {
    json addresses = json::array();
    for (const std::string& address : backend.addresses) {
      if (is_v6(address) == v6) {
        addresses.push_back(address);
      }
    }
    if (addresses.empty()) {
      continue;
    }
    json endpoint = {{"addresses", addresses},
                     {"conditions", {{"ready", backend.ready}, {"serving", backend.ready}}},
                     {"nodeName", backend.node_name}};
    if (!backend.zone.empty()) {
      endpoint["zone"] = backend.zone;
    }
    endpoints.push_back(endpoint);
  }
  if (endpoints.empty()) {
    return nullptr;
  }
  const StringMap labels = {{"kubernetes.io/service-name", spec.name}};
  return {
      {"apiVersion", "discovery.k8s.io/v1"},
      {"kind", "EndpointSlice"},
      {"metadata", metadata_of(spec.name + (v6 ? "-v6" : "-v4"), spec.namespace_name, labels, {})},
      {"addressType", v6 ? "IPv6" : "IPv4"},
      {"ports", {{{"name", "main"}, {"protocol", "TCP"}, {"port", spec.target_port}}}},
      {"endpoints", endpoints}};
}

}  // namespace

struct Objects::State {
  std::map<std::string, json> files;  // namespaces and pods, by file name
};

Objects::Objects(std::filesystem::path folder)
    : folder_(std::move(folder)), state_(std::make_unique<State>()) {
  std::error_code ignored;  // a folder that cannot be made shows at the first put
  std::filesystem::create_directories(folder_, ignored);
}

Objects::~Objects() = default;

Result<void> Objects::put_text(const std::string& file_name, const std::string& text) const {
  return write_atomically(folder_ / file_name, text);
}

Result<void> Objects::put(const NamespaceSpec& spec) {
  const std::string file = file_of(Kind::kNamespace, spec.name);
  json& object = state_->files[file];
  object = {{"apiVersion", "v1"},
            {"kind", "Namespace"},
            {"metadata", metadata_of(spec.name, "", spec.labels, spec.annotations)}};
  return put_text(file, object.dump(2));
}

Result<void> Objects::put(const PodSpec& spec) {
  StringMap annotations = spec.annotations;
  if (!spec.netns_path.empty()) {
    annotations["sidetrack.io/netns"] = spec.netns_path;
  }
  json addresses = json::array();
  for (const std::string& address : spec.addresses) {
    addresses.push_back({{"ip", address}});
  }
  json ports = json::array();
  for (const std::uint16_t port : spec.container_ports) {
    ports.push_back({{"containerPort", port}, {"protocol", "TCP"}});
  }
  json status = {{"phase", "Running"}, {"podIPs", addresses}};
  if (!spec.addresses.empty()) {
    status["podIP"] = spec.addresses.front();
  }
  const std::string file = file_of(Kind::kPod, spec.namespace_name + "/" + spec.name);
  json& object = state_->files[file];
  object = {
      {"apiVersion", "v1"},
      {"kind", "Pod"},
      {"metadata", metadata_of(spec.name, spec.namespace_name, spec.labels, annotations)},
      {"spec",
       {{"nodeName", spec.node_name}, {"containers", {{{"name", "main"}, {"ports", ports}}}}}},
      {"status", status}};
  if (const std::size_t slash = spec.owner.find('/'); slash != std::string::npos) {
    object["metadata"]["ownerReferences"] = {{{"controller", true},
                                              {"kind", spec.owner.substr(0, slash)},
                                              {"name", spec.owner.substr(slash + 1)}}};
  }
  return put_text(file, object.dump(2));
}

Result<void> Objects::put(const ServiceSpec& spec) {
  json service = {{"apiVersion", "v1"},
                  {"kind", "Service"},
                  {"metadata", metadata_of(spec.name, spec.namespace_name, {}, {})},
                  {"spec",
                   {{"type", "ClusterIP"},
                    {"clusterIPs", spec.cluster_addresses},
                    {"ports",
                     {{{"name", "main"},
                       {"protocol", "TCP"},
                       {"port", spec.port},
                       {"targetPort", spec.target_port}}}}}}};
  if (!spec.cluster_addresses.empty()) {
    service["spec"]["clusterIP"] = spec.cluster_addresses.front();
  }
  json items = json::array({service});
  for (const bool v6 : {false, true}) {
    if (json slice = slice_of(spec, v6); !slice.is_null()) {
      items.push_back(std::move(slice));
    }
  }
  // One multi-document file, so that no reader sees the Service of one put with the endpoints of
  // another. YAML is a superset of JSON.
  std::string text;
  for (const json& item : items) {
    text += "---\n" + item.dump() + "\n";
  }
  return put_text(fmt::format("service-{}.{}.yaml", spec.namespace_name, spec.name), text);
}

Result<void> Objects::edit(Kind kind, const std::string& name, const char* section,
                           const std::string& key, const std::optional<std::string>& value) {
  const std::string file = file_of(kind, name);
  const auto known = state_->files.find(file);
  if (known == state_->files.end()) {
    return make_error(ErrorCode::kNotFound, "no object " + name);
  }
  json& entries = known->second["metadata"][section];
  if (value) {
    entries[key] = *value;
  } else {
    entries.erase(key);
  }
  return put_text(file, known->second.dump(2));
}

Result<void> Objects::set_label(Kind kind, const std::string& name, const std::string& key,
                                const std::optional<std::string>& value) {
  return edit(kind, name, "labels", key, value);
}

Result<void> Objects::set_annotation(Kind kind, const std::string& name, const std::string& key,
                                     const std::optional<std::string>& value) {
  return edit(kind, name, "annotations", key, value);
}

Result<void> Objects::remove(Kind kind, const std::string& name) {
  const std::string file = file_of(kind, name);
  state_->files.erase(file);
  std::error_code failure;
  if (!std::filesystem::remove(folder_ / file, failure)) {
    return failure ? errno_error("remove " + file, failure.value())
                   : make_error(ErrorCode::kNotFound, "no object " + name);
  }
  return {};
}

}  // namespace sidetrack::lab
