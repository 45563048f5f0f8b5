// SPDX-License-Identifier: Apache-2.0
#include "agent/main/agent.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <utility>

#include "agent/admin/api.h"
#include "agent/main/names.h"

namespace sidetrack::agent {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::milliseconds kTick{250};
constexpr std::chrono::milliseconds kAudit{2000};
constexpr std::chrono::milliseconds kProgramCheck{5000};
constexpr std::chrono::milliseconds kExternalLook{200};
constexpr std::size_t kRepairsShown = 16;

std::uint64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

double unix_time() {
  return static_cast<double>(clock_ns(CLOCK_REALTIME)) / 1e9;
}

// CLOCK_MONOTONIC nanoseconds as Unix time.
double to_unix_time(std::uint64_t monotonic_ns) {
  return unix_time() -
         (static_cast<double>(clock_ns(CLOCK_MONOTONIC)) - static_cast<double>(monotonic_ns)) / 1e9;
}

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
    spdlog::warn("component=options event=warning detail=\"{}\"", warning);
  }
  return settings;
}

// An engine that was killed leaves a beat that is fresh for a while.
bool has_ended(std::uint64_t pid) {
  return pid != 0 && kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
}

std::string endpoint_text(const st_addr& address, std::uint16_t port_be) {
  return port_be == 0 ? "" : policy::format_endpoint(address, ntohs(port_be));
}

}  // namespace

Result<std::unique_ptr<Agent>> Agent::create(asio::io_context& context, const Options& options,
                                             Reload reload) {
  std::error_code error;
  if (!std::filesystem::is_directory(options.objects_dir, error)) {
    return make_error(ErrorCode::kInvalid, fmt::format("--objects {}: {}", options.objects_dir,
                                                       error ? error.message() : "not a folder"));
  }
  if (options.http != "off") {
    if (auto address = admin::HttpServer::check(options.http); !address) {
      return make_error(ErrorCode::kInvalid, "--http " + address.error().message + ", or off");
    }
  }
  auto cgroups = prepare_cgroups(options);
  ST_TRY(cgroups);
  auto cookies = std::make_unique<dataplane::NetnsCookies>(cgroups->attach_dir);
  auto node = pods::inspect_own_netns([&] { return cookies->here(); });
  ST_TRY(node);
  auto dataplane = dataplane::Dataplane::open({.pin_dir = options.pin_dir,
                                               .cgroup_dir = cgroups->attach_dir,
                                               .engine_cgroup_dir = cgroups->engine_dir});
  ST_TRY(dataplane);
  std::unique_ptr<Agent> agent(
      new Agent(context, options, *cgroups, *node, std::move(*dataplane), std::move(cookies)));
  agent->reload_ = std::move(reload);
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
      fast_path_(context, options_, cgroups_.attach_dir, *dataplane_, reconciler_,
                 snapshot_.objects, node.cookie),
      source_(std::make_unique<kube::FilesSource>(context, options.objects_dir)),
      metrics_(*this),
      signals_(context, SIGTERM, SIGINT, SIGHUP),
      rings_(context, dup(dataplane_->ring_fd())) {
  if (options.engine == reconcile::EngineKind::kExternal) {
    external_ = std::make_unique<ExternalWatch>(
        options.external, cgroups_.engine_id, dataplane_->engine_cells() + ST_EXTERNAL_ENGINE_SLOT);
  }
}

Agent::~Agent() {
  source_->stop();
  engine_server_.stop();
}

Result<void> Agent::write_config() {
  st_config config{};
  config.engine_cgroup_id = cgroups_.engine_id;
  config.node_netns_cookie = node_.cookie;
  config.external_v4 = options_.external.v4.address;
  config.external_v6 = options_.external.v6.address;
  config.external_v4_port_be = htons(options_.external.v4.port);
  config.external_v6_port_be = htons(options_.external.v6.port);
  config.listener_port_low = options_.listener_port_low;
  config.listener_port_high = options_.listener_port_high;
  ST_TRY(dataplane_->set_config(config));
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
    ST_TRY(http);
    http_ = std::move(*http);
    spdlog::info("component=http event=listening port={}", http_->port());
  }
  return {};
}

