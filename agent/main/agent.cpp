// SPDX-License-Identifier: Apache-2.0
#include "agent/main/agent.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <utility>

#include "agent/admin/api.h"
#include "agent/main/clocks.h"
#include "agent/main/names.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::milliseconds kTick{250};
constexpr std::chrono::milliseconds kAudit{2000};
constexpr std::chrono::milliseconds kProgramCheck{5000};
constexpr std::chrono::milliseconds kExternalLook{200};
constexpr std::size_t kRepairsShown = 16;

policy::NodeSettings settings_of(const Options& options) {
  policy::NodeSettings settings;
  settings.node_name = options.node_name;
  settings.any_node = options.source == "files";
  settings.own_namespace = options.namespace_name;
  settings.compat.insert(options.compat.begin(), options.compat.end());
  std::vector<std::string> warnings;
  if (auto rules = policy::parse_node_rules(options.lists, warnings);
      rules) {  // parse_options() has checked them
    settings.rules = *rules;
  }
  for (const std::string& warning : warnings) {
    log_event(LogLevel::kWarn, "options", "warning", {{"detail", warning}});
  }
  return settings;
}

}  // namespace

Result<std::unique_ptr<Agent>> Agent::create(asio::io_context& context, const Options& options,
                                             Reload reload) {
  auto cgroups = find_cgroups(options);
  ST_TRY(cgroups);
  ST_TRY(make_engine_cgroup(*cgroups));
  auto cookies = std::make_unique<dataplane::NetnsCookies>(cgroups->attach_dir);
  auto node = pods::inspect_own_netns([&] { return cookies->here(); });
  ST_TRY(node);
  auto dataplane =
      dataplane::Dataplane::open({.pin_dir = options.pin_dir, .cgroup_dir = cgroups->attach_dir});
  ST_TRY(dataplane);
  if (const std::string& problem = (*dataplane)->look_problem(); !problem.empty()) {
    log_event(LogLevel::kWarn, "agent", "open_connections_hidden", {{"detail", problem}});
  }
  std::unique_ptr<Agent> agent(
      new Agent(context, options, *cgroups, *node, std::move(*dataplane), std::move(cookies)));
  agent->reload_ = std::move(reload);
  ST_TRY(agent->make_source());
  auto rows = agent->dataplane_->pods();
  ST_TRY(rows);
  agent->inherited_ = std::any_of(rows->begin(), rows->end(), [&](const auto& row) {
    return row.first != agent->node_.cookie;
  });
  ST_TRY(agent->write_config());
  return agent;
}

Agent::Agent(asio::io_context& context, const Options& options, Cgroups cgroups,
             pods::NetnsFacts node, std::unique_ptr<dataplane::Dataplane> dataplane,
             std::unique_ptr<dataplane::NetnsCookies> cookies)
    : context_(context),
      options_(options),
      cgroups_(std::move(cgroups)),
      node_(node),
      node_settings_(settings_of(options)),
      started_(unix_time()),
      dataplane_(std::move(dataplane)),
      kernel_(*dataplane_),
      netns_(std::move(cookies)),
      engine_server_(context, engine_callbacks()),
      engines_(engine_server_),
      reconciler_({.engine = options.engine,
                   .external_v4 = options.external.v4.port != 0,
                   .external_v6 = options.external.v6.port != 0,
                   .node_netns_cookie = node.cookie},
                  kernel_, engines_, netns_),
      fast_path_(context, options_, cgroups_.attach_dir, *dataplane_, kernel_, netns_, reconciler_,
                 snapshot_.objects, node.cookie),
      metrics_(*this),
      signals_(context, SIGTERM, SIGINT, SIGHUP),
      rings_(context, dup(dataplane_->ring_fd())),
      routes_(options.node_name) {
  if (options.engine == reconcile::EngineKind::kExternal) {
    external_ = std::make_unique<ExternalWatch>(
        options.external, cgroups_.engine_id, dataplane_->engine_cells() + ST_EXTERNAL_ENGINE_SLOT,
        [&dataplane = *dataplane_](std::uint64_t cookie) {
          auto done = dataplane.watch_listener(cookie);
          if (!done && done.error().code == ErrorCode::kUnsupported) {
            return Result<void>();  // we look at it
          }
          return done;
        });
  }
}

Agent::~Agent() {
  if (kubernetes_ || files_) {
    source().stop();
  }
  engine_server_.stop();
}

