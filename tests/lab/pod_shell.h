// SPDX-License-Identifier: Apache-2.0
// PodShell: what an application in a pod would do with sockets, told from a test. Stands for one
// st_pod_shell process in the pod's netns and the test's cgroup. Errors of sockets are values
// (error_number); a Result fails only if the shell does. Thread rule: one owner; for things at the
// same time use several shells.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "tests/lab/echo_server.h"
#include "tests/lab/process.h"

namespace sidetrack::lab {

enum class Blocking { kYes, kNo };
enum class FastOpen { kNo, kSendto, kConnect };
enum class Protocol { kTcp, kMptcp };
enum class Family {
  kOfAddress,
  kV6
};  // kV6: an IPv4 address is used as ::ffff:ADDRESS on an AF_INET6 socket
enum class CloseHow { kOrderly, kReset };

struct ConnectOptions {
  Family family = Family::kOfAddress;
  std::string bind{};    // "ADDRESS" or "ADDRESS/PORT"
  std::string device{};  // SO_BINDTODEVICE
  Blocking blocking = Blocking::kYes;
  FastOpen fast_open = FastOpen::kNo;
  std::string fast_open_data{};  // kSendto: one word without spaces
  Protocol protocol = Protocol::kTcp;
  std::string more{};  // further words of the command ("transparent", "nodelay")
  milliseconds timeout = scaled(milliseconds(5000));
};

struct SocketState {
  int id = 0;              // 0: there is no socket
  int error_number = 0;    // how the call ended at last
  int first_errno = 0;     // what connect() itself said (EINPROGRESS for Blocking::kNo)
  std::string errno_name;  // "ECONNREFUSED", "" for none
};

struct Endpoint {
  int id = 0;  // listen, accept: the new socket
  int error_number = 0;
  std::string address;
  std::uint16_t port = 0;
};

struct Received {
  int error_number = 0;
  std::uint64_t length = 0;
  std::string text;    // receive()
  std::string digest;  // to the end, exchange()
};

struct Exchanged {
  int error_number = 0;  // of receiving
  int send_errno = 0;
  std::uint64_t sent = 0;
  std::uint64_t length = 0;
  std::string digest;
  std::string expected_digest;  // of what was sent
};

struct BurstResult {
  std::uint64_t ok = 0;
  std::uint64_t mismatches = 0;
  std::map<std::string, std::uint64_t> connect_errors;
  std::map<std::string, std::uint64_t> io_errors;  // "EOF": the stream ended early
  std::int64_t max_us = 0;
  std::int64_t p50_us = 0;
  std::int64_t total_us = 0;
};

struct BurstOptions {
  std::uint64_t count = 1;
  int threads = 1;
  std::uint64_t length = 32;
  milliseconds timeout = scaled(milliseconds(10'000));
};

class PodShell {
 public:
  static Result<std::unique_ptr<PodShell>> start(const Place& place);

  // Any command line of README.md; the answer as it is.
  Result<nlohmann::json> command(const std::string& line,
                                 milliseconds within = scaled(milliseconds(30'000)));

  Result<SocketState> connect(const std::string& address, std::uint16_t port,
                              const ConnectOptions& options = {});
  // A second connect() of the same socket.
  Result<SocketState> connect_again(int id, const std::string& address, std::uint16_t port);
  // connect(AF_UNSPEC).
  Result<SocketState> disconnect(int id);
  Result<Endpoint> listen(const std::string& address, std::uint16_t port, int backlog = 128);
  Result<Endpoint> accept(int id);
  Result<Endpoint> peer_name(int id);
  Result<Endpoint> socket_name(int id);
  Result<Endpoint> original_destination(int id);
  Result<SocketState> socket_error(int id);  // SO_ERROR
  Result<std::uint64_t> cookie(int id);
  Result<SocketState> send(int id, std::string_view bytes);
  Result<Received> receive(int id, std::uint64_t length);
  Result<Received> receive_to_end(int id);
  // Sends `length` bytes of the pattern `seed`, half-closes, receives to the end, at the same time.
  Result<Exchanged> exchange(int id, std::uint64_t length, std::uint64_t seed = 1);
  Result<SocketState> shutdown(int id);  // SHUT_WR
  Result<SocketState> close(int id, CloseHow how = CloseHow::kOrderly);
  // One datagram to an echo server and back unchanged.
  Result<bool> udp_exchange(const std::string& address, std::uint16_t port);
  Result<BurstResult> burst(const std::string& address, std::uint16_t port,
                            const BurstOptions& options);
  // Opens and keeps `count` connections; how many came about. release() closes them.
  Result<std::uint64_t> hold(const std::string& address, std::uint16_t port, std::uint64_t count);
  Result<std::uint64_t> release();

  [[nodiscard]] Process& process() { return *process_; }

 private:
  explicit PodShell(std::unique_ptr<Process> process) : process_(std::move(process)) {}
  Result<SocketState> socket_command(const std::string& line);
  Result<Endpoint> endpoint_command(const std::string& line);
  Result<Received> receive_command(const std::string& line);

  std::unique_ptr<Process> process_;
};

}  // namespace sidetrack::lab
