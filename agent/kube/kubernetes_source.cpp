// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/kubernetes_source.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/kube/api_client.h"
#include "agent/kube/api_worker.h"
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
// What decides on enrolment is small and written soon.
constexpr milliseconds kSaveSoon{1000};
constexpr milliseconds kSaveLater{30'000};
constexpr std::size_t kSaveAtOnce = 100;  // objects made into text before others get the thread

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string time_text(double unix_seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(unix_seconds)));
}

bool is_large(Resource resource) {
  return resource == Resource::kServices || resource == Resource::kEndpointSlices;
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
        saving_(io) {
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
        std::move(*client), cache_, settings_.node_name, settings_.times,
        [weak = weak_from_this(), executor = gather_.get_executor()](Batch batch) {
          // The batch is large, and a handler must be copyable.
          auto shared = std::make_shared<Batch>(std::move(batch));
          asio::post(executor, [weak, shared] {
            if (const auto self = weak.lock(); self && self->worker_) {
              self->on_batch(std::move(*shared));
            }
          });
        });
    grace_.expires_after(settings_.grace);
    grace_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && self->worker_) {
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
    worker_.reset();
    grace_.cancel();
    gather_.cancel();
    saving_.cancel();
    for (const Resource resource : kResources) {
      if (dirty_[index_of(resource)]) {
        save_whole(resource);
      }
    }
  }

  [[nodiscard]] KubernetesStatus status() const {
    KubernetesStatus all;
    for (const Resource resource : kResources) {
      const WatchState& state = states_[index_of(resource)];
      all[index_of(resource)] = {.resource = std::string(names_of(resource).plural),
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
                                 .warning = true});
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
                                 .warning = true});
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
      if (!error && (self->worker_ || !self->client_problem_.empty())) {
        self->deliver();
      }
    });
  }

  void deliver() {
    snapshot_.problems = make_problems();
    const auto begin = steady_clock::now();
    const Listener listener = listener_;  // it may call stop()
    listener(snapshot_);
    const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
    rest_until_ = steady_clock::now() + std::min(took, kLongestRest);
  }

  void mark_dirty(Resource resource) {
    // Before its first list what is known comes from the disk, or is a part.
    if (!states_[index_of(resource)].listed && !snapshot_.complete) {
      return;
    }
    if (!std::exchange(dirty_[index_of(resource)], true)) {
      save_at_[index_of(resource)] =
          steady_clock::now() +
          (is_large(resource) && ever_saved_[index_of(resource)] ? kSaveLater : kSaveSoon);
      plan_saving();
    }
  }

  void plan_saving() {
    if (settings_.cache_dir.empty() || saving_now_) {
      return;
    }
    auto next = steady_clock::time_point::max();
    for (const Resource resource : kResources) {
      if (dirty_[index_of(resource)]) {
        next = std::min(next, save_at_[index_of(resource)]);
      }
    }
    if (next == steady_clock::time_point::max()) {
      return;
    }
    saving_.expires_at(next);
    saving_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && self->worker_) {
        self->save_due();
      }
    });
  }

  void save_due() {
    const auto now = steady_clock::now();
    for (const Resource resource : kResources) {
      if (dirty_[index_of(resource)] && save_at_[index_of(resource)] <= now) {
        begin_save(resource);
        saving_now_ = resource;
        save_more();
        return;
      }
    }
    plan_saving();
  }

  void begin_save(Resource resource) {
    dirty_[index_of(resource)] = false;
    ever_saved_[index_of(resource)] = true;
    save_after_.clear();
    save_text_ = cache_.head(resource, store_.version(resource), unix_time());
  }

  // A part of the objects, and the rest when others had their turn.
  void save_more() {
    const Resource resource = *saving_now_;
    if (store_.append_text(resource, save_after_, kSaveAtOnce, save_text_)) {
      asio::post(gather_.get_executor(), [self = shared_from_this()] {
        if (self->worker_ && self->saving_now_) {
          self->save_more();
        }
      });
      return;
    }
    finish_save(resource);
    saving_now_.reset();
    save_due();
  }

  void finish_save(Resource resource) {
    cache_.save(resource, std::exchange(save_text_, {}) + ObjectCache::kTail);
  }

  void save_whole(Resource resource) {
    begin_save(resource);
    store_.append_text(resource, save_after_, ObjectStore::kMaxObjects + 1, save_text_);
    finish_save(resource);
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
  asio::steady_timer saving_;
  steady_clock::time_point rest_until_{};
  bool released_ = false;  // something may be delivered
  bool gathering_ = false;

  std::array<bool, kResourceCount> dirty_{};
  std::array<bool, kResourceCount> ever_saved_{};
  std::array<steady_clock::time_point, kResourceCount> save_at_{};
  std::optional<Resource> saving_now_;
  std::string save_after_;
  std::string save_text_;

  std::unique_ptr<ApiWorker> worker_;  // last: it uses the cache
};

Result<std::unique_ptr<KubernetesSource>> KubernetesSource::create(asio::io_context& io,
                                                                   KubernetesSettings settings) {
  if (settings.node_name.empty()) {
    return make_error(ErrorCode::kInvalid, "the node's name is not known: give --node NAME");
  }
  auto config =
      settings.kubeconfig.empty()
          ? in_cluster_config(std::getenv("KUBERNETES_SERVICE_HOST"),
                              std::getenv("KUBERNETES_SERVICE_PORT"), settings.service_account_dir)
          : load_kubeconfig(settings.kubeconfig);
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
    none[index_of(resource)].resource = names_of(resource).plural;
  }
  return none;
}

}  // namespace sidetrack::kube
