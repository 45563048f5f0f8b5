// SPDX-License-Identifier: Apache-2.0
// Who is kept from the fast path before any of its bytes took it: a pod of a workload that was seen
// not to suit it, and a pod that has not been observed for long enough.
#include <sys/ioctl.h>

#include <initializer_list>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_scenarios.h"

namespace sidetrack::lab {
namespace {

class FastWorkloads : public FastNode {
 protected:
  struct Replica {
    std::string name;  // "shop/web-1"
    const Pod* pod = nullptr;
    std::unique_ptr<PodShell> shell;
  };
  // A new pod of the workload.
  void add(Replica& replica, const std::string& namespace_name, const std::string& name,
           const std::string& owner) {
    ST_ASSERT_VALUE(const Pod* pod, lab_->add_pod(name));
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = namespace_name,
                                       .name = name,
                                       .netns_path = pod->netns.path(),
                                       .addresses = {pod->v4, pod->v6},
                                       .owner = owner}));
    ST_ASSERT_VALUE(replica.shell, PodShell::start({pod->netns.path(), cgroup_->path()}));
    replica.name = namespace_name + "/" + name;
    replica.pod = pod;
    ST_ASSERT_OK(sidetrack_->wait_for_pod(replica.name, "enrolled", "passthrough"));
  }
  // From the client of shop, which all its replicas have in common.
  [[nodiscard]] Ends reach(const Replica& replica) const {
    return join(*shop_.client_shell, *replica.shell,
                {.listen_on = "0.0.0.0", .address = replica.pod->v4});
  }
  // From the pod to itself.
  [[nodiscard]] static Ends inside(const Replica& replica) {
    return join(*replica.shell, *replica.shell, {.listen_on = "127.0.0.1", .address = "127.0.0.1"});
  }
  void expect_reason(const std::string& pod, const std::string& reason) const {
    EXPECT_TRUE(eventually(kPatience, [&] { return reason_of(pod) == reason; }))
        << pod << ": " << reason_of(pod) << sidetrack_->logs();
  }
  void expect_on_tcp(const Ends& ends) const {
    EXPECT_FALSE(adopted(ends.client) || adopted(ends.server));
    EXPECT_FALSE(skips_tcp(ends.client, ends.server));
    EXPECT_FALSE(skips_tcp(ends.server, ends.client));
  }
  // io_uring; the errno.
  static int make_ring(PodShell& shell) {
    const auto ring = shell.command("ring");
    return ring ? ring->value("errno", -1) : -1;
  }
  // What explain says of the fast path of the client of shop to this address.
  [[nodiscard]] std::string explained(const std::string& address) const {
    const auto view =
        sidetrack_->get("/v1/explain?namespace=shop&pod=client&destination=" + address + ":7000");
    return view ? view->value("fast_path", "") + " " + view->value("fast_path_reason", "")
                : view.error().message;
  }
  static void ask_how_much_waits(const UniqueFd& fd) {
    int waiting = -1;
    EXPECT_EQ(::ioctl(fd.get(), FIONREAD, &waiting), 0);
  }
};