Result<void> Agent::make_source() {
  if (options_.source == "files") {
    files_ =
        std::make_unique<kube::FilesSource>(context_, reading_.context(), options_.objects_dir);
    return {};
  }
  auto node = KubernetesNode::create(
      context_, options_,
      {.objects = snapshot_.objects,
       .reconciler = reconciler_,
       .apply = [this] { apply(); },
       .ready = [this] { return ready(); },
       .on_netns_leaves = [this](UniqueFd netns) { fast_path_.on_netns_leaves(std::move(netns)); },
       .problems = problems_,
       .on_cni =
           [this](const cni::Served& served) {
             metrics_.observe_cni(served.command, served.code, served.seconds);
           }});
  ST_TRY(node);
  kubernetes_ = std::move(*node);
  return {};
}

kube::Source& Agent::source() {
  return kubernetes_ ? static_cast<kube::Source&>(kubernetes_->source()) : *files_;
}

st_config Agent::config() const {
  st_config config{};
  config.node_netns_cookie = node_.cookie;
  config.external_v4 = options_.external.v4.address;
  config.external_v6 = options_.external.v6.address;
  config.external_v4_port_be = htons(options_.external.v4.port);
  config.external_v6_port_be = htons(options_.external.v6.port);
  config.listener_port_low = options_.listener_port_low;
  config.listener_port_high = options_.listener_port_high;
  return config;
}

Result<void> Agent::write_config() {
  ST_TRY(dataplane_->set_config(config()));
  if (!cgroups_.engine_dir.empty()) {
    ST_TRY(dataplane_->attach_engine(cgroups_.engine_dir));
  }
  if (!cgroups_.engine_in_container) {
    ST_TRY(dataplane_->keep_only_engine(cgroups_.engine_id));
  }
  // The node's own namespace is known and not enrolled.
  st_pod node_row{};
  node_row.mode = ST_MODE_DISABLED;
  return dataplane_->upsert_pod(node_.cookie, node_row);
}

Result<void> Agent::listen() {
  auto admin = admin::AdminServer::listen(context_, options_.state_dir + "/admin.sock",
                                          admin::make_api(*this));
  ST_TRY(admin);
  admin_ = std::move(*admin);
  if (options_.http != "off") {
    auto http = admin::HttpServer::listen(
        context_, options_.http, admin::make_health(*this, [this] { return metrics_.text(); }));
    if (!http) {
      return http.error().within("--http");
    }
    http_ = std::move(*http);
    log_event(LogLevel::kInfo, "http", "listening", {{"port", http_->port()}});
  }
  return {};
}

Result<void> Agent::start() {
  ST_TRY(listen());
  wait_for_signals();
  wait_for_rings();
  ST_TRY(fast_path_.start());
  source().start([this](const kube::Snapshot& snapshot) { on_snapshot(snapshot); });
  every(kTick, [this] {
    drain_rings();
    reconciler_.tick(reconcile::Clock::now());
    tell_early_flows();
    if (kubernetes_) {
      kubernetes_->tick(synced_);
    }
  });
  every(kAudit, [this] { audit(); });
  every(kProgramCheck, [this] { check_programs(); });
  every(FastPath::kTick, [this] {
    // Before pods are known nobody could visit their sockets, and they would pass for gone.
    if (synced_) {
      fast_path_.tick();
    }
  });
  if (external_) {
    look_at_external();
    if (std::string_view(external_->state()) == "down") {
      log_event(LogLevel::kWarn, "engine", "down",
                {{"kind", "external"}, {"detail", external_->problem()}});
    }
    every(
        kExternalLook, [this] { look_at_external(); }, kExternalLook);
  }
  log_event(LogLevel::kInfo, "agent", "started",
            {{"pid", getpid()},
             {"node", options_.node_name},
             {"cgroup", cgroups_.attach_dir},
             {"pin_dir", options_.pin_dir}});
  return {};
}

void Agent::look_at_external(std::uint64_t lost) {
  if (!external_) {
    return;
  }
  const std::string_view before = external_->state();
  external_->look(clock_ns(CLOCK_MONOTONIC), lost);
  if (const std::string_view now = external_->state(); now != before) {
    log_event(LogLevel::kWarn, "engine", now == "down" ? "lost" : now,
              {{"kind", "external"}, {"detail", external_->problem()}});
  }
}

void Agent::audit() {
  if (synced_) {  // before, they cannot register
    unregistered_.look(unregistered_engines(), Unregistered::Clock::now());
  }
  const auto pods = reconciler_.status();
  look_at_listener_ports(pods);
  if (kubernetes_) {
    kubernetes_->tell(pods, problem_views(pods, engine_views()));
  }
  if (!synced_) {
    return;  // rows that an earlier agent left stay until we know what is wanted
  }
  const std::size_t repairs = reconciler_.audit(reconcile::Clock::now());
  if (!std::exchange(audited_, true)) {
    return;  // the first one clears away what an earlier agent left: nobody's fault
  }
  if (repairs != 0) {
    log_event(LogLevel::kWarn, "reconcile", "repaired", {{"rows", repairs}});
    note_repairs(repairs, fmt::format("{} rows of st_pods were not as written", repairs));
  }
}

