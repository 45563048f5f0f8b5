// SPDX-License-Identifier: Apache-2.0
// The agent: wires source, resolver, reconciler, data plane, engines and admin together on one
// io_context, one thread.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/admin/http.h"
#include "agent/admin/server.h"
#include "agent/admin/views.h"
#include "agent/dataplane/dataplane.h"
#include "agent/engines/engine_server.h"
#include "agent/kube/files_source.h"
#include "agent/main/adapters.h"
#include "agent/main/cgroups.h"
#include "agent/main/clocks.h"
#include "agent/main/external_engine.h"
#include "agent/main/fast_path.h"
#include "agent/main/flow_log.h"
#include "agent/main/held.h"
#include "agent/main/kubernetes_node.h"
#include "agent/main/listener_ports.h"
#include "agent/main/options.h"
#include "agent/main/unregistered.h"
#include "agent/metrics/metrics.h"
#include "agent/reconcile/reconciler.h"
#include "agent/sys/loop_thread.h"

namespace sidetrack::agent {

class Agent : public admin::Views {
 public:
  // Reads the options again (SIGHUP).
  using Reload = std::function<Result<Options>()>;
  // kInvalid: configuration, nothing was changed. kUnsupported: this kernel cannot run it.
  [[nodiscard]] static Result<std::unique_ptr<Agent>> create(boost::asio::io_context& context,
                                                             const Options& options, Reload reload);
  ~Agent() override;
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Starts everything; the caller runs the context. Ends it on SIGTERM or SIGINT. Pins stay.
  [[nodiscard]] Result<void> start();
  // Whether Sidetrack was taken away from this node: what it made should go, too.
  [[nodiscard]] bool was_removed() const { return was_removed_; }
  // What ended the run, if it was not a signal.
  [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }

  admin::StatusView status() override;
  std::vector<admin::PodView> pods(const std::string& namespace_name) override;
  Result<admin::PolicyView> policy(const std::string& namespace_name,
                                   const std::string& pod) override;
  Result<admin::ExplainView> explain(const std::string& namespace_name, const std::string& pod,
                                     const std::string& destination) override;
  admin::FlowPage flows(const admin::FlowQuery& query) override;
  std::vector<admin::CounterView> counters() override;
  Result<void> set_bypass(bool on) override;
  std::vector<admin::WorkloadView> demoted_workloads() override;
  Result<void> forget_workload(const std::string& workload) override;
  bool ready() override;
  double last_policy_apply_s() override { return last_apply_s_; }

 private:
  Agent(boost::asio::io_context& context, const Options& options, Cgroups cgroups,
        pods::NetnsFacts node, std::unique_ptr<dataplane::Dataplane> dataplane,
        std::unique_ptr<dataplane::NetnsCookies> cookies);

