// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/kubernetes_source.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/kube/api_client.h"
#include "agent/kube/api_worker.h"
#include "agent/kube/cache_saver.h"
#include "agent/kube/object_cache.h"
#include "agent/kube/object_store.h"

namespace sidetrack::kube {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// For a burst of changes to become one; well below the 20 ms that are promised.
constexpr milliseconds kGather{10};
// The listener gets at most half of the thread's time, but no change waits longer than this for it.
constexpr milliseconds kLongestRest{100};

std::string time_text(double unix_seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(unix_seconds)));
}

std::string owner_target(const KubernetesSettings& settings) {
  return settings.daemonset.empty()
             ? ""
             : fmt::format(
                   "/apis/apps/v1/namespaces/{}/"
                   "daemonsets?watch=1&resourceVersion=0&fieldSelector=metadata.name%3D{}",
                   percent_encode(settings.namespace_name), percent_encode(settings.daemonset));
}

}  // namespace

// What lives from start() to stop().
class KubernetesSource::Run : public std::enable_shared_from_this<KubernetesSource::Run> {
 public:
  Run(asio::io_context& io, const KubernetesSettings& settings, ApiConfig config, Listener listener)
      : settings_(settings),
        listener_(std::move(listener)),
        cache_(settings.cache_dir.empty() ? settings.cache_dir : settings.cache_dir / "kubernetes",
               {.server = config.server, .node = settings.node_name}),
        config_(std::move(config)),
        store_(snapshot_.objects),
        grace_(io),
        gather_(io),
        saver_(std::make_shared<CacheSaver>(io, store_, cache_)) {
    snapshot_.complete = false;
    for (const Resource resource : kResources) {
      states_[index_of(resource)].resource = resource;
    }
  }

  void start() {
    auto client = ApiClient::create(config_);
    if (!client) {
      client_problem_ = client.error().message;
      released_ = true;
      deliver_soon();
      return;
    }
    worker_ = std::make_unique<ApiWorker>(
        std::move(*client), cache_, settings_.node_name, owner_target(settings_), settings_.times,
        [weak = weak_from_this(), executor = gather_.get_executor()](Batch batch) {
          // The batch is large, and a handler must be copyable.
          auto shared = std::make_shared<Batch>(std::move(batch));
          asio::post(executor, [weak, shared] {
            if (const auto self = weak.lock(); self && !self->stopped_) {
              self->on_batch(std::move(*shared));
            }
          });
        });
    grace_.expires_after(settings_.grace);
    grace_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && !self->stopped_) {
        self->release();
      }
    });
  }

  void refresh() {
    if (worker_) {
      worker_->refresh();
    }
  }

  void stop() {
    stopped_ = true;
    worker_.reset();
    grace_.cancel();
    gather_.cancel();
    saver_->stop();
  }

  [[nodiscard]] KubernetesStatus status() const {
    KubernetesStatus all;
    all.events = {.sent = counts_->sent, .suppressed = suppressed_, .failed = counts_->failed};
    for (const Resource resource : kResources) {
      const WatchState& state = states_[index_of(resource)];
      all.resources[index_of(resource)] = {.resource = std::string(names_of(resource).plural),
                                           .listed = state.listed,
                                           .objects = store_.count(resource),
                                           .events = state.events,
                                           .relists = state.relists,
                                           .failures = state.failures,
                                           .last_event = state.last_event,
                                           .cached = state.listed ? 0 : saved_[index_of(resource)],
                                           .problem = state.problem};
    }
    return all;
  }

  void create_event(const ClusterEvent& event) {
    const bool wanted = worker_ && limiter_.allow(event, steady_clock::now());
    if (!wanted) {
      ++suppressed_;
      return;
    }
    const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::system_clock::now().time_since_epoch());
    const auto asked =
        worker_->request({.method = "POST",
                          .target = event_target(event),
                          .body = event_text(event, settings_.node_name, now.count()),
                          .content_type = "application/json"},
                         [counts = counts_](const ApiOutcome& outcome, const std::string&) {
                           ++(outcome.ok() ? counts->sent : counts->failed);
                         });
    counts_->failed += asked ? 0 : 1;
  }

  void ask_daemonset(const std::string& name, const std::function<void(Existence)>& done,
                     milliseconds limit) {
    const auto answer = [done, weak = weak_from_this(),
                         executor = gather_.get_executor()](Existence existence) {
      asio::post(executor, [done, weak, existence] {
        if (const auto self = weak.lock(); self && !self->stopped_) {
          done(existence);
        }
      });
    };
    if (worker_ && name == settings_.daemonset && worker_->owner_gone()) {
      answer(Existence::kGone);
      return;
    }
    const auto asked =
        worker_ ? worker_->request(daemonset_request(settings_.namespace_name, name, limit),
                                   [answer](const ApiOutcome& outcome, const std::string& body) {
                                     answer(daemonset_existence(outcome, body));
                                   })
                : Result<void>(Error{});
    if (!asked) {
      answer(Existence::kUnknown);
    }
  }

 private:
  void on_batch(Batch batch) {
    bool changed = false;
    for (Change& change : batch.news.changes) {
      const Resource resource = change.resource;
      if (store_.apply(std::move(change))) {
        changed = true;
        mark_dirty(resource);
      }
    }
    for (WatchState& state : batch.news.states) {
      states_[index_of(state.resource)] = std::move(state);
    }
    if (batch.cached) {
      cache_problems_ = std::move(batch.problems);
      for (const auto& [resource, saved] : batch.saved) {
        saved_[index_of(resource)] = saved;
      }
    }
    after_news(changed);
  }

  void after_news(bool changed) {
    const auto any = [this](const auto& is) {
      return std::any_of(states_.begin(), states_.end(), is);
    };
    if (!snapshot_.complete && !any([](const WatchState& state) { return !state.listed; })) {
      snapshot_.complete = true;
      released_ = true;
      cache_problems_.clear();
      grace_.cancel();
      changed = true;
      for (const Resource resource : kResources) {
        mark_dirty(resource);
      }
    }
    if (!released_ && any([](const WatchState& state) { return state.failing != 0; })) {
      release();  // there is nothing to wait for
    }
    if (changed || make_problems() != snapshot_.problems) {
      deliver_soon();
    }
  }

  void release() {
    released_ = true;
    deliver_soon();
  }

  [[nodiscard]] std::vector<Problem> make_problems() const {
    std::vector<Problem> problems = store_.problems();
    problems.insert(problems.end(), cache_problems_.begin(), cache_problems_.end());
    const auto add = [&](std::string_view key, std::string reason) {
      problems.push_back(Problem{.object = "API server " + config_.server,
                                 .key = std::string(key),
                                 .value = "",
                                 .reason = std::move(reason),
                                 .warning = true,
                                 .of_source = true});
    };
    if (!client_problem_.empty()) {
      add("", client_problem_);
    }
    for (const Resource resource : kResources) {
      const WatchState& state = states_[index_of(resource)];
      const double saved = saved_[index_of(resource)];
      const std::string_view name = names_of(resource).plural;
      if (!state.listed) {
        add(name,
            fmt::format(
                "not read yet{}{}; in use: {}", state.problem.empty() ? "" : ": ", state.problem,
                saved > 0 ? "what was last read, at " + time_text(saved) : std::string("nothing")));
      } else if (state.failing > 1) {
        add(name, fmt::format("cannot be followed: {}; in use: what was last read", state.problem));
      }
    }
    if (const std::string error = cache_.write_error(); !error.empty()) {
      problems.push_back(Problem{.object = "cache",
                                 .key = "",
                                 .value = "",
                                 .reason = error + ": the last good state is not on disk",
                                 .warning = true,
                                 .of_source = true});
    }
    return problems;
  }

  void deliver_soon() {
    if (!released_ || std::exchange(gathering_, true)) {
      return;
    }
    gather_.expires_at(std::max(steady_clock::now() + kGather, rest_until_));
    gather_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      self->gathering_ = false;
      if (!error && !self->stopped_) {
        self->deliver();
      }
    });
  }

  void deliver() {
    snapshot_.problems = make_problems();
    snapshot_.changes = store_.take_changes();
    const auto begin = steady_clock::now();
    const Listener listener = listener_;  // it may call stop()
    listener(snapshot_);
    const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
    rest_until_ = steady_clock::now() + std::min(took, kLongestRest);
  }

  void mark_dirty(Resource resource) {
    // Before its first list what is known comes from the disk, or is a part.
    if (!settings_.cache_dir.empty() && states_[index_of(resource)].listed) {
      saver_->mark(resource);
    }
  }

  KubernetesSettings settings_;
  Listener listener_;
  ObjectCache cache_;
  ApiConfig config_;
  Snapshot snapshot_;
  ObjectStore store_;
  std::array<WatchState, kResourceCount> states_;
  std::array<double, kResourceCount> saved_{};  // when what came from the disk was current
  std::vector<Problem> cache_problems_;
  std::string client_problem_;

  asio::steady_timer grace_;
  asio::steady_timer gather_;
  std::shared_ptr<CacheSaver> saver_;  // shared with its handlers that wait in the loop
  steady_clock::time_point rest_until_{};
  bool released_ = false;  // something may be delivered
  bool gathering_ = false;
  bool stopped_ = false;

  EventLimiter limiter_;
  std::uint64_t suppressed_ = 0;
  struct Counts {
    std::atomic<std::uint64_t> sent = 0, failed = 0;
  };
  // Shared with requests, whose ends are told on another thread.
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();

  std::unique_ptr<ApiWorker> worker_;  // last: it uses the cache
};