Result<void> Agent::start() {
  ST_TRY(listen());
  wait_for_signals();
  wait_for_rings();
  ST_TRY(fast_path_.start());
  source_->start([this](const kube::Snapshot& snapshot) { on_snapshot(snapshot); });
  every(kTick, [this] {
    drain_rings();
    reconciler_.tick(reconcile::Clock::now());
  });
  every(kAudit, [this] {
    if (!synced_) {
      return;  // rows that an earlier agent left stay until we know what is wanted
    }
    const std::size_t repairs = reconciler_.audit(reconcile::Clock::now());
    if (!std::exchange(audited_, true)) {
      return;  // the first one clears away what an earlier agent left: nobody's fault
    }
    if (repairs != 0) {
      spdlog::warn("component=reconcile event=repaired rows={}", repairs);
      note_repairs(repairs, fmt::format("{} rows of st_pods were not as written", repairs));
    }
  });
  every(kProgramCheck, [this] { check_programs(); });
  every(FastPath::kTick, [this] {
    // Before pods are known nobody could visit their sockets, and they would pass for gone.
    if (synced_) {
      fast_path_.tick();
    }
  });
  if (external_) {
    every(kExternalLook, [this] {
      const bool was_up = external_->up();
      if (external_->look(clock_ns(CLOCK_MONOTONIC)) != was_up) {
        spdlog::warn("component=engine event={} kind=external detail=\"{}\"",
                     was_up ? "lost" : "up", external_->problem());
      }
    });
  }
  spdlog::info("component=agent event=started pid={} node={} cgroup={} pin_dir={}", getpid(),
               options_.node_name, cgroups_.attach_dir, options_.pin_dir);
  return {};
}

