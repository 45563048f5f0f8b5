// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/api_event.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

#include <nlohmann/json.hpp>

#include "agent/kube/resource.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxMessage = 1000;  // the API takes 1,024
constexpr std::size_t kMaxNamePart = 200;  // of 253, with the time behind it

std::string namespace_of(const ClusterEvent& event) {
  return event.namespace_name.empty() ? "default" : event.namespace_name;
}

// Cut to `limit` bytes, never within a UTF-8 sequence.
std::string cut(std::string text, std::size_t limit) {
  if (text.size() > limit) {
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0U) == 0x80U) {
      --limit;
    }
    text.resize(limit);
  }
  return text;
}

}  // namespace

bool EventLimiter::allow(const ClusterEvent& event, TimePoint now) {
  const std::string key = fmt::format("{}/{}/{}/{}|{}|{}", event.kind, event.namespace_name,
                                      event.name, event.uid, event.reason, event.about);
  const auto found = last_.find(key);
  if (found != last_.end() && now - found->second < kInterval) {
    return false;
  }
  if (found == last_.end() && last_.size() >= kMaxRemembered) {
    std::erase_if(last_, [now](const auto& entry) { return now - entry.second >= kInterval; });
    if (last_.size() >= kMaxRemembered) {
      return false;
    }
  }
  last_.insert_or_assign(key, now);
  return true;
}

std::string event_target(const ClusterEvent& event) {
  return fmt::format("/api/v1/namespaces/{}/events", percent_encode(namespace_of(event)));
}

std::string event_text(const ClusterEvent& event, const std::string& node, std::int64_t unix_ns) {
  const std::string time = fmt::format(
      "{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(unix_ns / 1'000'000'000)));
  json object = {{"kind", event.kind}, {"apiVersion", "v1"}, {"name", event.name}};
  if (!event.namespace_name.empty()) {
    object["namespace"] = event.namespace_name;
  }
  if (!event.uid.empty()) {
    object["uid"] = event.uid;
  }
  const json value = {{"apiVersion", "v1"},
                      {"kind", "Event"},
                      {"metadata",
                       {{"name", fmt::format("{}.{:x}", cut(event.name, kMaxNamePart), unix_ns)},
                        {"namespace", namespace_of(event)}}},
                      {"involvedObject", object},
                      {"reason", event.reason},
                      {"message", cut(event.message, kMaxMessage)},
                      {"type", event.warning ? "Warning" : "Normal"},
                      {"source", {{"component", "sidetrack-agent"}, {"host", node}}},
                      {"reportingComponent", "sidetrack.io/agent"},
                      {"reportingInstance", cut(node, 128)},
                      {"firstTimestamp", time},
                      {"lastTimestamp", time},
                      {"count", 1}};
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace sidetrack::kube
