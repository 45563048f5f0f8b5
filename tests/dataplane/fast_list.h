// SPDX-License-Identifier: Apache-2.0
// FastList: one list of scenarios, run over many roads from one end to the other, each on plain TCP
// and past it. Sockets are made by the test itself, which joins the cgroup of the pods for that.
// Thread rule: one owner.
#pragma once

#include <sys/socket.h>

#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/dataplane/fast_node.h"

namespace sidetrack::lab {

// kService: by an address that the node translates, as kube-proxy does (DNAT and MASQUERADE).
enum class Where { kVeth, kLoopback, kService };
// kMapped: an IPv4 client of an IPv6 listener.
enum class Ip { kV4, kV6, kMapped };
// kOther: what arrives is worked on by another CPU (RPS).
enum class Cpu { kSame, kOther };

struct Road {
  Where where = Where::kVeth;
  Ip ip = Ip::kV4;
  Cpu cpu = Cpu::kSame;
};
[[nodiscard]] std::string name_of(const Road& road);
// All of them.
[[nodiscard]] const std::vector<Road>& all_roads();

// How many connections begin and end in tests of many: ST_MANY_CONNECTIONS if it is set (100000 for
// the whole list).
[[nodiscard]] std::size_t many(std::size_t otherwise = 10'000);

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};
[[nodiscard]] Address address_of(const std::string& text, std::uint16_t port);

class FastList : public FastNode {
 public:
  struct Case {
    using Run = Scenario;
    const char* name;
    Run run;
    std::string tcp;                    // what it says on plain TCP
    std::optional<std::string> fast{};  // what it may say past TCP, too: docs/deviations.md
    int times = 1;                      // connections
    ByTcp by_tcp{};
    bool rarely = false;  // `fast` is said now and then only, if at all
  };

 protected:
  void SetUp() override;
  // Each case on each road: on plain TCP, and on a connection that has skipped TCP before, and does
  // again unless the case says why not.
  void expect_all(const std::vector<Case>& cases, const std::vector<Road>& roads = all_roads());
  // One case that keeps its pods' sockets on TCP from then on: on each road with new pods, those
  // of namespaces apart-0, apart-1 and so on, over all calls. Not kService.
  void expect_apart(const Case& one, const std::vector<Road>& roads);

  // A non-blocking socket of the pod.
  [[nodiscard]] static UniqueFd socket_in(const Pod& pod, int family, int protocol = 0);
  // A listener of the world's server for this road, and what its client connects to.
  [[nodiscard]] static UniqueFd listen_in(const World& world, const Road& road, int backlog = 128);
  [[nodiscard]] Address target_of(const World& world, const Road& road,
                                  const UniqueFd& listener) const;
  [[nodiscard]] static const Pod& client_of(const World& world, const Road& road) {
    return road.where == Where::kLoopback ? *world.server : *world.client;
  }
  [[nodiscard]] Ends open_on(const World& world, const Road& road) const;

  void set_rps(Cpu cpu) const;
  static void set_rps(const World& world, Cpu cpu);
  // `iptables ARGUMENTS` in the namespace, or ip6tables.
  static void filter(const Netns& netns, Ip ip, const std::string& arguments);
  // How often the product has counted this ("fp_blocking"), for sockets and messages.
  [[nodiscard]] std::uint64_t refused(const std::string& reason) const;

 private:
  // Cases that, on one road or another, said what only the fast path lets them say, or skipped TCP.
  struct Seen {
    std::set<const Case*> deviating, alike, skipping;
  };
  void compare(const Case& one, const Road& road, Ends& slow, Ends& fast, Seen& seen) const;
  static void expect_seen(const std::vector<const Case*>& cases, const Seen& seen);

  int apart_ = 0;  // namespaces so far
};

// Waits for it, then takes one; not valid if nothing comes.
[[nodiscard]] UniqueFd accept_from(const UniqueFd& listener, milliseconds within = kPatience);
// Asks for the address of the socket's own end (::getsockname) or the other (::getpeername).
[[nodiscard]] std::uint16_t port_of(const UniqueFd& fd, int (*call)(int, sockaddr*, socklen_t*));

// One after the other, in the order in which they are written.
[[nodiscard]] std::string words(std::initializer_list<std::string> all);

// Of the pattern that streams are made of.
inline constexpr std::uint64_t kStreamSeed = 7;
struct Pace {
  std::uint64_t length = 1'000'000;
  std::size_t write_bytes = 8192;
  std::size_t read_bytes = 65536;
  int writes = 1;  // between two reads; stops at EAGAIN
};
// A stream from one end to the other, checked by its position: how long it was, and its digest.
[[nodiscard]] std::string stream(const UniqueFd& from, const UniqueFd& to, const Pace& pace);
// What stream() says when all has arrived.
[[nodiscard]] std::string whole(std::uint64_t length);
// One there and one back, and what that says when all has arrived.
[[nodiscard]] FastList::Case::Run streams(const Pace& pace);
[[nodiscard]] std::string both(std::uint64_t length);
// Reads to the end: "LENGTH DIGEST EOF", or the errno's name instead.
[[nodiscard]] std::string read_to_end(const UniqueFd& fd);

}  // namespace sidetrack::lab