  [[nodiscard]] st_config config() const;
  [[nodiscard]] Result<void> write_config();
  [[nodiscard]] Result<void> make_source();
  [[nodiscard]] Result<void> listen();
  [[nodiscard]] engines::Callbacks engine_callbacks();
  [[nodiscard]] Result<engines::Welcome> welcome(std::int64_t pid);
  void forget_lost_engines();
  // Reads the options again: node lists, compat and log level take effect, the rest needs a
  // restart.
  void reload();
  // Brings `snapshot_` to the kernel and the engines. begin_ns: since when that is worked on, by
  // CLOCK_MONOTONIC; without it: since now.
  void apply();
  void apply(std::uint64_t begin_ns);
  [[nodiscard]] kube::Source& source();
  // Whether `snapshot_` must wait: it is not complete, and an earlier agent left rows that it would
  // undo. They stay in force until there is a complete one.
  [[nodiscard]] bool is_held() const;
  [[nodiscard]] InForce in_force() const;
  void on_snapshot(const kube::Snapshot& snapshot);
  void take(const kube::Snapshot& snapshot);
  void apply_routes(std::uint64_t begin_ns);
  void note_applied(std::uint64_t begin_ns);
  [[nodiscard]] Result<void> listen_for_engines();
  // The first state is known: engines and the plugin may come.
  [[nodiscard]] Result<void> open_doors();
  void on_event(const st_event& event);
  void on_flow(const st_flow& flow);
  // Those whose pod is known by now, or will not be.
  void tell_early_flows();
  [[nodiscard]] bool may_learn_pods() const;
  void drain_rings();
  void wait_for_rings();
  void wait_for_signals();
  void end(int signal);
  // Runs `work` as soon as `first` is over, then every `period`.
  void every(std::chrono::milliseconds period, std::function<void()> work,
             std::chrono::milliseconds first = {});
  // `lost`: its listener that is closing at this moment.
  void look_at_external(std::uint64_t lost = 0);
  void audit();
  void check_programs();
  // Something else had changed the kernel's state: counted, and shown as a problem for a while.
  void note_repairs(std::uint64_t count, std::string what);
  [[nodiscard]] admin::FlowView to_view(const st_flow& flow) const;
  [[nodiscard]] admin::FlowView to_view(const st_live& live) const;
  [[nodiscard]] std::optional<std::uint64_t> server_of(const policy::SocketAddress& to) const;
  void explain_fast_path(admin::ExplainView& view, const dataplane::Explained& verdict,
                         std::uint64_t client, const policy::SocketAddress& to);
  // One reason of drift that is not a pod's own: the programs are shown by themselves.
  static constexpr const char* kNotAttached = "not_attached";
  [[nodiscard]] std::vector<reconcile::PodStatus> pod_statuses(
      const std::vector<dataplane::ProgramState>& programs) const;
  [[nodiscard]] std::vector<admin::PodView> held_pods() const;
  [[nodiscard]] Error no_such_pod(const std::string& namespace_name, const std::string& pod) const;
  [[nodiscard]] std::vector<admin::EngineView> engine_views();
  // Engines that serve their pods, but have not come (back) to this agent: pids by their cells'
  // slots.
  [[nodiscard]] std::map<std::uint16_t, std::int64_t> unregistered_engines() const;
  [[nodiscard]] std::vector<admin::ProblemView> problem_views(
      const std::vector<reconcile::PodStatus>& pods,
      const std::vector<admin::EngineView>& engines) const;
  void look_at_listener_ports(const std::vector<reconcile::PodStatus>& pods);
  [[nodiscard]] bool agrees_with_policy(const policy::PodIntent& intent, const st_pod& row,
                                        const st_connect& connect, std::uint16_t port,
                                        st_reason reason) const;

  boost::asio::io_context& context_;
  Options options_;
  Reload reload_;
  Cgroups cgroups_;
  pods::NetnsFacts node_;
  policy::NodeSettings node_settings_;
  double started_;

  std::unique_ptr<dataplane::Dataplane> dataplane_;
  RealKernel kernel_;
  RealNetns netns_;
  engines::EngineServer engine_server_;
  RealEngines engines_;
  reconcile::Reconciler reconciler_;
  std::unique_ptr<ExternalWatch> external_;
  FastPath fast_path_;
  std::unique_ptr<KubernetesNode> kubernetes_;  // with source kubernetes
  sys::LoopThread reading_;                     // for it
  std::unique_ptr<kube::FilesSource> files_;    // else
  metrics::Metrics metrics_;
  std::unique_ptr<admin::AdminServer> admin_;
  std::unique_ptr<admin::HttpServer> http_;

  boost::asio::signal_set signals_;
  boost::asio::posix::stream_descriptor rings_;
  std::vector<std::unique_ptr<boost::asio::steady_timer>> timers_;

  policy::Resolution resolution_;
  bool policy_is_stale_ = true;  // objects or options are others since
  // As the source delivered it last, without services and slices: `routes_` has what they say.
  kube::Snapshot snapshot_;
  policy::RouteTable routes_;
  policy::Routes due_routes_;  // that the engines do not know yet
  std::vector<kube::Problem> problems_;
  std::set<std::uint16_t> slots_;  // cells of registered engines
  Unregistered unregistered_;
  ListenerPortWatch listener_port_watch_;
  FlowLog flow_log_{clock_ns(CLOCK_MONOTONIC)};
  std::vector<st_flow> early_flows_;  // of pods that the agent does not know yet
  std::uint64_t synced_ns_ = 0;       // CLOCK_MONOTONIC
  std::vector<std::string> program_errors_;
  struct Repair {
    double time = 0;
    std::string what;
  };
  std::uint64_t repairs_ = 0;
  std::deque<Repair> recent_repairs_;
  bool synced_ = false;     // something was applied
  bool inherited_ = false;  // an earlier agent left rows of pods
  bool audited_ = false;    // what it left and nobody wants is gone
  bool is_ending_ = false;
  bool was_removed_ = false;
  std::optional<Error> failure_;
  double last_apply_s_ = 0;
};

}  // namespace sidetrack::agent