TEST_F(FastWorkloads, what_one_replica_did_holds_for_the_next_and_for_no_other_workload) {
  ST_ASSERT_OK(objects_->put(
      NamespaceSpec{.name = "depot", .labels = {{"sidetrack.io/mode", "passthrough"}}}));
  Replica web, relay, next_web, next_relay, other, elsewhere, late_web;
  ASSERT_NO_FATAL_FAILURE(add(web, "shop", "web-1", "ReplicaSet/web"));
  ASSERT_NO_FATAL_FAILURE(add(relay, "shop", "relay-1", "ReplicaSet/relay"));
  Ends asked = reach(web);
  Ends spliced = reach(relay);
  make_fast({&asked, &spliced});
  ask_how_much_waits(asked.server);
  EXPECT_EQ(scenarios::splice_some(spliced.server), "EAGAIN");
  expect_reason(web.name, "fp_fionread");
  expect_reason(relay.name, "fp_splice");

  ASSERT_NO_FATAL_FAILURE(add(next_web, "shop", "web-2", "ReplicaSet/web"));
  ASSERT_NO_FATAL_FAILURE(add(next_relay, "shop", "relay-2", "ReplicaSet/relay"));
  ASSERT_NO_FATAL_FAILURE(add(other, "shop", "api-1", "ReplicaSet/api"));
  ASSERT_NO_FATAL_FAILURE(add(elsewhere, "depot", "web-3", "ReplicaSet/web"));
  const Ends to_web = reach(next_web);
  const Ends to_relay = reach(next_relay);
  Ends to_other = reach(other);
  Ends to_elsewhere = inside(elsewhere);
  use(to_web);
  use(to_relay);
  make_fast({&to_other, &to_elsewhere});  // the same client, the same time, the same name
  for (const Replica* replica : {&next_web, &next_relay}) {
    expect_reason(replica->name, "fp_workload");
  }
  for (const Ends* ends :
       std::initializer_list<const Ends*>{&asked, &spliced, &to_web, &to_relay}) {
    expect_on_tcp(*ends);
  }

  // Another agent knows it, too, when the pod that did it is gone.
  ST_ASSERT_OK(objects_->remove(Kind::kPod, web.name));
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  ST_ASSERT_OK(sidetrack_->start_agent());
  ASSERT_NO_FATAL_FAILURE(add(late_web, "shop", "web-4", "ReplicaSet/web"));
  const Ends to_late = reach(late_web);
  use(to_late);
  expect_reason(late_web.name, "fp_workload");
  expect_on_tcp(to_late);

  // Until it is told to forget; what one that runs has done itself is not forgotten.
  const auto forget = [this](const std::string& workload) {
    return sidetrack_->ctl({"workloads", "forget", workload});
  };
  const auto expect_busy = [&] {
    ST_ASSERT_VALUE(const auto busy, forget("shop/ReplicaSet/relay"));
    EXPECT_EQ(busy.exit_status, 1);
    EXPECT_NE(busy.output.find("pod shop/relay-1 of shop/ReplicaSet/relay runs"), std::string::npos)
        << busy.output;
  };
  expect_busy();
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, relay.name, "sidetrack.io/fast-path", "off"));
  EXPECT_TRUE(eventually(kPatience, [&] {
    const auto shown = sidetrack_->pod(relay.name);
    return shown && (*shown)["fast_path"] == "off";
  }));
  expect_busy();
  ST_ASSERT_VALUE(const auto forgotten, forget("shop/ReplicaSet/web"));
  EXPECT_EQ(forgotten.exit_status, 0) << forgotten.output;
  Ends open_before = reach(next_web);
  make_fast({&open_before});
  expect_on_tcp(to_relay);
}

// What is against a node as a whole: fast_reasons_test.
TEST_F(FastWorkloads, explain_names_what_is_against_each_server) {
  ST_ASSERT_OK(objects_->put(
      NamespaceSpec{.name = "depot", .labels = {{"sidetrack.io/mode", "passthrough"}}}));
  Replica asks, splices, rings, next, other, elsewhere;
  ASSERT_NO_FATAL_FAILURE(add(asks, "shop", "asks", "ReplicaSet/asks"));
  ASSERT_NO_FATAL_FAILURE(add(splices, "shop", "splices", "ReplicaSet/splices"));
  ASSERT_NO_FATAL_FAILURE(add(rings, "shop", "rings", "ReplicaSet/rings"));
  ASSERT_NO_FATAL_FAILURE(add(next, "shop", "next", "ReplicaSet/asks"));
  ASSERT_NO_FATAL_FAILURE(add(other, "shop", "other", "ReplicaSet/other"));
  ASSERT_NO_FATAL_FAILURE(add(elsewhere, "depot", "elsewhere", "ReplicaSet/other"));
  ask_how_much_waits(reach(asks).server);
  EXPECT_EQ(scenarios::splice_some(reach(splices).server), "EAGAIN");
  const bool has_ring = make_ring(*rings.shell) == 0;
  const std::pair<std::string, const char*> rows[] = {
      {asks.pod->v4, "no fp_fionread"},
      {splices.pod->v4, "no fp_splice"},
      {rings.pod->v4, has_ring ? "no fp_io_uring" : "possible "},
      {next.pod->v4, "no fp_workload"},
      {other.pod->v4, "possible "},
      {elsewhere.pod->v4, "no fp_other_namespace"},
      {plain_.server->v4, "no fp_off"},
      {"192.0.2.1", "no fp_no_peer"},
      {"127.0.0.1", "never "},
  };
  for (const auto& [address, expected] : rows) {
    EXPECT_TRUE(eventually(kPatience,
                           [&, &to = address, &said = expected] { return explained(to) == said; }))
        << address << ": " << explained(address) << ", not " << expected;
  }
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "shop/client", "sidetrack.io/fast-path", "off"));
  EXPECT_TRUE(eventually(kPatience, [&] { return explained(other.pod->v4) == "no fp_off"; }));
}

