// SPDX-License-Identifier: Apache-2.0
// How connections begin where the fast path is on: whatever the handshake is like, and however
// early the first bytes come, they are those of plain TCP, and the connection skips TCP later on.
#include <fmt/format.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <iterator>
#include <mutex>
#include <sstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_list.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

constexpr std::size_t kFirstBytes = 65537;  // 1 byte, then 64 KiB
constexpr std::size_t kLastBytes = 3000;
constexpr std::size_t kBatch = 500;

std::string_view first_bytes() {
  static const std::string kBytes = [] {
    std::string bytes(kFirstBytes, '\0');
    Pattern(kStreamSeed).fill(bytes);
    return bytes;
  }();
  return kBytes;
}

// Sends first_bytes() from `sent` on, as far as it goes.
void speak(const UniqueFd& fd, std::size_t& sent) {
  while (sent < kFirstBytes) {
    const std::string_view part = first_bytes().substr(sent, sent == 0 ? 1 : kFirstBytes);
    const ssize_t count = ::send(fd.get(), part.data(), part.size(), MSG_NOSIGNAL);
    if (count < 0) {
      return;
    }
    sent += static_cast<std::size_t>(count);
  }
}

// Sends the rest of them and says what arrives.
std::string hear(const UniqueFd& from, const UniqueFd& to, std::size_t sent) {
  Digest digest;
  std::vector<char> in(65536);
  for (const auto deadline = Clock::now() + kPatience;
       digest.length() < kFirstBytes && Clock::now() < deadline;) {
    speak(from, sent);
    pollfd wanted{to.get(), POLLIN, 0};
    (void)::poll(&wanted, 1, 10);
    const ssize_t got = ::recv(to.get(), in.data(), in.size(), 0);
    digest.add(std::span(in.data(), got > 0 ? static_cast<std::size_t>(got) : 0));
  }
  return fmt::format("{} {}", digest.length(), digest.hex());
}

std::uint64_t count_of(const Pod& pod, const std::string& counter) {
  const auto said =
      run_command({.arguments = {"nstat", "-asz", counter}, .netns_path = pod.netns.path()});
  std::istringstream words(said ? said->output : "");
  std::uint64_t value = 0;
  for (std::string word; words >> word;) {
    if (word == counter && words >> value) {
      return value;
    }
  }
  ADD_FAILURE() << "no counter " << counter;
  return 0;
}

class FastListStart : public FastList {
 protected:
  // Makes one connection and says what was heard on it first.
  using Start = std::function<std::string(const World&, const Road&, Ends&)>;
  // With TCP Fast Open the server's side begins before the client's, which is not looked for later.
  enum class Pairs { kYes, kNever };
  struct Beginning {
    const char* name;
    Start start;
    int times = 1;
    std::string says = whole(kFirstBytes);
    Pairs pairs = Pairs::kYes;
  };

  UniqueFd dial(const World& world, const Road& road, const UniqueFd& listener) const {
    Address target = target_of(world, road, listener);
    UniqueFd fd = socket_in(client_of(world, road), target.storage.ss_family);
    if (::connect(fd.get(), target.get(), target.size) != 0) {
      EXPECT_EQ(errno, EINPROGRESS);
      pollfd wanted{fd.get(), POLLOUT, 0};
      EXPECT_EQ(::poll(&wanted, 1, static_cast<int>(kPatience.count())), 1);
    }
    return fd;
  }
  static std::string accept_and_hear(const UniqueFd& listener, Ends& ends, std::size_t sent) {
    ends.server = accept_from(listener);
    set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
    return hear(ends.client, ends.server, sent);
  }