Result<std::unique_ptr<KubernetesSource>> KubernetesSource::create(asio::io_context& io,
                                                                   KubernetesSettings settings) {
  if (settings.node_name.empty()) {
    return make_error(ErrorCode::kInvalid, "the node's name is not known: give --node NAME");
  }
  auto config = load_config(settings.kubeconfig, settings.service_account_dir);
  ST_TRY(config);
  return std::unique_ptr<KubernetesSource>(
      new KubernetesSource(io, std::move(settings), std::move(*config)));
}

KubernetesSource::KubernetesSource(asio::io_context& io, KubernetesSettings settings,
                                   ApiConfig config)
    : io_(io), settings_(std::move(settings)), config_(std::move(config)) {}

KubernetesSource::~KubernetesSource() {
  stop();
}

void KubernetesSource::start(Listener listener) {
  stop();
  run_ = std::make_shared<Run>(io_, settings_, config_, std::move(listener));
  run_->start();
}

void KubernetesSource::refresh() {
  if (run_) {
    run_->refresh();
  }
}

void KubernetesSource::stop() {
  if (run_) {
    run_->stop();
    run_.reset();
  }
}

KubernetesStatus KubernetesSource::status() const {
  if (run_) {
    return run_->status();
  }
  KubernetesStatus none;
  for (const Resource resource : kResources) {
    none.resources[index_of(resource)].resource = names_of(resource).plural;
  }
  return none;
}

void KubernetesSource::create_event(const ClusterEvent& event) {
  if (run_) {
    run_->create_event(event);
  }
}

void KubernetesSource::ask_daemonset(const std::string& name, std::function<void(Existence)> done,
                                     milliseconds limit) {
  if (run_) {
    run_->ask_daemonset(name, done, limit);
  } else {
    asio::post(io_, [done = std::move(done)] { done(Existence::kUnknown); });
  }
}

}  // namespace sidetrack::kube
