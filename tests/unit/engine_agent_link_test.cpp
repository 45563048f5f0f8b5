// SPDX-License-Identifier: Apache-2.0
// The engine's end of the protocol against an agent of the test's own, which is a thread-less peer
// on a unix socket.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "engine/agent_link.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "tests/unit/engine_lab.h"

namespace sidetrack::engine {
namespace {

constexpr std::uint64_t kPod = 99;

class EngineAgentLink : public EngineLab {
 protected:
  void SetUp() override {
    EngineLab::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    char pattern[] = "/tmp/st-engine-link-XXXXXX";
    folder_ = ::mkdtemp(pattern);
    map_ = UniqueFd(::memfd_create("st_engines", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(map_.get(), 4096), 0);
    cells_ = static_cast<st_engine*>(
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, map_.get(), 0));
    heartbeat_ = std::make_unique<Heartbeat>(*engine_, 20'000);
    link_ = std::make_unique<AgentLink>(
        context_, AgentLink::Settings{.socket_path = path(), .build = "test"}, *engine_,
        *heartbeat_, [this](const Error& error) { fatal_ = error; });
  }

  void TearDown() override {
    link_.reset();
    heartbeat_.reset();
    if (!folder_.empty()) {
      std::filesystem::remove_all(folder_);
    }
  }

  std::string path() const { return folder_ + "/engine.sock"; }

  void listen_as_agent() {
    ::unlink(path().c_str());
    listener_fd_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(
        ::bind(listener_fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener_fd_.get(), 4), 0);
    reader_ = {};
  }

  // Lets the link run until the engine sends a message of this type.
  template <typename Message>
  std::optional<Message> await() {
    std::optional<Message> found;
    EXPECT_TRUE(eventually([&] {
      context_.restart();
      context_.poll();
      if (!session_.valid()) {
        session_ =
            UniqueFd(::accept4(listener_fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        return false;
      }
      auto received = reader_.read(session_.get());
      for (const wire::Frame& frame : received->frames) {
        const auto message = wire::decode(frame.body);
        if (const auto* wanted = std::get_if<Message>(&message.value()); wanted != nullptr) {
          found = *wanted;
        }
      }
      return found.has_value();
    }));
    return found;
  }

  void send(const wire::EngineMessage& message, int fd = -1) {
    std::vector<UniqueFd> fds;
    if (fd >= 0) {
      fds.emplace_back(::dup(fd));
    }
    wire::FrameWriter writer;
    ASSERT_TRUE(writer.push(*wire::encode(message), std::move(fds)));
    ASSERT_TRUE(writer.flush(session_.get()));
  }

  void welcome(std::uint16_t slot) {
    send(wire::Welcome{.slot = slot,
                       .cgroup_id = cgroup::own_id().value(),
                       .listener_port_low = 15950,
                       .listener_port_high = 15999,
                       .listeners_per_pod = 2},
         map_.get());
  }

  wire::Listening serve(std::uint64_t request, std::vector<std::uint16_t> reserved) {
    const UniqueFd netns(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    send(wire::Pod{.request_id = request,
                   .netns_cookie = kPod,
                   .namespace_name = "shop",
                   .name = "cart",
                   .reserved_ports = std::move(reserved)},
         netns.get());
    return await<wire::Listening>().value_or(wire::Listening{});
  }

  bool runs_until(const std::function<bool()>& condition) {
    return eventually([&] {
      context_.restart();
      context_.poll();
      return condition();
    });
  }

  std::string folder_;
  UniqueFd map_;
  st_engine* cells_ = nullptr;
  boost::asio::io_context context_;
  std::unique_ptr<Heartbeat> heartbeat_;
  std::unique_ptr<AgentLink> link_;
  std::optional<Error> fatal_;
  UniqueFd listener_fd_;
  UniqueFd session_;
  wire::FrameReader reader_;
};

TEST_F(EngineAgentLink, serves_a_pod_on_free_ports_and_beats) {
  listen_as_agent();
  link_->start();
  EXPECT_EQ(await<wire::Hello>()->build, "test");
  welcome(3);
  const wire::Listening listening = serve(7, {15950});
  EXPECT_EQ(listening.request_id, 7U);
  ASSERT_EQ(listening.v4.size(), 2U);
  EXPECT_EQ(listening.v4.front().port, 15951);
  EXPECT_NE(listening.v4.front().cookie, 0U);
  EXPECT_EQ(listening.v6.size(), 2U);
  EXPECT_NE(cells_[3].beat_ns, 0U);
  EXPECT_EQ(cells_[0].beat_ns, 0U);
}

TEST_F(EngineAgentLink, keeps_listeners_when_the_agent_restarts) {
  listen_as_agent();
  link_->start();
  (void)await<wire::Hello>();
  welcome(0);
  const wire::Listening before = serve(1, {});
  session_.reset();
  listen_as_agent();
  (void)await<wire::Hello>();
  welcome(0);
  send(wire::SnapshotBegin{});
  send(wire::Keep{.netns_cookie = kPod});
  send(wire::SnapshotEnd{});
  const wire::Listening after = serve(2, {});
  EXPECT_EQ(after.v4, before.v4);
  EXPECT_EQ(engine_->find_pod(kCookie), nullptr);  // not named in the snapshot
}

// Until then its new pods have no engine.
TEST_F(EngineAgentLink, finds_an_agent_soon_that_was_away_for_seconds) {
  link_->start();
  context_.run_for(std::chrono::milliseconds(2000));
  listen_as_agent();
  const auto back = std::chrono::steady_clock::now();
  EXPECT_TRUE(await<wire::Hello>());
  EXPECT_LT(std::chrono::steady_clock::now() - back, std::chrono::milliseconds(500));
}

TEST_F(EngineAgentLink, moves_listeners_off_a_port_that_becomes_the_pods) {
  listen_as_agent();
  link_->start();
  (void)await<wire::Hello>();
  welcome(0);
  const std::uint16_t taken = serve(1, {}).v4.front().port;
  const wire::Listening moved = serve(2, {taken});
  ASSERT_EQ(moved.v4.size(), 2U);
  EXPECT_NE(moved.v4[0].port, taken);
  EXPECT_NE(moved.v4[1].port, taken);
}

TEST_F(EngineAgentLink, follows_routes_and_drops_them_with_a_snapshot) {
  listen_as_agent();
  link_->start();
  (void)await<wire::Hello>();
  welcome(0);
  const SocketAddress front = v4("10.96.0.1", 443);
  send(wire::SnapshotBegin{});
  send(wire::Route{.front = {front.address, front.port},
                   .service = "default/kubernetes:https",
                   .endpoints = {}});
  send(wire::SnapshotEnd{});
  EXPECT_TRUE(runs_until([&] { return engine_->routes().find(front) != nullptr; }));
  send(wire::SnapshotBegin{});
  send(wire::SnapshotEnd{});
  EXPECT_TRUE(runs_until([&] { return engine_->routes().find(front) == nullptr; }));
}

TEST_F(EngineAgentLink, opens_nothing_outside_of_its_cgroup) {
  listen_as_agent();
  link_->start();
  (void)await<wire::Hello>();
  send(wire::Welcome{.cgroup_id = cgroup::own_id().value() + 1, .listeners_per_pod = 1},
       map_.get());
  EXPECT_TRUE(runs_until([&] { return fatal_.has_value(); }));
}

TEST_F(EngineAgentLink, says_that_it_drains_and_takes_no_more_pods) {
  listen_as_agent();
  link_->start();
  (void)await<wire::Hello>();
  welcome(0);
  (void)serve(1, {});
  link_->drain();
  EXPECT_TRUE(await<wire::Draining>().has_value());
  const UniqueFd netns(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  send(wire::Pod{.request_id = 2,
                 .netns_cookie = 5,
                 .namespace_name = "n",
                 .name = "p",
                 .reserved_ports = {}},
       netns.get());
  EXPECT_EQ(await<wire::Failed>()->reason, "draining");
}

}  // namespace
}  // namespace sidetrack::engine
