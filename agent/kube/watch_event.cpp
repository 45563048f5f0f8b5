// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/watch_event.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/kube/fields.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

// Discarded (not an object, nor null): no JSON.
json parse(std::string_view text) {
  return json::parse(text.begin(), text.end(), nullptr, false);
}

const json& member(const json& object, const char* key) {
  static const json kNothing;
  if (!object.is_object()) {
    return kNothing;
  }
  const auto found = object.find(key);
  return found == object.end() ? kNothing : *found;
}

std::string text_of(const json& object, const char* key) {
  const json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::string key_of(const json& object) {
  const json& metadata = member(object, "metadata");
  const std::string name = text_of(metadata, "name");
  const std::string space = text_of(metadata, "namespace");
  return space.empty() || name.empty() ? name : space + "/" + name;
}

ApiStatus status_of(int code, const json& value) {
  ApiStatus status{.code = code};
  const json& number = member(value, "code");
  if (number.is_number_integer()) {
    const auto stated = number.get<std::int64_t>();
    status.code = stated > 0 && stated < 1000 ? static_cast<int>(stated) : code;
  }
  status.reason = cut_shown(text_of(value, "reason"));
  status.message = cut_shown(text_of(value, "message"));
  const json& details = member(value, "details");
  const json& causes = member(details, "causes");
  status.version_too_large =
      causes.is_array() && std::any_of(causes.begin(), causes.end(), [](const json& cause) {
        return text_of(cause, "reason") == "ResourceVersionTooLarge";
      });
  const json& wait = member(details, "retryAfterSeconds");
  if (wait.is_number_integer() && wait.get<std::int64_t>() > 0) {
    status.retry_after =
        std::chrono::seconds(std::min<std::int64_t>(wait.get<std::int64_t>(), 3600));
  }
  return status;
}

Issue whole_object_issue(Resource resource, const std::string& key, std::string reason) {
  return Issue{.object = key.empty() ? std::string(names_of(resource).kind)
                                     : fmt::format("{}/{}", names_of(resource).kind, key),
               .pointer = "",
               .value = "",
               .reason = std::move(reason)};
}

ItemResult decode_object(Resource resource, json value) {
  ItemResult result;
  if (!value.is_object()) {
    result.issues.push_back(whole_object_issue(resource, "", "is not a JSON object"));
    return result;
  }
  result.key = key_of(value);
  result.resource_version = text_of(member(value, "metadata"), "resourceVersion");
  // The items of a list name neither.
  value.emplace("kind", names_of(resource).kind);
  value.emplace("apiVersion", names_of(resource).api_version);
  if (auto metadata = value.find("metadata"); metadata != value.end() && metadata->is_object()) {
    metadata->erase("managedFields");
  }
  Decoded decoded = decode(value);
  result.issues = std::move(decoded.issues);
  if (decoded.objects.size() != 1) {
    return result;
  }
  Object& object = decoded.objects.front().object;
  if (object.index() != index_of(resource)) {
    result.issues.push_back(whole_object_issue(
        resource, result.key, "the API server sent " + object_name(object) + " instead"));
    return result;
  }
  result.object = std::move(object);
  return result;
}

}  // namespace

bool ItemResult::failed() const {
  return !object && std::any_of(issues.begin(), issues.end(),
                                [](const Issue& issue) { return !issue.warning; });
}

ItemResult decode_item(Resource resource, std::string_view text) {
  return decode_object(resource, parse(text));
}

WatchEvent decode_watch_line(Resource resource, std::string_view line) {
  WatchEvent event;
  json value = parse(line);
  if (!value.is_object() || !member(value, "object").is_object()) {
    event.status.message = "not a watch event: " + cut_shown(line);
    return event;
  }
  const std::string type = text_of(value, "type");
  json& object = value["object"];
  if (type == "ADDED" || type == "MODIFIED") {
    event.type = WatchEvent::Type::kPut;
    event.item = decode_object(resource, std::move(object));
  } else if (type == "DELETED") {
    event.type = WatchEvent::Type::kDeleted;
    event.item.key = key_of(object);
    event.item.resource_version = text_of(member(object, "metadata"), "resourceVersion");
  } else if (type == "BOOKMARK") {
    event.type = WatchEvent::Type::kBookmark;
    const json& metadata = member(object, "metadata");
    event.item.resource_version = text_of(metadata, "resourceVersion");
    event.initial_end =
        text_of(member(metadata, "annotations"), "k8s.io/initial-events-end") == "true";
  } else if (type == "ERROR") {
    event.type = WatchEvent::Type::kError;
    event.status = status_of(500, object);
  } else {
    event.status.message = "a watch event of unknown type \"" + cut_shown(type) + "\"";
  }
  return event;
}

std::optional<ListMetadata> decode_list_metadata(Resource resource, std::string_view envelope) {
  const json value = parse(envelope);
  const std::string kind = text_of(value, "kind");
  if (!value.is_object() || kind != std::string(names_of(resource).kind) + "List") {
    return std::nullopt;
  }
  const json& metadata = member(value, "metadata");
  ListMetadata list{.resource_version = text_of(metadata, "resourceVersion"),
                    .continue_token = text_of(metadata, "continue")};
  return list.resource_version.empty() ? std::nullopt : std::optional(std::move(list));
}

ApiStatus decode_status(int code, std::string_view body) {
  const json value = parse(body);
  ApiStatus status = status_of(code, value);
  status.code = code;
  if (status.message.empty()) {
    status.message = cut_shown(body);
  }
  return status;
}

}  // namespace sidetrack::kube
