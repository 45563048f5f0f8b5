// SPDX-License-Identifier: Apache-2.0
// A pod behind a veth: what the server sees, and that nothing of ours keeps a deleted pod's netns.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "tests/unit/engine_lab.h"

namespace sidetrack::engine {
namespace {

constexpr std::uint64_t kPod = 4712;

bool shell(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

// The test's thread is the node (10.77.0.1); the pod is a named netns behind a veth (10.77.0.2).
class EngineNetns : public EngineLab {
 protected:
  void SetUp() override {
    EngineLab::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    name_ = "st-engine-test-" + std::to_string(::getpid());
    const std::string in_pod = " && ip -n " + name_ + " ";
    if (!shell("ip netns add " + name_ +
               " && ip link add veth-node type veth peer name veth-pod netns " + name_ +
               " && ip addr add 10.77.0.1/24 dev veth-node && ip link set veth-node up" + in_pod +
               "addr add 10.77.0.2/24 dev veth-pod" + in_pod + "link set veth-pod up" + in_pod +
               "link set lo up")) {
      GTEST_SKIP() << "needs ip(8) with netns and veth";
    }
    UniqueFd netns = open_netns();
    const auto pod = engine_->add_pod(kPod, std::move(netns), ListenerPlan{});
    ASSERT_TRUE(pod) << pod.error().message;
    through_ = (*pod)->listeners.front().address;
  }

  void TearDown() override {
    if (!name_.empty()) {
      shell("ip netns del " + name_);
    }
  }

  UniqueFd open_netns() const {
    return UniqueFd(::open(("/run/netns/" + name_).c_str(), O_RDONLY | O_CLOEXEC));
  }

  // A client in the pod that was redirected on its way to `destination`.
  UniqueFd pod_client(const SocketAddress& destination) {
    destination_.set(destination);
    UniqueFd client;
    const UniqueFd netns = open_netns();
    std::thread([&] {
      ASSERT_EQ(::setns(netns.get(), CLONE_NEWNET), 0);
      client = connect_to(through_);
    }).join();
    return client;
  }

  std::string name_;
  SocketAddress through_;
};

std::string peer_of(const UniqueFd& socket) {
  sockaddr_in peer{};
  socklen_t size = sizeof peer;
  ::getpeername(socket.get(), reinterpret_cast<sockaddr*>(&peer), &size);
  char text[INET_ADDRSTRLEN] = {};
  ::inet_ntop(AF_INET, &peer.sin_addr, text, sizeof text);
  return text;
}

TEST_F(EngineNetns, shows_the_server_the_address_of_the_pod) {
  SocketAddress address = v4("10.77.0.1", 0);
  const UniqueFd listener = listen_at(address);
  const UniqueFd client = pod_client(address);
  const UniqueFd server = accept_from(listener);
  EXPECT_EQ(peer_of(server), "10.77.0.2");
  send_text(server, "welcome");
  EXPECT_EQ(read_all(client, 7).text, "welcome");
}

// The netns goes when nobody holds it, and its end of the veth takes ours with it.
TEST_F(EngineNetns, lets_a_deleted_pod_go_within_a_second) {
  SocketAddress address = v4("10.77.0.1", 0);
  const UniqueFd listener = listen_at(address);
  UniqueFd client = pod_client(address);
  const UniqueFd server = accept_from(listener);
  client.reset();
  ASSERT_TRUE(shell("ip netns del " + name_));
  EXPECT_NE(::if_nametoindex("veth-node"), 0U);
  engine_->remove_pod(kPod, Cut::kYes);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  while (::if_nametoindex("veth-node") != 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(::if_nametoindex("veth-node"), 0U);
  name_.clear();
}

TEST_F(EngineNetns, keeps_serving_other_pods_while_one_goes) {
  SocketAddress address = v4("10.77.0.1", 0);
  const UniqueFd listener = listen_at(address);
  const UniqueFd client = pod_client(address);
  const UniqueFd server = accept_from(listener);
  engine_->remove_pod(kCookie, Cut::kYes);
  send_text(client, "alive");
  EXPECT_EQ(read_all(server, 5).text, "alive");
}

}  // namespace
}  // namespace sidetrack::engine
