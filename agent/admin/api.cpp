// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/api.h"

#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/admin/json.h"

namespace sidetrack::admin {
namespace {

using nlohmann::json;
using Endpoint = Response (*)(Views&, const Request&);

unsigned status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kInvalid:
      return 400;
    case ErrorCode::kPermission:
      return 403;
    case ErrorCode::kExists:
      return 409;
    case ErrorCode::kUnsupported:
      return 501;
    case ErrorCode::kFull:
    case ErrorCode::kBusy:
      return 503;
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      break;
  }
  return 500;
}

Response reply(const json& body) {
  return Response{.body = dump(body) + "\n", .allow = {}};
}

Response reply(const Error& error) {
  return Response{
      .status = status_of(error.code), .body = dump(admin::to_json(error)) + "\n", .allow = {}};
}

template <typename T>
Response reply(const Result<T>& result) {
  return result ? reply(to_json(*result)) : reply(result.error());
}

Response missing(const std::string& name) {
  return reply(make_error(ErrorCode::kInvalid, "query parameter \"" + name + "\" is missing"));
}

// The whole text as a number, nothing else around it; empty text = 0.
template <typename T>
Result<T> number(const Request& request, const std::string& name) {
  const auto text = request.parameter(name);
  T value{};
  if (text.empty()) {
    return value;
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool fits = error == std::errc{} && end == text.data() + text.size();
  if constexpr (std::is_floating_point_v<T>) {
    fits = fits && std::isfinite(value) && value >= 0;
  }
  if (!fits) {
    return make_error(ErrorCode::kInvalid,
                      "query parameter \"" + name + "\" is not a number: " + text);
  }
  return value;
}

Response get_status(Views& views, const Request&) {
  return reply(to_json(views.status()));
}

Response get_pods(Views& views, const Request& request) {
  return reply(to_json(views.pods(request.parameter("namespace"))));
}

Response get_policy(Views& views, const Request& request) {
  for (const std::string name : {"namespace", "pod"}) {
    if (request.parameter(name).empty()) {
      return missing(name);
    }
  }
  return reply(views.policy(request.parameter("namespace"), request.parameter("pod")));
}

Response get_explain(Views& views, const Request& request) {
  for (const std::string name : {"namespace", "pod", "destination"}) {
    if (request.parameter(name).empty()) {
      return missing(name);
    }
  }
  return reply(views.explain(request.parameter("namespace"), request.parameter("pod"),
                             request.parameter("destination")));
}

Response get_flows(Views& views, const Request& request) {
  const auto since = number<double>(request, "since");
  if (!since) {
    return reply(since.error());
  }
  const auto after = number<std::uint64_t>(request, "after");
  if (!after) {
    return reply(after.error());
  }
  return reply(to_json(views.flows(FlowQuery{.namespace_name = request.parameter("namespace"),
                                             .since = *since,
                                             .after_sequence = *after})));
}

Response get_counters(Views& views, const Request&) {
  return reply(to_json(views.counters()));
}

Response get_bypass(Views& views, const Request&) {
  return reply(json{{"bypass", views.status().bypass}});
}

Response post_bypass(Views& views, const Request& request) {
  const auto body = json::parse(request.body, nullptr, false);
  if (!body.is_object() || !body.contains("on") || !body["on"].is_boolean()) {
    return reply(
        make_error(ErrorCode::kInvalid, R"(the body must be {"on": true} or {"on": false})"));
  }
  const bool on = body["on"].get<bool>();
  const auto done = views.set_bypass(on);
  return done ? reply(json{{"bypass", on}}) : reply(done.error());
}

Response get_workloads(Views& views, const Request&) {
  return reply(to_json(views.demoted_workloads()));
}

Response post_workloads(Views& views, const Request& request) {
  const auto body = json::parse(request.body, nullptr, false);
  if (!body.is_object() || !body.contains("forget") || !body["forget"].is_string()) {
    return reply(
        make_error(ErrorCode::kInvalid, R"(the body must be {"forget": "NAMESPACE/KIND/NAME"})"));
  }
  const auto done = views.forget_workload(body["forget"].get<std::string>());
  return done ? get_workloads(views, request) : reply(done.error());
}

using Methods = std::map<std::string, Endpoint>;

const std::map<std::string, Methods>& endpoints() {
  static const std::map<std::string, Methods> kEndpoints = {
      {"/v1/status", {{"GET", get_status}}},
      {"/v1/pods", {{"GET", get_pods}}},
      {"/v1/policy", {{"GET", get_policy}}},
      {"/v1/explain", {{"GET", get_explain}}},
      {"/v1/flows", {{"GET", get_flows}}},
      {"/v1/counters", {{"GET", get_counters}}},
      {"/v1/workloads", {{"GET", get_workloads}, {"POST", post_workloads}}},
      {"/v1/bypass", {{"GET", get_bypass}, {"POST", post_bypass}}},
  };
  return kEndpoints;
}

Response not_found(const std::string& path) {
  std::string known;
  for (const auto& [name, methods] : endpoints()) {
    known += (known.empty() ? "" : ", ") + name;
  }
  return reply(make_error(ErrorCode::kNotFound, "there is no " + path + "; there are " + known));
}

Response not_allowed(const Request& request, const Methods& methods) {
  std::string allowed;
  for (const auto& [method, endpoint] : methods) {
    allowed += (allowed.empty() ? "" : ", ") + method;
  }
  auto response = reply(
      make_error(ErrorCode::kInvalid, request.method + " is not allowed here; use " + allowed));
  response.status = 405;
  response.allow = allowed;
  return response;
}

}  // namespace

Handler make_api(Views& views) {
  return [&views](const Request& request) {
    const auto found = endpoints().find(request.path);
    if (found == endpoints().end()) {
      return not_found(request.path);
    }
    const auto& methods = found->second;
    const auto method = methods.find(request.method == "HEAD" ? "GET" : request.method);
    return method == methods.end() ? not_allowed(request, methods) : method->second(views, request);
  };
}

}  // namespace sidetrack::admin
