// SPDX-License-Identifier: Apache-2.0
// Why bytes stay on TCP: each reason is provoked and counted by the kernel, in the metric too, and
// what nothing of the kernel counts is shown by `pods`. Elsewhere: fp_relay_busy and fp_relay_gone
// (handoff_test), fp_memory (fast_hostile_test), sockets that are refused when they are looked at
// (fast_list_refused_test), fp_self_test (agent_fast_path_test). Of these there is no test:
// fp_mptcp and fp_not_tcp (such a connection is never noted as a pair), fp_kernel_socket (the
// kernel's own connections here are none of a pod's), fp_gone (a socket that has closed is not
// counted), fp_internal (the kernel's structures can be read).
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/kernel_view.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

class FastReasons : public SharedFastNode {
 protected:
  struct Row {
    const char* reason;
    // Something is sent that stays on TCP for this reason; all of it is read again.
    std::function<void(Ends&)> provoke;
  };

  [[nodiscard]] FastCounts counts() const {
    const auto found = KernelView(sidetrack_->pin_dir()).fast_counts();
    EXPECT_TRUE(found.has_value()) << found.error().message;
    return found ? *found : FastCounts();
  }
  [[nodiscard]] std::uint64_t counted(const std::string& reason) const {
    const FastCounts all = counts();
    const auto found = all.refused.find(reason);
    return found == all.refused.end() ? 0 : found->second;
  }
  // sidetrack_fastpath_refused_total.
  [[nodiscard]] std::uint64_t metric(const std::string& reason) const {
    const auto text = sidetrack_->get_http("/metrics");
    const std::string line =
        fmt::format("sidetrack_fastpath_refused_total{{reason=\"{}\"}} ", reason);
    const auto at = text ? text->find(line) : std::string::npos;
    return at == std::string::npos ? 0 : std::stoull(text->substr(at + line.size()));
  }
  // Any message may go by TCP for a reason of its own, as when the agent gets no time: then again,
  // if that was counted.
  void expect_counted(const Row& row, Ends& ends) {
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto before = counts().refused;
      const std::uint64_t of_this = counted(row.reason);
      row.provoke(ends);
      EXPECT_NE(counts().refused, before) << row.reason << ": nothing is counted";
      return HasFailure() || counted(row.reason) > of_this;
    })) << row.reason;
    EXPECT_TRUE(eventually(kPatience, [&] { return metric(row.reason) >= counted(row.reason); }))
        << row.reason;
  }
  // What `flows` says of the client's connection from this port while it is open, or after its end.
  [[nodiscard]] std::string told(std::uint16_t port, bool open) const {
    const std::string source = ":" + std::to_string(port);
    const auto page = sidetrack_->get("/v1/flows");
    std::string latest = "no flow";  // others may have had the port before
    for (const auto& flow : page ? page->at("flows") : nlohmann::json::array()) {
      if (flow.value("source", "").ends_with(source) && (flow.value("end", 0.0) == 0) == open) {
        latest =
            fmt::format("{} {} {}", flow.value("path", ""), open ? "open" : flow.value("close", ""),
                        flow.value("fast_path_reason", ""));
      }
    }
    return latest;
  }
  void expect_told(std::uint16_t port, bool open, const std::string& expected) const {
    EXPECT_TRUE(eventually(kPatience, [&] { return told(port, open) == expected; }))
        << told(port, open) << ", not " << expected;
  }
  // Another agent with these options instead; pods are as they were.
  void restart_with(const std::map<std::string, std::string>& options) {
    ST_ASSERT_OK((other_ ? *other_ : sidetrack_->agent()).terminate());
    ProcessSpec spec = sidetrack_->agent_spec();
    for (const auto& [name, value] : options) {
      const auto found = std::find(spec.arguments.begin(), spec.arguments.end(), name);
      if (found == spec.arguments.end()) {
        spec.arguments.insert(spec.arguments.end(), {name, value});
      } else {
        *std::next(found) = value;
      }
    }
    ST_ASSERT_VALUE(other_, Process::start(spec));
    ST_ASSERT_OK(other_->wait_for_output("event=started"));
    ASSERT_TRUE(eventually(kPatience, [&] {
      said_at_start_.insert(explained());
      const auto status = sidetrack_->get("/v1/status");
      return status && status->value("/agent/pid"_json_pointer, 0) == other_->pid() &&
             status->value("fast_path_reason", "") != "self_test_running";
    })) << other_->output();
    ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/client", "enrolled", "passthrough"));
  }
  // Of the client's connections to the server.
  [[nodiscard]] std::string explained() const {
    const auto view = sidetrack_->get(
        "/v1/explain?namespace=shop&pod=client&destination=" + shop_.server->v4 + ":7000");
    return view ? view->value("fast_path", "") + " " + view->value("fast_path_reason", "")
                : view.error().message;
  }
  void expect_explained(const std::string& reason) const {
    EXPECT_TRUE(eventually(kPatience, [&] { return explained() == "no " + reason; }))
        << explained();
  }
  [[nodiscard]] std::string reason_of_client() const {
    const auto pod = sidetrack_->pod("shop/client");
    return pod ? pod->value("fast_path_reason", "") : pod.error().message;
  }
  void expect_shown(const std::string& reason) const {
    EXPECT_TRUE(eventually(kPatience, [&] { return reason_of_client() == reason; }))
        << reason_of_client();
    const auto shown = sidetrack_->ctl({"pods"});
    EXPECT_TRUE(shown && shown->output.find("shop/client: not on the fast path, " + reason) !=
                             std::string::npos)
        << (shown ? shown->output : shown.error().message);
  }

  std::unique_ptr<Process> other_;
  std::set<std::string> said_at_start_;  // by explained(), until the self-test is over
};