void Agent::every(std::chrono::milliseconds period, std::function<void()> work) {
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
  timer.expires_after(std::chrono::milliseconds(0));
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
    spdlog::info(
        "component=agent event=stopping signal={} detail=\"pinned programs keep enforcing\"",
        signal);
    context_.stop();
  });
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
    spdlog::error("component=dataplane event=repair_failed detail=\"{}\"",
                  repaired.error().message);
    return;
  }
  for (const std::string& name : *repaired) {
    spdlog::warn(
        "component=dataplane event=reattached program={} detail=\"something had detached it\"",
        name);
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

engines::Callbacks Agent::engine_callbacks() {
  return {
      .on_hello = [this](engines::SessionId, std::int64_t pid,
                         const std::string&) { return welcome(pid); },
      .on_listening =
          [this](engines::SessionId, std::uint64_t cookie, const engines::PodListeners&) {
            reconciler_.on_listening(cookie, reconcile::Clock::now());
          },
      .on_failed =
          [this](engines::SessionId, std::uint64_t cookie, const std::string& reason) {
            spdlog::warn("component=engine event=listen_failed netns_cookie={} reason=\"{}\"",
                         cookie, reason);
            reconciler_.on_listen_failed(cookie, reason);
          },
      .on_draining =
          [this](engines::SessionId) { reconciler_.on_engines_changed(reconcile::Clock::now()); },
      .on_link =
          [this](engines::SessionId, const engines::Link& link) {
            fast_path_.on_link({.client_leg = link.client_cookie,
                                .server_leg = link.server_cookie,
                                .index = link.index});
          },
      .on_lost =
          [this](engines::SessionId) {
            forget_lost_engines();
            reconciler_.on_engines_changed(reconcile::Clock::now());
          },
      .open_netns = [this](std::uint64_t cookie) -> Result<UniqueFd> {
        const auto path = reconciler_.netns_path(cookie);
        if (!path) {
          return make_error(ErrorCode::kNotFound, "no pod has this netns any more");
        }
        return pods::open_netns(*path);
      },
  };
}

Result<engines::Welcome> Agent::welcome(std::int64_t pid) {
  if (pid > 0) {
    ST_TRY(move_to_cgroup(cgroups_.engine_dir, pid));
  }
  volatile st_engine* cells = dataplane_->engine_cells();
  std::uint16_t slot = 0;
  for (std::uint16_t i = ST_EXTERNAL_ENGINE_SLOT + 1; i < ST_MAX_ENGINES; ++i) {
    if (cells[i].pid == static_cast<std::uint64_t>(pid) && pid > 0) {
      slot = i;  // it was here before this agent was: rows in the kernel name its cell
      break;
    }
    const bool beats = st_beat_is_fresh(cells[i].beat_ns, clock_ns(CLOCK_MONOTONIC)) != 0;
    // A hung engine keeps its cell: the kernel may still compare numbers in its part of st_slots.
    const bool is_free = cells[i].pid == 0 ? !beats : has_ended(cells[i].pid);
    if (slot == 0 && !slots_.contains(i) && is_free) {
      slot = i;
    }
  }
  if (slot == 0) {
    return make_error(ErrorCode::kFull, "too many engines are registered at this agent");
  }
  cells[slot].pid = static_cast<std::uint64_t>(pid);
  slots_.insert(slot);
  spdlog::info("component=engine event=registered pid={} slot={}", pid, slot);
  return engines::Welcome{.slot = slot,
                          .engines_fd = dataplane_->engines_fd(),
                          .slots_fd = fast_path_.slots_fd(),
                          .cgroup_id = cgroups_.engine_id,
                          .listener_port_low = options_.listener_port_low,
                          .listener_port_high = options_.listener_port_high,
                          .listeners_per_pod = options_.listeners_per_pod};
}

void Agent::forget_lost_engines() {
  std::set<std::uint16_t> alive;
  for (const engines::SessionInfo& session : engine_server_.sessions()) {
    alive.insert(session.slot);
  }
  for (const std::uint16_t slot : slots_) {
    if (!alive.contains(slot)) {
      spdlog::warn("component=engine event=lost slot={}", slot);
    }
  }
  slots_ = std::move(alive);
}

void Agent::reload() {
  auto options = reload_();
  if (!options) {
    spdlog::error("component=agent event=reload_refused detail=\"{}\"", options.error().message);
  } else {
    spdlog::set_level(spdlog::level::from_str(options->log_level));
    node_settings_ = settings_of(*options);
    spdlog::info("component=agent event=reloaded");
  }
  source_->refresh();
  if (synced_) {
    apply();
  }
}

void Agent::on_snapshot(const kube::Snapshot& snapshot) {
  snapshot_ = snapshot;
  if (is_held()) {
    problems_ = snapshot_.problems;
    spdlog::error(
        "component=agent event=held problems={} detail=\"the objects cannot be read completely: "
        "what "
        "the earlier agent enforced stays in force\"",
        problems_.size());
    return;
  }
  apply();
}

bool Agent::is_held() const {
  return !synced_ && inherited_ && !snapshot_.complete;
}

// Not before the desired state is known: an engine that is told of no pods leaves those that it
// has.
Result<void> Agent::listen_for_engines() {
  if (synced_ || options_.engine != reconcile::EngineKind::kEmbedded) {
    return {};
  }
  return engine_server_.listen(options_.state_dir + "/engine.sock");
}

void Agent::apply() {
  const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  policy::Resolution resolution = policy::resolve(snapshot_.objects, node_settings_, last_good_);
  last_good_ = std::move(resolution.last_good);
  problems_ = snapshot_.problems;
  problems_.insert(problems_.end(), resolution.problems.begin(), resolution.problems.end());
  routes_ = policy::compile_services(snapshot_.objects, options_.node_name);
  engine_server_.set_services(routes_);
  reconciler_.apply(std::move(resolution.pods), reconcile::Clock::now());
  if (auto listening = listen_for_engines(); !listening) {
    failure_ = listening.error();
    context_.stop();
    return;
  }
  synced_ = true;
  last_apply_s_ = static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begin) / 1e9;
  metrics_.observe_policy_apply(last_apply_s_);
  spdlog::info("component=agent event=applied pods={} services={} problems={} seconds={:.4f}",
               snapshot_.objects.pods.size(), snapshot_.objects.services.size(), problems_.size(),
               last_apply_s_);
  for (const kube::Problem& problem : problems_) {
    spdlog::warn(
        "component=policy event=problem object=\"{}\" key=\"{}\" value=\"{}\" reason=\"{}\"",
        problem.object, problem.key, problem.value, problem.reason);
  }
}