// An io_uring that is older than the pod's row, or than the agent, is found at its process.
TEST_F(FastWorkloads, a_ring_that_nobody_saw_being_made_is_found) {
  ST_ASSERT_VALUE(const Pod* pod, lab_->add_pod("early"));
  Replica early;
  ST_ASSERT_VALUE(early.shell, PodShell::start({pod->netns.path(), cgroup_->path()}));
  if (const int failure = make_ring(*early.shell); failure != 0) {
    GTEST_SKIP() << "no io_uring: " << ::strerrorname_np(failure);
  }
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "early",
                                     .netns_path = pod->netns.path(),
                                     .addresses = {pod->v4, pod->v6},
                                     .owner = "ReplicaSet/early"}));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/early", "enrolled", "passthrough"));
  early.pod = pod;
  const Ends to_early = inside(early);
  use(to_early);
  Ends control = open(true);
  make_fast({&control});
  expect_reason("shop/early", "fp_io_uring");
  expect_on_tcp(to_early);

  // While the fast path is off for all, and no agent there, nothing is watched at all.
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "off"));
  ASSERT_TRUE(eventually(kPatience, [&] { return !adopted(control.client); }));
  ASSERT_TRUE(eventually(kPatience, [&] { return !is_watched(); })) << sidetrack_->logs();
  ST_ASSERT_OK(sidetrack_->agent().terminate());
  ASSERT_EQ(make_ring(*shop_.server_shell), 0);
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "auto"));
  ST_ASSERT_OK(sidetrack_->start_agent());
  Ends other = join(*shop_.client_shell, *shop_.client_shell,
                    {.listen_on = "127.0.0.1", .address = "127.0.0.1"});
  use(control);
  make_fast({&other});
  expect_reason("shop/server", "fp_io_uring");
  expect_on_tcp(control);
}

class FastProbation : public FastWorkloads {
 protected:
  FastProbation() { *std::next(agent_arguments_.begin()) = "2s"; }
  static constexpr milliseconds kProbation{2000};
  static constexpr milliseconds kSoon{500};
};

// A pod's probation begins with its first connection, however long the agent has run. The test
// measures from before it; the agent sees it a tenth of a second later at most.
TEST_F(FastProbation, no_socket_is_adopted_before_it_is_over_and_a_hot_one_soon_after) {
  Replica hasty;
  ASSERT_NO_FATAL_FAILURE(add(hasty, "shop", "hasty", "ReplicaSet/hasty"));
  const Ends asked = inside(hasty);
  use(asked);
  ask_how_much_waits(asked.server);

  auto begin = Clock::now();
  const auto age = [&] { return std::chrono::ceil<milliseconds>(Clock::now() - begin); };
  const Ends ends = open(true);
  std::optional<milliseconds> first;
  const auto both_in = [&](const Ends& hot) {
    use(hot);
    const bool client = adopted(hot.client).has_value();
    const bool server = adopted(hot.server).has_value();
    first = first || !(client || server) ? first : age();
    return client && server;
  };
  ASSERT_TRUE(eventually(kPatience, [&] { return both_in(ends); })) << sidetrack_->logs();
  EXPECT_GE(*first, kProbation);
  EXPECT_LE(age(), kProbation + milliseconds(100) + kSoon);

  // Of its pods, that is: the next connection does not wait.
  begin = Clock::now();
  const Ends later = open(true);
  ASSERT_TRUE(eventually(kPatience, [&] { return both_in(later); })) << sidetrack_->logs();
  EXPECT_LE(age(), scaled(kSoon));

  // Who was seen meanwhile is not adopted at all.
  use(asked);
  expect_reason(hasty.name, "fp_fionread");
  expect_on_tcp(asked);
}

}  // namespace
}  // namespace sidetrack::lab