struct Option {
  int level, name;
};
struct Values {
  int meanwhile, usual;
};

// The client sends `text` while one of the two sockets has an option that keeps it on TCP.
void send_while_set(Ends& ends, const UniqueFd& fd, const Option& option, const char* text,
                    const Values& values = {1, 0}) {
  set_option(fd, option.level, option.name, values.meanwhile);
  EXPECT_EQ(send_text(ends.client, text), "sent");
  set_option(fd, option.level, option.name, values.usual);
}

void read_back(Ends& ends, std::size_t count) {
  const std::string got = scenarios::receive_all(ends.server, count);
  EXPECT_EQ(got.size(), count) << got.substr(0, 40);
}

// Sends messages that nobody reads, until TCP has sent one; then all are read.
void send_until_tcp(Ends& ends, std::size_t size, int most) {
  const std::string message(size, 'm');
  const std::uint64_t before = sent_by_tcp(ends.client);
  std::size_t sent = 0;
  for (int i = 0; i < most && sent_by_tcp(ends.client) == before; ++i) {
    ASSERT_EQ(send_text(ends.client, message), "sent");
    sent += size;
  }
  read_back(ends, sent);
}

TEST_F(FastReasons, of_messages_are_counted) {
  const Row rows[] = {
      {"fp_zerocopy",
       [](Ends& ends) {
         send_while_set(ends, ends.client, {SOL_SOCKET, SO_ZEROCOPY}, "by TCP");
         read_back(ends, 6);
       }},
      {"fp_unread",
       [](Ends& ends) {
         send_while_set(ends, ends.client, {SOL_SOCKET, SO_ZEROCOPY}, "first");
         EXPECT_EQ(send_text(ends.client, "behind"), "sent");
         read_back(ends, 11);
       }},
      {"fp_window", [](Ends& ends) { send_until_tcp(ends, 32768, 100); }},
      {"fp_messages", [](Ends& ends) { send_until_tcp(ends, 1, 2 * ST_FAST_MESSAGES); }},
      {"fp_reader_busy",
       [](Ends& ends) { EXPECT_NE(scenarios::read_into_faulting_memory(ends), ""); }},
      {"fp_rcvlowat",
       [](Ends& ends) {
         send_while_set(ends, ends.server, {SOL_SOCKET, SO_RCVLOWAT}, "two", {2, 1});
         read_back(ends, 3);
       }},
      {"fp_timestamping",
       [](Ends& ends) {
         send_while_set(ends, ends.server, {SOL_SOCKET, SO_TIMESTAMP}, "when");
         read_back(ends, 4);
       }},
      {"fp_tcp_inq",
       [](Ends& ends) {
         send_while_set(ends, ends.server, {IPPROTO_TCP, TCP_INQ}, "how many");
         read_back(ends, 8);
       }},
  };
  std::vector<Ends> ends(std::size(rows));
  std::vector<Ends*> all;
  for (Ends& one : ends) {
    one = open(true);
    all.push_back(&one);
  }
  ASSERT_NO_FATAL_FAILURE(make_fast(all));
  for (std::size_t i = 0; i < ends.size(); ++i) {
    expect_counted(rows[i], ends[i]);
  }
}

// The server has half-closed: the client's state is CLOSE_WAIT.
TEST_F(FastReasons, a_connection_that_is_not_fully_open) {
  Ends ends = open_fast();
  EXPECT_EQ(::shutdown(ends.server.get(), SHUT_WR), 0);
  EXPECT_EQ(receive_text(ends.client, 1), "EOF");
  expect_counted({"fp_state",
                  [](Ends& both) {
                    EXPECT_EQ(send_text(both.client, "late"), "sent");
                    read_back(both, 4);
                  }},
                 ends);
}

