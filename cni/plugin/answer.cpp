// SPDX-License-Identifier: Apache-2.0
#include "cni/plugin/answer.h"

#include "cni/json/json.h"
#include "cni/versions.h"

namespace sidetrack::cni::plugin {
namespace {

std::string known_or_newest(std::string_view version) {
  return json::quoted(version.empty() ? kVersions.back() : version);
}

}  // namespace

std::string error_text(std::string_view version, const Failure& failure) {
  return "{\"cniVersion\":" + known_or_newest(version) +
         ",\"code\":" + std::to_string(failure.code) +
         ",\"msg\":" + json::quoted("sidetrack: " + failure.message) +
         ",\"details\":" + json::quoted(failure.details) + "}\n";
}

std::string version_text(std::string_view version) {
  std::string all;
  for (const std::string_view one : kVersions) {
    all += (all.empty() ? "" : ",") + json::quoted(one);
  }
  return "{\"cniVersion\":" + known_or_newest(version) + ",\"supportedVersions\":[" + all + "]}\n";
}

}  // namespace sidetrack::cni::plugin
