// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/reflector.h"

#include <algorithm>
#include <utility>

namespace sidetrack::kube {

using std::chrono::milliseconds;
using Kind = ListWatchRequest::Kind;

namespace {

constexpr std::uint32_t kPageItems = 500;
constexpr unsigned kMaxGarbage = 3;        // watches in a row before a list is tried
constexpr unsigned kMaxInitialBreaks = 3;  // watches that broke off before their initial events
                                           // ended
constexpr int kUnauthorized = 401;
constexpr int kGone = 410;
constexpr int kServerError = 500;

// "No" to a parameter or a method, not to us or to the moment.
bool is_rejection(int code) {
  return code == 400 || code == 404 || code == 405 || code == 406 || code == 422;
}

}  // namespace

Reflector::Reflector(ReflectorSettings settings, Random random, std::string known_version,
                     bool knows_objects)
    : settings_(settings),
      random_(random),
      backoff_(settings.backoff, std::move(random)),
      version_(std::move(known_version)),
      knows_objects_(knows_objects) {}

bool Reflector::is_listing() const {
  return current_.kind != Kind::kWatch;
}

std::chrono::seconds Reflector::watch_timeout() {
  const auto range = static_cast<double>((settings_.watch_max - settings_.watch_min).count());
  return settings_.watch_min +
         std::chrono::seconds(static_cast<std::chrono::seconds::rep>(range * random_()));
}

Step Reflector::list() {
  unpaged_ = false;
  confirming_ = false;
  return list_step(milliseconds(0));
}

Step Reflector::list_step(milliseconds delay) {
  whole_ = false;
  current_ = ListWatchRequest{};
  const bool most_recent = use_most_recent_ || confirming_;
  if (settings_.try_watch_list && !confirming_) {
    current_.kind = Kind::kWatchList;
    current_.resource_version = most_recent ? "" : version_;
    current_.timeout = watch_timeout();
    return {current_, delay};
  }
  current_.resource_version = most_recent ? "" : version_.empty() ? "0" : version_;
  // A version asks the watch cache, which a limit would bypass; at "0" the limit is for servers
  // without a cache.
  const bool pages = current_.resource_version.empty() || current_.resource_version == "0";
  current_.limit = pages && !unpaged_ ? kPageItems : 0;
  return {current_, delay};
}

Step Reflector::watch_step(milliseconds delay) {
  current_ = ListWatchRequest{.kind = Kind::kWatch,
                              .resource_version = version_,
                              .continue_token = {},
                              .limit = 0,
                              .timeout = watch_timeout()};
  return {current_, delay};
}

// What was asked, once more; a list from its beginning, because the pages before are of then.
Step Reflector::again(milliseconds delay) {
  return is_listing() ? list_step(delay) : watch_step(delay);
}

void Reflector::note_success() {
  auth_retried_ = false;
  garbage_ = 0;
  has_error_ = false;
}

void Reflector::on_version(const std::string& version) {
  note_success();
  // Until its initial events have ended, a watch's events are older than what it will have said.
  if (!version.empty() && current_.kind == Kind::kWatch) {
    version_ = version;
  }
}

Step Reflector::on_listed(TimePoint now, const ListMetadata& page, std::size_t items) {
  note_success();
  const bool streamed = current_.kind == Kind::kWatchList;
  if (!page.continue_token.empty()) {
    current_.continue_token = page.continue_token;
    current_.resource_version.clear();
    return {current_, milliseconds(0)};
  }
  if (items == 0 && (settings_.never_empty || (knows_objects_ && !confirming_))) {
    confirming_ = true;
    return list_step(backoff_.next(now));
  }
  knows_objects_ = items != 0;
  whole_ = true;
  confirming_ = false;
  unpaged_ = false;
  use_most_recent_ = false;
  initial_breaks_ = 0;
  version_ = page.resource_version;
  if (streamed) {  // the same stream goes on
    current_.kind = Kind::kWatch;
    return {current_, milliseconds(0)};
  }
  return watch_step(milliseconds(0));
}

milliseconds Reflector::wait(TimePoint now, const Failure& failure) {
  const milliseconds own = backoff_.next(now);
  return failure.status.retry_after ? std::max<milliseconds>(own, *failure.status.retry_after)
                                    : own;
}

// The version, or the token of a page, is older than what the server remembers, or newer than what
// it knows.
Step Reflector::on_gone(TimePoint now) {
  if (!is_listing()) {
    return list_step(backoff_.next(now));
  }
  if (!current_.continue_token.empty()) {
    unpaged_ = true;
    use_most_recent_ = true;
    return list_step(backoff_.next(now));
  }
  return list_step(std::exchange(use_most_recent_, true) ? backoff_.next(now) : milliseconds(0));
}

Step Reflector::on_rejected(TimePoint now) {
  settings_.try_watch_list = false;
  return list_step(backoff_.next(now));
}

Step Reflector::on_failure(TimePoint now, const Failure& failure) {
  const int code = failure.status.code;
  if (code == kGone || failure.status.version_too_large) {
    return on_gone(now);
  }
  if (code == kUnauthorized && !std::exchange(auth_retried_, true)) {
    return again(milliseconds(0));
  }
  if (current_.kind == Kind::kWatchList) {
    const bool broke = code == 0 || failure.garbage;
    // 500 is what a server says whose etcd cannot tell it how far a watch has come.
    if (is_rejection(code) || code == kServerError) {
      // The list may well work: no delay before it. If not, it waits.
      settings_.try_watch_list = false;
      return list_step(milliseconds(0));
    }
    if (broke && ++initial_breaks_ >= kMaxInitialBreaks) {
      initial_breaks_ = 0;
      return on_rejected(now);
    }
  }
  if (!is_listing()) {
    if (failure.garbage && ++garbage_ >= kMaxGarbage) {
      garbage_ = 0;
      return list_step(wait(now, failure));
    }
    if (is_rejection(code)) {  // watching is not understood: perhaps a list helps
      return list_step(wait(now, failure));
    }
    if (code >= kServerError && !std::exchange(has_error_, true)) {
      first_error_ = now;
    }
    if (code >= kServerError && now - first_error_ > settings_.error_limit) {
      has_error_ = false;
      return list_step(wait(now, failure));
    }
  }
  return again(wait(now, failure));
}

Step Reflector::on_watch_end(TimePoint now, milliseconds lasted, std::size_t events) {
  if (current_.kind == Kind::kWatchList) {
    return on_failure(now, Failure{});
  }
  const bool is_short = lasted < settings_.short_watch;
  if (!is_short) {
    note_success();
  }
  const bool was_short = std::exchange(was_short_, is_short);
  if (is_short && (events == 0 || was_short)) {
    return watch_step(backoff_.next(now));
  }
  return watch_step(milliseconds(0));
}

Step Reflector::on_initial_timeout(TimePoint now) {
  return on_rejected(now);
}

}  // namespace sidetrack::kube
