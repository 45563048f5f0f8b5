// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/daemonset.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include <nlohmann/json.hpp>

#include "agent/kube/resource.h"
#include "agent/kube/single_call.h"
#include "agent/kube/watch_event.h"

namespace sidetrack::kube {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPause{200};

}  // namespace

ApiRequest daemonset_request(const std::string& namespace_name, const std::string& name,
                             std::chrono::milliseconds limit) {
  ApiRequest request{.target = fmt::format("/apis/apps/v1/namespaces/{}/daemonsets/{}",
                                           percent_encode(namespace_name), percent_encode(name))};
  request.deadline = limit;
  return request;
}

Existence daemonset_existence(const ApiOutcome& outcome, const std::string& body) {
  if (outcome.ok()) {
    const auto value = nlohmann::json::parse(body, nullptr, false);
    const bool readable = value.is_object() && value.contains("metadata");
    if (!readable || !value["metadata"].is_object()) {
      return Existence::kUnknown;
    }
    return value["metadata"].contains("deletionTimestamp") ? Existence::kGone : Existence::kExists;
  }
  if (!outcome.error.empty()) {
    return Existence::kUnknown;
  }
  // Not every 404 is the API server's.
  const std::string reason = decode_status(outcome.status, outcome.body).reason;
  if (outcome.status == 404 && reason == "NotFound") {
    return Existence::kGone;
  }
  if (outcome.status == 403 && reason == "Forbidden") {
    return Existence::kNoRight;
  }
  return outcome.status == 401 && reason == "Unauthorized" ? Existence::kNoAccount
                                                           : Existence::kUnknown;
}

Result<Existence> ask_daemonset(const ApiConfig& config, const std::string& namespace_name,
                                const std::string& name, Patience patience) {
  auto client = ApiClient::create(config);
  ST_TRY(client);
  const auto start = Clock::now();
  auto end = start + patience.answer;
  auto heard = Existence::kUnknown;
  for (;;) {
    Existence existence{};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    const SingleCall call(**client, daemonset_request(namespace_name, name, std::max(left, kPause)),
                          [&existence](const ApiOutcome& outcome, const std::string& body) {
                            existence = daemonset_existence(outcome, body);
                          });
    while (!call.ended()) {  // by its deadline
      (*client)->run(Clock::now() + patience.answer);
    }
    if (existence == Existence::kNoRight && Clock::now() < start + patience.refusal) {
      end = Clock::now() + patience.answer;
    }
    // The last question has little time: its silence takes nothing back.
    heard = existence == Existence::kUnknown ? heard : existence;
    const bool is_sure = existence == Existence::kExists || existence == Existence::kGone;
    if (is_sure || Clock::now() + kPause >= end) {
      return heard;
    }
    std::this_thread::sleep_for(kPause);  // a refusal may be of a moment, and the rest, too
  }
}

}  // namespace sidetrack::kube