  std::string client_speaks(const World& world, const Road& road, Ends& ends) const {
    const UniqueFd listener = listen_in(world, road);
    std::size_t sent = 0;
    ends.client = dial(world, road, listener);
    speak(ends.client, sent);
    return accept_and_hear(listener, ends, sent);
  }
  std::string server_speaks(const World& world, const Road& road, Ends& ends) const {
    const UniqueFd listener = listen_in(world, road);
    ends.client = dial(world, road, listener);
    ends.server = accept_from(listener);
    set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
    std::size_t sent = 0;
    speak(ends.server, sent);
    return hear(ends.server, ends.client, sent);
  }
  // The server's side begins with the first data.
  std::string deferred(const World& world, const Road& road, Ends& ends) const {
    const UniqueFd listener = listen_in(world, road);
    set_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5);
    std::size_t sent = 0;
    ends.client = dial(world, road, listener);
    EXPECT_FALSE(accept_from(listener, milliseconds(0)).valid());
    speak(ends.client, sent);
    return accept_and_hear(listener, ends, sent);
  }
  std::string fast_open(const World& world, const Road& road, Ends& ends) const {
    const UniqueFd listener = listen_in(world, road);
    Address target = target_of(world, road, listener);
    ends.client = socket_in(client_of(world, road), target.storage.ss_family);
    const ssize_t sent = ::sendto(ends.client.get(), first_bytes().data(), 500,
                                  MSG_FASTOPEN | MSG_NOSIGNAL, target.get(), target.size);
    std::string said =
        accept_and_hear(listener, ends, sent > 0 ? static_cast<std::size_t>(sent) : 0);
    tcp_info info{};
    socklen_t size = sizeof(info);
    EXPECT_EQ(::getsockopt(ends.client.get(), IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    return said + ((info.tcpi_options & TCPI_OPT_SYN_DATA) != 0 ? " in SYN" : "");
  }
  std::string syn_cookie(const World& world, const Road& road, Ends& ends) const {
    const Pod& server = *world.server;
    EXPECT_TRUE(server.netns.write_sysctl("ipv4/tcp_syncookies", "2"));
    const std::uint64_t before = count_of(server, "TcpExtSyncookiesRecv");
    std::string said = client_speaks(world, road, ends);
    EXPECT_TRUE(server.netns.write_sysctl("ipv4/tcp_syncookies", "1"));
    return said + (count_of(server, "TcpExtSyncookiesRecv") > before ? " by cookie" : "");
  }
  // The ACK that ends the handshake is lost: the first data brings it.
  std::string lost_ack(const World& world, const Road& road, Ends& ends) const {
    const std::string rule = " OUTPUT -p tcp --tcp-flags SYN,ACK,PSH,FIN ACK -j DROP";
    const Netns& netns = client_of(world, road).netns;
    const UniqueFd listener = listen_in(world, road);
    std::size_t sent = 0;
    filter(netns, road.ip, "-A" + rule);
    ends.client = dial(world, road, listener);
    EXPECT_FALSE(accept_from(listener, milliseconds(0)).valid()) << "the ACK was not lost";
    speak(ends.client, sent);
    ends.server = accept_from(listener);
    filter(netns, road.ip, "-D" + rule);
    set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
    return hear(ends.client, ends.server, sent);
  }
  // The first client is through with its handshake and the server waits for its data; for two more
  // there are cookies, and then no room for the first.
  std::string overflow(const World& world, const Road& road, Ends& ends) const {
    const UniqueFd listener = listen_in(world, road, 1);
    set_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5);
    const std::uint64_t before = count_of(*world.server, "TcpExtListenOverflows");
    std::vector<UniqueFd> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(dial(world, road, listener));
    }
    for (std::size_t i = 0; i < clients.size(); ++i) {
      EXPECT_EQ(send_text(clients[i], std::string(1000, static_cast<char>('a' + i))), "sent");
    }
    // What another CPU delivers may come after this one's accept() has made room.
    const bool overflown = eventually(
        kPatience, [&] { return count_of(*world.server, "TcpExtListenOverflows") > before; });
    std::string said;
    for (std::size_t i = 0; i < clients.size(); ++i) {
      ends.server = accept_from(listener);
      const std::string heard = receive_text(ends.server, 1001);
      const auto client = static_cast<std::size_t>(heard.at(1) - 'a') % clients.size();
      said += heard == "'" + std::string(1000, heard.at(1)) + "'" ? "+" : heard;
      ends.client = std::move(clients.at(client));
    }
    set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
    return said + (overflown ? " after all" : "");
  }

  [[nodiscard]] Start by(std::string (FastListStart::*start)(const World&, const Road&, Ends&)
                             const) const {
    return [this, start](const World& world, const Road& road, Ends& ends) {
      return (this->*start)(world, road, ends);
    };
  }

  struct Tally {
    std::size_t begun = 0;     // first bytes are right
    std::size_t ended = 0;     // last bytes are, and the end after them
    std::size_t past_tcp = 0;  // last bytes skipped TCP
  };
  // One batch: all are dialled and sent to before the first is accepted; those of shop are then
  // adopted; each is closed right after its last send.
  Tally begin_and_end(const World& world, const Road& road, std::size_t count);
  // `count` of them, in batches, by two threads.
  Tally begin_and_end_all(const Road& road, std::size_t count);

  [[nodiscard]] std::size_t pairs_without_a_server() const {
    const nlohmann::json rows = sidetrack_->dump_map("st_pairs").value();
    return static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [](const auto& row) {
      return row["formatted"]["value"]["end"][ST_SIDE_SERVER]["cookie"] == 0;
    }));
  }

  [[nodiscard]] std::vector<Beginning> beginnings() const {
    return {
        {"1 byte, then 64 KiB", by(&FastListStart::client_speaks), 60},
        {"the server speaks first", by(&FastListStart::server_speaks), 20},
        {"TCP_DEFER_ACCEPT", by(&FastListStart::deferred), 5},
        {"TCP Fast Open", by(&FastListStart::fast_open), 5, whole(kFirstBytes) + " in SYN",
         Pairs::kNever},
        {"SYN cookies", by(&FastListStart::syn_cookie), 2, whole(kFirstBytes) + " by cookie"},
        {"lost ACK of the handshake", by(&FastListStart::lost_ack), 2},
        {"accept-queue overflow", by(&FastListStart::overflow), 1, "+++ after all"},
    };
  }
};

