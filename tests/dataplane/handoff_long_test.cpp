// SPDX-License-Identifier: Apache-2.0
// Long streams past the engine where the order of things is left to chance: no CPU is idle, packets
// are worked on by another CPU than the one that sent them (RPS), and the agent is stopped and
// woken, so that sockets come in, are armed and fall back to the engine at any moment. Every byte
// is checked by its position; and each connection's end is told with its bytes.
#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_list.h"
#include "tests/dataplane/talker.h"

namespace sidetrack::lab {
namespace {

// ST_HANDOFF_MB: 200 for the whole test.
std::uint64_t much() {
  const char* given = std::getenv("ST_HANDOFF_MB");
  return std::uint64_t{1'000'000} * (given == nullptr ? 24 : std::strtoul(given, nullptr, 10));
}

// One thread for each CPU, which never waits.
class BusyCpus {
 public:
  BusyCpus() {
    for (unsigned cpu = 0; cpu < std::thread::hardware_concurrency(); ++cpu) {
      threads_.emplace_back([cpu](const std::stop_token& stop) {
        cpu_set_t here;
        CPU_ZERO(&here);
        CPU_SET(cpu, &here);
        ::pthread_setaffinity_np(::pthread_self(), sizeof(here), &here);
        while (!stop.stop_requested()) {
        }
      });
    }
  }

 private:
  std::vector<std::jthread> threads_;
};

// Stops a process and lets it go on, for some hundred milliseconds each. It runs in the end.
class Interruptions {
 public:
  Interruptions(pid_t pid, std::uint64_t seed)
      : thread_([this, pid, random = std::mt19937_64(seed)](const std::stop_token& stop) mutable {
          while (!stop.stop_requested()) {
            wait(stop, 50 + random() % 1200);
            ::kill(pid, SIGSTOP);
            wait(stop, 20 + random() % 400);
            ::kill(pid, SIGCONT);
            ++count_;
          }
        }) {}
  // How many there were.
  std::uint64_t end() {
    thread_.request_stop();
    thread_.join();
    return count_;
  }

 private:
  void wait(const std::stop_token& stop, std::uint64_t count) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop, milliseconds(count), [] { return false; });
  }

  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::uint64_t count_ = 0;
  std::jthread thread_;  // the last: ends first
};

struct Stream {
  Ends ends;
  std::string source{};
  std::unique_ptr<Talker> client{};
  std::unique_ptr<Talker> server{};

  [[nodiscard]] bool got(std::uint64_t count) const {
    return client->received() >= count && server->received() >= count;
  }
};

void reset(UniqueFd& fd) {
  const linger abort{.l_onoff = 1, .l_linger = 0};
  EXPECT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), 0);
  fd.reset();
}

class HandoffLong : public FastList {
 protected:
  HandoffLong() {
    handoff_ = true;
    redirected_ = {"shop"};
  }
  void SetUp() override {
    FastList::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    if (std::thread::hardware_concurrency() > 1) {
      set_rps(Cpu::kOther);
    }
  }

