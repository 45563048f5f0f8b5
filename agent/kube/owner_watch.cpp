// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/owner_watch.h"

#include <chrono>
#include <utility>

#include <nlohmann/json.hpp>

namespace sidetrack::kube {

namespace {

constexpr std::chrono::seconds kWatch{300};
constexpr std::chrono::seconds kSlack{30};

}  // namespace

std::optional<bool> is_gone(std::string_view watch_line) {
  const auto event = nlohmann::json::parse(watch_line, nullptr, false);
  if (!event.is_object() || !event.contains("type") || !event["type"].is_string() ||
      !event.contains("object") || !event["object"].is_object()) {
    return std::nullopt;
  }
  const std::string type = event["type"];
  if (type == "DELETED") {
    return true;
  }
  if (type != "ADDED" && type != "MODIFIED") {
    return std::nullopt;
  }
  const auto metadata = event["object"].find("metadata");
  if (metadata == event["object"].end() || !metadata->is_object()) {
    return std::nullopt;
  }
  return metadata->contains("deletionTimestamp");
}

OwnerWatch::OwnerWatch(std::string target, Random random, ApiClient& client)
    : target_(std::move(target)),
      client_(client),
      backoff_({}, std::move(random)),
      lines_([this](std::string_view line) {
        if (const auto said = is_gone(line)) {
          gone_ = *said;
        }
      }) {}

OwnerWatch::~OwnerWatch() {
  if (call_) {
    client_.cancel(*call_);
  }
}

TimePoint OwnerWatch::due() const {
  return target_.empty() || call_ ? TimePoint::max() : next_at_;
}

void OwnerWatch::tick(TimePoint now) {
  if (now < due()) {
    return;
  }
  ApiRequest request{.target = target_ + "&timeoutSeconds=" + std::to_string(kWatch.count())};
  request.deadline = kWatch + kSlack;
  call_ = client_.start(request, *this);
}

bool OwnerWatch::on_data(std::string_view bytes) {
  return lines_.feed(bytes).has_value();
}

// The end of a watch is ordinary; what it missed comes as the first word of the next one.
void OwnerWatch::on_end(const ApiOutcome& /*outcome*/) {
  call_.reset();
  lines_.reset();
  next_at_ = std::chrono::steady_clock::now() + backoff_.next(std::chrono::steady_clock::now());
}

}  // namespace sidetrack::kube