void Agent::every(std::chrono::milliseconds period, std::function<void()> work,
                  std::chrono::milliseconds first) {
  timers_.push_back(std::make_unique<asio::steady_timer>(context_));
  asio::steady_timer& timer = *timers_.back();
  // The timer's handler holds the function that arms it again; both end with the context.
  auto run = std::make_shared<std::function<void(const boost::system::error_code&)>>();
  *run = [&timer, period, work = std::move(work),
          weak = std::weak_ptr(run)](const boost::system::error_code& error) {
    if (error) {
      return;
    }
    work();
    timer.expires_after(period);
    timer.async_wait(
        [self = weak.lock()](const boost::system::error_code& next) { (*self)(next); });
  };
  timer.expires_after(first);
  timer.async_wait([run](const boost::system::error_code& error) { (*run)(error); });
}

void Agent::wait_for_signals() {
  signals_.async_wait([this](const boost::system::error_code& error, int signal) {
    if (error) {
      return;
    }
    if (signal == SIGHUP) {
      reload();
      wait_for_signals();
      return;
    }
    if (kubernetes_) {
      wait_for_signals();  // a second one does not wait for the API server
      if (!std::exchange(is_ending_, true)) {
        kubernetes_->ask_whether_gone([this, signal](bool gone) {
          was_removed_ = gone;
          end(signal);
        });
        return;
      }
    }
    end(signal);
  });
}

void Agent::end(int signal) {
  log_event(LogLevel::kInfo, "agent", "stopping",
            {{"signal", signal},
             {"detail", was_removed_ ? "our DaemonSet is gone: everything is taken back"
                                     : "pinned programs keep enforcing"}});
  context_.stop();
}

void Agent::wait_for_rings() {
  rings_.async_wait(asio::posix::stream_descriptor::wait_read,
                    [this](const boost::system::error_code& error) {
                      if (error) {
                        return;
                      }
                      drain_rings();
                      wait_for_rings();
                    });
}

void Agent::drain_rings() {
  dataplane_->drain([this](const st_flow& flow) { on_flow(flow); },
                    [this](const st_event& event) { on_event(event); });
}

void Agent::check_programs() {
  program_errors_.clear();
  auto repaired = dataplane_->repair();
  if (!repaired) {
    program_errors_.push_back(repaired.error().message);
    log_event(LogLevel::kError, "dataplane", "repair_failed",
              {{"detail", repaired.error().message}});
    return;
  }
  for (const std::string& name : *repaired) {
    log_event(LogLevel::kWarn, "dataplane", "reattached",
              {{"program", name}, {"detail", "something had detached it"}});
    note_repairs(1, "program " + name + " was detached");
  }
}

void Agent::note_repairs(std::uint64_t count, std::string what) {
  repairs_ += count;
  recent_repairs_.push_back({.time = unix_time(), .what = std::move(what)});
  if (recent_repairs_.size() > kRepairsShown) {
    recent_repairs_.pop_front();
  }
}

void Agent::reload() {
  auto options = reload_();
  if (!options) {
    log_event(LogLevel::kError, "agent", "reload_refused", {{"detail", options.error().message}});
  } else {
    set_log_level(options->log_level);
    policy::NodeSettings settings = settings_of(*options);
    node_settings_.rules = std::move(settings.rules);
    node_settings_.compat = std::move(settings.compat);
    fast_path_.set_switch(options->fast_path);
    policy_is_stale_ = true;
    log_event(LogLevel::kInfo, "agent", "reloaded");
  }
  source().refresh();
  if (synced_) {
    apply();
  }
}

void Agent::on_event(const st_event& event) {
  switch (event.kind) {
    case ST_EVENT_UNKNOWN_NETNS:
      log_event(LogLevel::kInfo, "kernel", "unknown_netns",
                {{"netns_cookie", event.netns_cookie},
                 {"detail", "a connect from a namespace that is no pod of ours"}});
      break;
    case ST_EVENT_LISTENER_LOST:
      log_event(LogLevel::kInfo, "kernel", "listener_lost",
                {{"netns_cookie", event.netns_cookie}, {"socket_cookie", event.socket_cookie}});
      reconciler_.on_listener_lost(event.netns_cookie, reconcile::Clock::now());
      look_at_external(event.socket_cookie);  // others may listen on the same address
      break;
    case ST_EVENT_LISTENER_BACK:
      look_at_external();
      break;
    default:
      fast_path_.on_event(event);
      break;
  }
}

}  // namespace sidetrack::agent
