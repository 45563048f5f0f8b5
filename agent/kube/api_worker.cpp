// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/api_worker.h"

#include <algorithm>
#include <random>
#include <utility>

namespace sidetrack::kube {

using std::chrono::steady_clock;

namespace {

constexpr std::size_t kMaxWaiting = 256;
constexpr std::chrono::seconds kLongestWait{60};

Random random_numbers() {
  std::random_device device;
  auto engine = std::make_shared<std::mt19937_64>(device());
  return [engine] { return std::uniform_real_distribution<double>(0, 1)(*engine); };
}

}  // namespace

ApiWorker::ApiWorker(std::unique_ptr<ApiClient> client, const ObjectCache& cache, std::string node,
                     std::string owner, const WatchTimes& times, Sink sink)
    : client_(std::move(client)),
      cache_(cache),
      node_(std::move(node)),
      times_(times),
      sink_(std::move(sink)),
      owner_(std::make_unique<OwnerWatch>(std::move(owner), random_numbers(), *client_)),
      thread_([this] { work(); }) {}

ApiWorker::~ApiWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  client_->wake();
  thread_.join();
  owner_.reset();
  client_.reset();  // takes the single requests out, which must live until then
}

void ApiWorker::refresh() {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({.refresh = true, .request = {}, .done = {}});
  }
  client_->wake();
}

Result<void> ApiWorker::request(ApiRequest request, Done done) {
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() + open_singles_ >= kMaxWaiting) {
      return make_error(ErrorCode::kFull, "too many requests to the API server are waiting");
    }
    jobs_.push_back({.refresh = false, .request = std::move(request), .done = std::move(done)});
  }
  client_->wake();
  return {};
}

void ApiWorker::load() {
  Batch batch{.news = {}, .cached = true, .saved = {}, .problems = {}};
  for (const Resource resource : kResources) {
    std::vector<Change> changes;
    auto list = cache_.load(resource, [&](std::string key, Object object) {
      changes.push_back(Change{.kind = Change::Kind::kPut,
                               .resource = resource,
                               .key = std::move(key),
                               .object = std::move(object),
                               .version = {},
                               .problems = {}});
    });
    if (!list) {
      batch.problems.push_back(Problem{
          .object = "cache",
          .key = std::string(names_of(resource).plural),
          .value = "",
          .reason = list.error().message + ": not used, and written again once the API server has "
                                           "been read",
          .warning = true,
          .of_source = true});
    } else if (*list) {
      known_[index_of(resource)] = **list;
      batch.saved.emplace_back(resource, (*list)->saved);
      batch.news.changes.insert(batch.news.changes.end(), std::move_iterator(changes.begin()),
                                std::move_iterator(changes.end()));
    }
  }
  sink_(std::move(batch));
}

void ApiWorker::start_watches() {
  const Random random = random_numbers();
  for (const Resource resource : kResources) {
    const CachedList& known = known_[index_of(resource)];
    watches_.push_back(std::make_unique<ResourceWatch>(
        resource, node_, times_, random, known.version, known.objects != 0, *client_, outbox_));
  }
}

void ApiWorker::do_jobs() {
  std::deque<Job> jobs;
  {
    const std::lock_guard lock(mutex_);
    jobs.swap(jobs_);
  }
  for (Job& job : jobs) {
    if (job.refresh) {
      std::for_each(watches_.begin(), watches_.end(), [](const auto& watch) { watch->refresh(); });
    } else {
      singles_.push_back(std::make_unique<SingleCall>(*client_, job.request, std::move(job.done)));
    }
  }
}

void ApiWorker::flush() {
  std::erase_if(singles_, [](const auto& single) { return single->ended(); });
  open_singles_ = singles_.size();
  if (!outbox_.changes.empty() || !outbox_.states.empty()) {
    sink_(Batch{.news = std::exchange(outbox_, {}), .cached = false, .saved = {}, .problems = {}});
  }
}

void ApiWorker::work() {
  load();
  start_watches();
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) {
        break;
      }
    }
    do_jobs();
    const auto now = steady_clock::now();
    auto until = now + kLongestWait;
    for (const auto& watch : watches_) {
      watch->tick(now);
      until = std::min(until, watch->due());
    }
    owner_->tick(now);
    until = std::min(until, owner_->due());
    flush();
    client_->run(until);
    flush();
  }
  watches_.clear();
}

}  // namespace sidetrack::kube