void Agent::on_event(const st_event& event) {
  switch (event.kind) {
    case ST_EVENT_UNKNOWN_NETNS:
      spdlog::info(
          "component=kernel event=unknown_netns netns_cookie={} detail=\"a connect from a "
          "namespace that is no pod of ours\"",
          event.netns_cookie);
      break;
    case ST_EVENT_LISTENER_LOST:
      spdlog::info("component=kernel event=listener_lost netns_cookie={} socket_cookie={}",
                   event.netns_cookie, event.socket_cookie);
      reconciler_.on_listener_lost(event.netns_cookie, reconcile::Clock::now());
      break;
    case ST_EVENT_LISTENER_BACK:
      if (external_) {
        external_->look(clock_ns(CLOCK_MONOTONIC));
      }
      break;
    default:
      fast_path_.on_event(event);
      break;
  }
}

admin::FlowView Agent::to_view(const st_flow& flow) const {
  admin::FlowView view;
  view.start = to_unix_time(flow.start_ns);
  view.end = to_unix_time(flow.end_ns);
  if (const auto* owner = reconciler_.owner(flow.netns_cookie); owner != nullptr) {
    view.namespace_name = owner->namespace_name;
    view.pod = owner->name;
  }
  view.source = endpoint_text(flow.source, flow.source_port_be);
  view.destination = endpoint_text(flow.destination, flow.destination_port_be);
  view.endpoint = endpoint_text(flow.endpoint, flow.endpoint_port_be);
  // Our engine reports an endpoint only where it is not the address that was asked for.
  if (view.endpoint.empty() && options_.engine != reconcile::EngineKind::kExternal) {
    view.endpoint = view.destination;
  }
  view.verdict = verdict_name(flow.reason);
  view.reason = reason_name(flow.reason);
  view.path = path_name(flow.path);
  view.bytes_out = flow.bytes_out;
  view.bytes_in = flow.bytes_in;
  view.close = close_name(flow.close);
  return view;
}

admin::FlowView Agent::to_view(const st_live& live) const {
  const std::uint64_t past_engine = live.handoff_out + live.handoff_in;
  const std::uint64_t past_tcp = live.fast_out + live.fast_in;
  const st_path path = past_engine != 0       ? ST_PATH_HANDOFF
                       : past_tcp != 0        ? ST_PATH_FAST
                       : live.redirected != 0 ? ST_PATH_ENGINE
                                              : ST_PATH_DIRECT;
  admin::FlowView view =
      to_view(st_flow{.netns_cookie = live.client.netns_cookie,
                      .start_ns = live.client.start_ns,
                      .bytes_out = live.bytes_out + live.fast_out + live.handoff_out,
                      .bytes_in = live.bytes_in + live.fast_in + live.handoff_in,
                      .source = live.source,
                      .destination = live.client.destination,
                      .source_port_be = htons(live.source_port),
                      .destination_port_be = live.client.port_be,
                      .path = static_cast<std::uint8_t>(path),
                      .reason = live.client.reason,
                      .close = ST_CLOSE_OPEN});
  view.end = 0;
  if (live.redirected != 0) {
    view.endpoint.clear();  // told when it closes
  }
  return view;
}

void Agent::on_flow(const st_flow& flow) {
  flow_log_.add(to_view(flow));
}

}  // namespace sidetrack::agent
