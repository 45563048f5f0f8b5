// SPDX-License-Identifier: Apache-2.0
// ApiWorker: the thread that talks to the API server: five watches and single requests. What it
// hears leaves it in batches by `sink`, called on that thread. All its public functions may be
// called from any other thread.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agent/kube/api_client.h"
#include "agent/kube/object_cache.h"
#include "agent/kube/owner_watch.h"
#include "agent/kube/resource_watch.h"
#include "agent/kube/single_call.h"

namespace sidetrack::kube {

struct Batch {
  Outbox news;
  // From the disk, before anything else: objects as they were, or why a file is not used.
  bool cached = false;
  std::vector<std::pair<Resource, double>> saved;  // when they were current, Unix time
  std::vector<Problem> problems;
};

class ApiWorker {
 public:
  using Sink = std::function<void(Batch)>;
  // `client` becomes the thread's own; `cache` must outlive this. `owner`: what OwnerWatch follows.
  ApiWorker(std::unique_ptr<ApiClient> client, const ObjectCache& cache, std::string node,
            std::string owner, const WatchTimes& times, Sink sink);
  // Ends all requests; no call of the sink, nor of a `done`, after this.
  ~ApiWorker();
  ApiWorker(const ApiWorker&) = delete;
  ApiWorker& operator=(const ApiWorker&) = delete;

  // Lists every resource again.
  void refresh();
  [[nodiscard]] bool owner_gone() const { return owner_->gone(); }
  // One request; `done` is called on the worker's thread. kFull: too many are waiting.
  using Done = SingleCall::Done;
  [[nodiscard]] Result<void> request(ApiRequest request, Done done);

 private:
  struct Job {
    bool refresh = false;
    ApiRequest request;
    Done done;
  };
  void work();
  void load();
  void start_watches();
  void do_jobs();
  void flush();

  std::unique_ptr<ApiClient> client_;
  const ObjectCache& cache_;
  std::string node_;
  WatchTimes times_;
  Sink sink_;

  std::mutex mutex_;
  std::deque<Job> jobs_;
  bool stopping_ = false;
  std::atomic<std::size_t> open_singles_ = 0;

  // The thread's own, but for gone().
  std::unique_ptr<OwnerWatch> owner_;
  // The thread's own.
  Outbox outbox_;
  std::array<CachedList, kResourceCount> known_;
  std::vector<std::unique_ptr<ResourceWatch>> watches_;
  std::vector<std::unique_ptr<SingleCall>> singles_;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace sidetrack::kube