FastListStart::Tally FastListStart::begin_and_end(const World& world, const Road& road,
                                                  std::size_t count) {
  const UniqueFd listener = listen_in(world, road, static_cast<int>(count));
  std::vector<Ends> batch(count);
  std::vector<std::size_t> sent(count, 0);
  for (std::size_t i = 0; i < count; ++i) {
    batch[i].client = dial(world, road, listener);
    speak(batch[i].client, sent[i]);
  }
  Tally tally;
  std::vector<Ends*> all;
  for (std::size_t i = 0; i < count; ++i) {
    tally.begun += accept_and_hear(listener, batch[i], sent[i]) == whole(kFirstBytes) ? 1U : 0U;
    all.push_back(&batch[i]);
  }
  if (&world == &shop_) {
    make_fast(all);
  }
  for (Ends& ends : batch) {
    const std::uint64_t by_tcp = sent_by_tcp(ends.client);
    bool said = send_text(ends.client, first_bytes().substr(0, 1)) == "sent";
    said = send_text(ends.client, first_bytes().substr(1, kLastBytes - 1)) == "sent" && said;
    tally.past_tcp += sent_by_tcp(ends.client) == by_tcp ? 1U : 0U;
    ends.client.reset();
    tally.ended += said && read_to_end(ends.server) == whole(kLastBytes) + " EOF" ? 1U : 0U;
  }
  return tally;
}

FastListStart::Tally FastListStart::begin_and_end_all(const Road& road, std::size_t count) {
  Tally sum;
  std::mutex lock;
  std::atomic<std::size_t> taken{0};
  const auto work = [&] {
    for (std::size_t at = taken.fetch_add(kBatch); at < count && !HasFailure();
         at = taken.fetch_add(kBatch)) {
      const Tally tally = begin_and_end(shop_, road, std::min(kBatch, count - at));
      const std::scoped_lock hold(lock);
      sum.begun += tally.begun;
      sum.ended += tally.ended;
      sum.past_tcp += tally.past_tcp;
    }
  };
  std::thread second(work);
  work();
  second.join();
  return sum;
}

TEST_F(FastListStart, many_begin_with_data_and_end_with_their_last_bytes) {
  constexpr std::size_t kFew = 1'000;
  std::vector<std::pair<Road, std::size_t>> runs = {{{}, many()},
                                                    {{Where::kLoopback, Ip::kMapped}, many(kFew)}};
  if (std::thread::hardware_concurrency() > 1) {
    runs.push_back({{Where::kVeth, Ip::kV6, Cpu::kOther}, many(kFew)});
  }
  for (const auto& [road, count] : runs) {
    SCOPED_TRACE(name_of(road));
    ASSERT_NO_FATAL_FAILURE(set_rps(road.cpu));
    const Tally plain = begin_and_end(plain_, road, kBatch);
    EXPECT_EQ(plain.begun, kBatch);
    EXPECT_EQ(plain.ended, kBatch);
    const Tally sum = begin_and_end_all(road, count);
    EXPECT_EQ(sum.begun, count);
    EXPECT_EQ(sum.ended, count);
    EXPECT_GT(sum.past_tcp, count / 2) << "the ends were those of TCP";
    fmt::print("{}: {} begun, {} ended, {} past TCP\n", name_of(road), sum.begun, sum.ended,
               sum.past_tcp);
  }
}

TEST_F(FastListStart, first_bytes_are_those_of_tcp) {
  const std::vector<Road> roads = {{Where::kVeth, Ip::kV4},
                                   {Where::kLoopback, Ip::kMapped},
                                   {Where::kService, Ip::kV6},
                                   {Where::kVeth, Ip::kV6, Cpu::kOther}};
  for (const Pod* pod : {shop_.client, shop_.server, plain_.client, plain_.server}) {
    ST_ASSERT_OK(pod->netns.write_sysctl("ipv4/tcp_fastopen", "1543"));  // without cookies
  }
  std::vector<Ends> open, unpaired;
  for (const Road& road : roads) {
    ASSERT_NO_FATAL_FAILURE(set_rps(road.cpu));
    for (const Beginning& beginning : beginnings()) {
      SCOPED_TRACE(fmt::format("{}, {}", beginning.name, name_of(road)));
      Ends slow, fast;
      for (int i = 0; i < beginning.times; ++i) {
        EXPECT_EQ(beginning.start(plain_, road, slow), beginning.says) << "on plain TCP";
        EXPECT_EQ(beginning.start(shop_, road, fast), beginning.says) << "with the fast path on";
      }
      (beginning.pairs == Pairs::kYes ? open : unpaired).push_back(std::move(fast));
    }
  }
  std::vector<Ends*> all;
  for (Ends& ends : open) {
    all.push_back(&ends);
  }
  make_fast(all);
  // The agent may have given some of them up by now.
  EXPECT_EQ(pairs_without_a_server() + refused("fp_no_peer"), unpaired.size());
  std::move(unpaired.begin(), unpaired.end(), std::back_inserter(open));
  for (const Ends& ends : open) {
    EXPECT_EQ(stream(ends.client, ends.server, {.length = 200'000}), whole(200'000));
    EXPECT_EQ(stream(ends.server, ends.client, {.length = 200'000}), whole(200'000));
  }
}

}  // namespace
}  // namespace sidetrack::lab