  [[nodiscard]] std::vector<Stream> begin_streams() const {
    std::vector<Stream> streams;
    for (const Road& road :
         {Road{}, Road{.ip = Ip::kV6}, Road{.ip = Ip::kMapped}, Road{.where = Where::kService}}) {
      Stream stream{.ends = open_on(shop_, road)};
      stream.source = source_of(stream.ends.client);
      const std::uint64_t seed = 2 * streams.size();
      stream.client = std::make_unique<Talker>(stream.ends.client.get(), seed + 1, seed + 2);
      stream.server = std::make_unique<Talker>(stream.ends.server.get(), seed + 2, seed + 1);
      streams.push_back(std::move(stream));
    }
    return streams;
  }
  // How many of the open connections have sent so much past the engine, each way.
  [[nodiscard]] std::size_t handed_off(std::uint64_t least) const {
    const auto rows = sidetrack_->dump_map("st_pairs");
    std::size_t count = 0;
    for (const auto& row : rows ? *rows : nlohmann::json::array()) {
      const auto& bytes = row.at("formatted").at("value").at("handoff_bytes");
      count +=
          bytes.at(0).get<std::uint64_t>() >= least && bytes.at(1).get<std::uint64_t>() >= least
              ? 1U
              : 0U;
    }
    return count;
  }
  [[nodiscard]] nlohmann::json ended(const std::string& source) const {
    EXPECT_TRUE(eventually(kPatience, [&] { return !flow(source, false).empty(); })) << source;
    return flow(source, false);
  }
  // One end resets it in the middle of a stream. What was on its way is lost, so all that is known
  // of the bytes is that they are no fewer than were read, and no more than were sent.
  void expect_reset(Stream& stream, bool by_client) const {
    SCOPED_TRACE(stream.source + (by_client ? ", by the client" : ", by the server"));
    Talker& resets = by_client ? *stream.client : *stream.server;
    const Talker& hears = by_client ? *stream.server : *stream.client;
    resets.stop();
    reset(by_client ? stream.ends.client : stream.ends.server);
    EXPECT_TRUE(eventually(kPatience, [&] { return hears.ended(); }));
    EXPECT_TRUE(hears.error_number() == ECONNRESET || hears.error_number() == EPIPE)
        << hears.error_number();
    (by_client ? stream.server : stream.client)->stop();
    (by_client ? stream.ends.server : stream.ends.client).reset();
    EXPECT_TRUE(stream.client->intact());
    EXPECT_TRUE(stream.server->intact());
    const auto told = ended(stream.source);
    EXPECT_EQ(told.value("path", ""), "handoff") << told;
    EXPECT_EQ(told.value("close", ""), by_client ? "rst_local" : "rst_remote") << told;
    EXPECT_GE(told.value("bytes_out", std::uint64_t{0}), stream.server->received()) << told;
    EXPECT_LE(told.value("bytes_out", std::uint64_t{0}), stream.client->sent()) << told;
    EXPECT_GE(told.value("bytes_in", std::uint64_t{0}), stream.client->received()) << told;
    EXPECT_LE(told.value("bytes_in", std::uint64_t{0}), stream.server->sent()) << told;
  }
  void expect_whole(Stream& stream) const {
    SCOPED_TRACE(stream.source);
    stream.client->finish();
    stream.server->finish();
    expect_all_arrived(*stream.client, *stream.server);
    stream.ends = {};
    const auto told = ended(stream.source);
    EXPECT_EQ(told.value("path", ""), "handoff") << told;
    EXPECT_EQ(told.value("close", ""), "fin") << told;
    EXPECT_EQ(told.value("bytes_out", std::uint64_t{0}), stream.client->sent()) << told;
    EXPECT_EQ(told.value("bytes_in", std::uint64_t{0}), stream.server->sent()) << told;
  }
};

TEST_F(HandoffLong, streams_are_whole_with_busy_cpus_and_an_agent_that_is_stopped_at_times) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::vector<Stream> streams = begin_streams();
  const BusyCpus busy;
  {
    Interruptions interruptions(sidetrack_->agent().pid(), seed);
    // At 5 MB a second and stream at least.
    const milliseconds enough = 3 * kPatience + scaled(milliseconds(much() / 5'000));
    EXPECT_TRUE(eventually(enough,
                           [&] {
                             return std::all_of(
                                        streams.begin(), streams.end(),
                                        [](const Stream& stream) { return stream.got(much()); }) &&
                                    handed_off(much() / 4) == streams.size();
                           }))
        << handed_off(much() / 4) << " of them past the engine";
    EXPECT_GT(interruptions.end(), 0U);
  }
  EXPECT_EQ(past_tcp().engines, 0U);
  for (const Stream& stream : streams) {
    fmt::print("{}: {} MB there, {} MB back\n", stream.source,
               stream.server->received() / 1'000'000, stream.client->received() / 1'000'000);
  }
  expect_reset(streams.at(0), true);
  expect_reset(streams.at(1), false);
  expect_whole(streams.at(2));
  expect_whole(streams.at(3));
}

// All has arrived: each byte is known, also of one that is reset.
TEST_F(HandoffLong, every_byte_is_told_of_a_connection_that_is_reset) {
  constexpr std::uint64_t kLength = 3'000'000;
  for (const bool by_client : {true, false}) {
    SCOPED_TRACE(by_client ? "by the client" : "by the server");
    Ends ends = open_on(shop_, {});
    const std::string source = source_of(ends.client);
    std::uint64_t bytes = 0;
    ASSERT_TRUE(eventually(2 * kPatience, [&] {
      pass(ends.client, ends.server, "there");
      pass(ends.server, ends.client, "backs");
      bytes += 5;
      return handed_off(5) > 0;
    }));
    EXPECT_EQ(streams({.length = kLength})(ends), both(kLength));
    reset(by_client ? ends.client : ends.server);
    const UniqueFd& other = by_client ? ends.server : ends.client;
    EXPECT_EQ(receive_text(other, 9), "ECONNRESET");
    const auto told = ended(source);
    EXPECT_EQ(told.value("path", ""), "handoff") << told;
    EXPECT_EQ(told.value("close", ""), by_client ? "rst_local" : "rst_remote") << told;
    EXPECT_EQ(told.value("bytes_out", std::uint64_t{0}), bytes + kLength) << told;
    EXPECT_EQ(told.value("bytes_in", std::uint64_t{0}), bytes + kLength) << told;
  }
}

}  // namespace
}  // namespace sidetrack::lab