// Its FIN is lost, so that nothing tells the client yet.
TEST_F(FastReasons, a_peer_that_is_closed) {
  Ends ends = open_fast();
  const std::string rule = " OUTPUT -p tcp --tcp-flags FIN FIN -j DROP";
  filter(*shop_.server, "-A" + rule);
  ends.server.reset();
  const std::uint64_t before = counted("fp_peer_gone");
  EXPECT_EQ(send_text(ends.client, "x"), "sent");
  EXPECT_EQ(counted("fp_peer_gone"), before + 1);
  EXPECT_EQ(receive_text(ends.client, 1), "ECONNRESET");
  filter(*shop_.server, "-D" + rule);
}

TEST_F(FastReasons, a_splice_that_met_bytes_past_tcp) {
  spoil();  // the server's pod is demoted
  Ends ends = open_fast();
  EXPECT_EQ(send_text(ends.client, "past"), "sent");
  EXPECT_EQ(receive_text(ends.server, 1, MSG_PEEK), "'p'");
  stop_agent();  // it would end the connection
  EXPECT_EQ(scenarios::splice_some(ends.server), "EAGAIN");
  const std::uint64_t before = counted("fp_conflict");
  EXPECT_EQ(send_text(ends.client, "refused"), "EACCES");
  EXPECT_EQ(counted("fp_conflict"), before + 1);
  wake_agent();
}

// Keys for addresses that it has nothing to do with, until its socket may hold no more.
TEST_F(FastReasons, a_socket_that_has_no_memory_left) {
  Ends ends = open(true);
  const auto add_key = [&ends](std::uint32_t number) {
    tcp_md5sig key{};
    auto* address = reinterpret_cast<sockaddr_in*>(&key.tcpm_addr);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(0xC0000000U + number);
    key.tcpm_keylen = 1;
    key.tcpm_key[0] = 'k';
    return ::setsockopt(ends.client.get(), IPPROTO_TCP, TCP_MD5SIG, &key, sizeof(key)) == 0 ? 0
                                                                                            : errno;
  };
  int failure = 0;
  for (std::uint32_t number = 0; failure == 0; ++number) {
    failure = add_key(number);
  }
  ASSERT_EQ(failure, ENOMEM);
  const auto refusals = [this] {
    const auto status = sidetrack_->get("/v1/status");
    return status ? status->value("/fast_path_refused/fp_no_memory"_json_pointer, 0) : 0;
  };
  const int before = refusals();
  use(ends);
  EXPECT_TRUE(eventually(kPatience, [&] { return refusals() > before; })) << sidetrack_->logs();
  EXPECT_FALSE(skips_tcp(ends.client, ends.server) || skips_tcp(ends.server, ends.client));
}

// In another namespace of Kubernetes without label, or in the node's own network namespace.
TEST_F(FastReasons, one_end_is_not_enrolled) {
  ST_ASSERT_OK(objects_->put(NamespaceSpec{.name = "outside"}));
  World outside;
  ASSERT_NO_FATAL_FAILURE(make_world(outside, "outside"));
  ST_ASSERT_VALUE(const auto node, PodShell::start({lab_->node().path(), cgroup_->path()}));
  const auto expect_on_tcp = [this](PodShell& client, PodShell& server, const std::string& address,
                                    bool is_told) {
    Ends ends = join(client, server, {.listen_on = "0.0.0.0", .address = address});
    const std::uint64_t before = sent_by_tcp(ends.client) + sent_by_tcp(ends.server);
    use(ends);
    { const Ends control = open_fast(); }
    use(ends);
    EXPECT_EQ(sent_by_tcp(ends.client) + sent_by_tcp(ends.server) - before, 2U * 16U);
    EXPECT_FALSE(adopted(ends.client) || adopted(ends.server));
    if (is_told) {
      EXPECT_EQ(told(port_of(ends.client), true), "direct open fp_off");
    }
  };
  expect_on_tcp(*shop_.client_shell, *outside.server_shell, outside.server->v4, true);
  expect_on_tcp(*outside.client_shell, *shop_.server_shell, shop_.server->v4, false);
  expect_on_tcp(*shop_.client_shell, *node, lab_->node_v4(), true);
  expect_on_tcp(*node, *shop_.server_shell, shop_.server->v4, false);
}

