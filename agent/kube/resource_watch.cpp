// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/resource_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/kube/object_text.h"

namespace sidetrack::kube {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using Kind = ListWatchRequest::Kind;

namespace {

ReflectorSettings settings_for(Resource resource, ReflectorSettings settings) {
  // There always are kube-system and default.
  settings.never_empty = resource == Resource::kNamespaces;
  return settings;
}

std::vector<Problem> problems_of(std::vector<Issue> issues) {
  std::vector<Problem> problems;
  for (Issue& issue : issues) {
    if (!issue.warning) {
      problems.push_back(Problem{.object = std::move(issue.object),
                                 .key = std::move(issue.pointer),
                                 .value = std::move(issue.value),
                                 .reason = std::move(issue.reason)});
    }
  }
  return problems;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string describe(const Failure& failure) {
  if (failure.status.code == 0) {
    return failure.status.message;
  }
  return fmt::format("{} {}{}{}", failure.status.code, failure.status.reason,
                     failure.status.reason.empty() ? "" : ": ", failure.status.message);
}

}  // namespace

ResourceWatch::ResourceWatch(Resource resource, std::string node, const WatchTimes& times,
                             Random random, const std::string& known_version, bool knows_objects,
                             ApiClient& client, Outbox& outbox)
    : resource_(resource),
      node_(std::move(node)),
      times_(times),
      reflector_(settings_for(resource, times.reflector), std::move(random), known_version,
                 knows_objects),
      client_(client),
      outbox_(outbox) {
  state_.resource = resource;
  next_ = reflector_.list();
}

ResourceWatch::~ResourceWatch() {
  if (call_) {
    client_.cancel(*call_);
  }
}

void ResourceWatch::refresh() {
  if (call_) {
    client_.cancel(*std::exchange(call_, std::nullopt));
  }
  next_ = reflector_.list();
  next_at_ = TimePoint();
}

TimePoint ResourceWatch::due() const {
  if (!call_) {
    return next_at_;
  }
  return initial_ ? sent_ + times_.reflector.initial_limit : TimePoint::max();
}

void ResourceWatch::tick(TimePoint now) {
  if (now < due()) {
    return;
  }
  if (!call_) {
    send(now);
    return;
  }
  client_.cancel(*std::exchange(call_, std::nullopt));
  note_failure("the initial events of a watch do not end");
  schedule(now, reflector_.on_initial_timeout(now));
  tell();
}

bool ResourceWatch::is_list() const {
  return next_.request.kind == Kind::kList;
}

void ResourceWatch::send(TimePoint now) {
  const ListWatchRequest& request = next_.request;
  const bool first_page = request.kind != Kind::kWatch && request.continue_token.empty();
  if (first_page) {
    state_.relists += std::exchange(list_open_, true) || state_.listed ? 1 : 0;
    items_ = 0;
    unnamed_ = false;
    emit(Change::Kind::kListBegin, {}, {});
  }
  sent_ = now;
  initial_ = request.kind == Kind::kWatchList;
  events_ = 0;
  broken_.reset();
  decided_.reset();
  pages_ =
      is_list() ? std::make_unique<ListSplitter>([this](auto text) { on_item(text); }) : nullptr;
  lines_ =
      is_list() ? nullptr : std::make_unique<LineSplitter>([this](auto line) { on_line(line); });
  ApiRequest call{.target = target_of(resource_, node_, request)};
  call.deadline = is_list() ? times_.list_limit : request.timeout + times_.read_slack;
  call.idle_limit = is_list() ? times_.idle_limit : std::chrono::seconds(0);
  call.head_deadline = times_.head_limit;
  call_ = client_.start(call, *this);
}

void ResourceWatch::schedule(TimePoint now, Step step) {
  next_ = std::move(step);
  next_at_ = now + next_.delay;
  initial_ = false;
}

void ResourceWatch::emit(Change::Kind kind, std::string key, std::string version,
                         std::optional<Object> object) {
  outbox_.changes.push_back(Change{.kind = kind,
                                   .resource = resource_,
                                   .key = std::move(key),
                                   .object = std::move(object),
                                   .version = std::move(version),
                                   .problems = {}});
}

void ResourceWatch::note_word() {
  state_.last_event = unix_time();
}

void ResourceWatch::tell() {
  outbox_.states.push_back(state_);
}

void ResourceWatch::on_answer() {
  note_word();
  // A server that answers and then sends what is of no use has not recovered by answering.
  if (!failed_in_body_) {
    note_success();
  }
  tell();
}

void ResourceWatch::note_success() {
  failed_in_body_ = false;
  state_.failing = 0;
  state_.problem.clear();
}

// An object, or the news that one cannot be used.
void ResourceWatch::put_item(ItemResult item) {
  // Until a list has ended, what it says does not add up to the state of one version.
  std::string version = list_open_ ? std::string() : std::move(item.resource_version);
  if (item.object) {
    drop_unused(*item.object);
    emit(Change::Kind::kPut, std::move(item.key), std::move(version), std::move(item.object));
    return;
  }
  if (item.key.empty()) {
    unnamed_ = true;
  }
  if (item.failed()) {
    emit(Change::Kind::kKeep, item.key.empty() ? "?" : std::move(item.key), std::move(version));
    outbox_.changes.back().problems = problems_of(std::move(item.issues));
  }
}

void ResourceWatch::on_item(std::string_view text) {
  ++items_;
  put_item(decode_item(resource_, text));
}

void ResourceWatch::end_list(const std::string& version) {
  list_open_ = false;
  state_.listed = true;
  note_success();
  if (unnamed_) {  // one of those that seem to be gone may be that one
    emit(Change::Kind::kVersion, {}, version);
  } else {
    emit(Change::Kind::kListEnd, {}, version);
  }
  tell();
}

void ResourceWatch::on_initial_end(const std::string& version) {
  Step step = reflector_.on_listed(steady_clock::now(), {version, {}}, items_);
  if (reflector_.list_is_whole()) {
    initial_ = false;
    end_list(version);
  } else {
    decided_ = std::move(step);
  }
}

void ResourceWatch::on_line(std::string_view line) {
  if (broken_ || decided_) {
    return;
  }
  WatchEvent event = decode_watch_line(resource_, line);
  const std::string version = event.item.resource_version;
  switch (event.type) {
    case WatchEvent::Type::kPut:
      ++items_;
      put_item(std::move(event.item));
      break;
    case WatchEvent::Type::kDeleted:
      emit(Change::Kind::kDelete, std::move(event.item.key), list_open_ ? std::string() : version);
      break;
    case WatchEvent::Type::kBookmark:
      if (initial_ && event.initial_end) {
        on_initial_end(version);
        return;
      }
      if (!list_open_) {
        emit(Change::Kind::kVersion, {}, version);
      }
      break;
    case WatchEvent::Type::kError:
      broken_ = Failure{.status = std::move(event.status)};
      return;
    case WatchEvent::Type::kGarbage:
      broken_ = Failure{.status = std::move(event.status), .garbage = true};
      return;
  }
  ++events_;
  ++state_.events;
  note_success();
  reflector_.on_version(version);
}

bool ResourceWatch::on_data(std::string_view bytes) {
  note_word();
  const auto fed = pages_ ? pages_->feed(bytes) : lines_->feed(bytes);
  if (!fed && !broken_) {
    broken_ = Failure{.status = {.message = fed.error().message}, .garbage = true};
  }
  if (lines_) {
    tell();
  }
  return !broken_ && !decided_;
}

Step ResourceWatch::fail(TimePoint now, const Failure& failure) {
  Step step = reflector_.on_failure(now, failure);
  // What is tried again at once (another kind of list, a new token) is no trouble yet.
  if (step.delay.count() > 0) {
    note_failure(describe(failure));
  }
  return step;
}

void ResourceWatch::note_failure(std::string problem) {
  ++state_.failures;
  ++state_.failing;
  state_.problem = std::move(problem);
}

// A 2xx answer that came to its end.
Step ResourceWatch::end_of_answer(TimePoint now) {
  if (lines_) {
    if (lines_->has_rest()) {
      return fail(now, {.status = {.message = "a watch event is cut off"}, .garbage = true});
    }
    const auto lasted = std::chrono::duration_cast<milliseconds>(now - sent_);
    const Step step = reflector_.on_watch_end(now, lasted, events_);
    if (step.delay.count() > 0) {
      note_failure("watches end at once");
    }
    return step;
  }
  const auto envelope = pages_->finish();
  const auto metadata =
      envelope ? decode_list_metadata(resource_, *envelope) : std::optional<ListMetadata>();
  if (!metadata) {
    return fail(now, {.status = {.message = envelope ? "the answer is no list of the resource"
                                                     : envelope.error().message},
                      .garbage = true});
  }
  unnamed_ = unnamed_ || pages_->oversized() != 0;
  Step step = reflector_.on_listed(now, *metadata, items_);
  if (reflector_.list_is_whole()) {
    end_list(metadata->resource_version);
  }
  return step;
}

void ResourceWatch::on_end(const ApiOutcome& outcome) {
  const TimePoint now = steady_clock::now();
  call_.reset();
  if (decided_) {
    schedule(now, std::move(*decided_));
  } else if (broken_) {
    failed_in_body_ = true;
    schedule(now, fail(now, *broken_));
  } else if (outcome.ok()) {
    schedule(now, end_of_answer(now));
  } else {
    Failure failure;
    if (outcome.error.empty()) {
      failure.status = decode_status(outcome.status, outcome.body);
      failure.status.retry_after =
          outcome.retry_after ? outcome.retry_after : failure.status.retry_after;
    } else {
      failure.status.message = outcome.error;
    }
    schedule(now, fail(now, failure));
  }
  tell();
}

}  // namespace sidetrack::kube