TEST_F(FastReasons, an_agent_that_does_nothing_is_away) {
  Ends ends = open_fast();
  stop_agent();
  const std::uint64_t before = counted("fp_agent_away");
  EXPECT_TRUE(eventually(kPatience, [&] {
    pass(ends.client, ends.server, "y");
    return counted("fp_agent_away") > before;
  }));
  const std::uint64_t by_tcp = sent_by_tcp(ends.client);
  pass(ends.client, ends.server, "by TCP");
  EXPECT_EQ(sent_by_tcp(ends.client), by_tcp + 6);
  wake_agent();
  make_fast({&ends});
}

// A pod that holds all that one pod may, in connections whose other end is never found.
TEST_F(FastReasons, pairs_of_one_pod_leave_room_for_others) {
  constexpr std::uint64_t kMore = 50;
  ST_ASSERT_VALUE(auto far, lab_->add_pod("far"));
  ST_ASSERT_VALUE(auto echo, EchoServer::start({far->netns.path(), cgroup_->path()}, {"sink:0"}));
  ST_ASSERT_OK(lab_->set_port_range(*shop_.client, 10000, 65000));
  stop_agent();  // it would give back what has no other end
  ST_ASSERT_VALUE(const auto held,
                  shop_.client_shell->hold(far->v4, echo->port("sink"), ST_PAIR_QUOTA + kMore));
  EXPECT_EQ(held, ST_PAIR_QUOTA + kMore);
  EXPECT_GE(counted("fp_pairs_full"), kMore);
  EXPECT_LE(counted("fp_pairs_full"), kMore + 64) << "it had some pairs before";
  wake_agent();
  const std::uint64_t before = counts().messages;
  Ends other = open(true, Route::kLoopback);  // of pod shop/server
  make_fast({&other});
  EXPECT_GT(counts().messages, before);
  ST_ASSERT_OK(shop_.client_shell->release());
}

// Both ends are in, and each message goes by TCP: the message says why.
TEST_F(FastReasons, of_messages_are_those_of_the_flow_while_none_has_skipped_tcp) {
  Ends ends = open(true);
  const std::uint16_t port = port_of(ends.client);
  for (int i = 0; i < 8; ++i) {
    pass(ends.client, ends.server, "x");
    pass(ends.server, ends.client, "y");
  }
  wait_until_put_in(ends);
  EXPECT_EQ(told(port, true), "direct open fp_unarmed");
  set_option(ends.client, SOL_SOCKET, SO_ZEROCOPY, 1);
  pass(ends.client, ends.server, "z");
  EXPECT_EQ(told(port, true), "direct open fp_zerocopy");
  ends.client.reset();
  ends.server.reset();
  expect_told(port, false, "direct fin fp_zerocopy");
}

// Open, it was on TCP for a reason, whatever ended it.
TEST_F(FastReasons, of_a_connection_that_died_unanswered_are_told) {
  Ends ends = open(true);
  const std::uint16_t port = port_of(ends.client);
  const std::string rule = fmt::format(" INPUT -p tcp --sport {} -j DROP", port);
  filter(*shop_.server, "-A" + rule);
  set_option(ends.client, IPPROTO_TCP, TCP_USER_TIMEOUT, 300);
  EXPECT_EQ(send_text(ends.client, "lost"), "sent");
  expect_told(port, false, "direct timeout fp_young");
  filter(*shop_.server, "-D" + rule);
}

// What keeps a connection waiting, or a node from the fast path, is no refusal: `pods` shows it.
TEST_F(FastReasons, of_waiting_and_of_the_node_are_shown) {
  spoil();
  ASSERT_NO_FATAL_FAILURE(restart_with({{"--fast-path-probation", "10m"}}));
  EXPECT_TRUE(said_at_start_.contains("no fp_self_test")) << testing::PrintToString(said_at_start_);
  Ends young = open(true);
  pass(young.client, young.server, "once");
  expect_shown("fp_young");
  for (int i = 0; i < 8; ++i) {
    pass(young.client, young.server, "more");
    pass(young.server, young.client, "more");
  }
  expect_shown("fp_probation");
  expect_explained("fp_probation");

  Ends idle = open(true);
  const std::uint16_t port = port_of(idle.client);
  expect_told(port, true, "direct open fp_young");
  ASSERT_NO_FATAL_FAILURE(restart_with({{"--fast-path", "off"}}));
  expect_shown("fp_node_off");
  expect_explained("fp_node_off");
  expect_told(port, true, "direct open fp_node_off");
  ASSERT_NO_FATAL_FAILURE(restart_with({{"--fast-path-sentinel", "off"}}));
  expect_shown("fp_no_sentinel");
  expect_explained("fp_no_sentinel");
  ST_ASSERT_OK(other_->terminate());
}

}  // namespace
}  // namespace sidetrack::lab
