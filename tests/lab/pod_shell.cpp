// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/pod_shell.h"

#include <fmt/format.h>

#include <cerrno>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {
namespace {

bool is_v6(std::string_view address) {
  return address.find(':') != std::string_view::npos;
}

std::string bytes_of(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string hex_of(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return text;
}

std::string connect_line(const std::string& address, std::uint16_t port,
                         const ConnectOptions& options) {
  const bool v6 = is_v6(address) || options.family == Family::kV6;
  std::string line =
      fmt::format("connect {} {}{} {} timeout_ms={}", v6 ? "v6" : "v4",
                  v6 && !is_v6(address) ? "::ffff:" : "", address, port, options.timeout.count());
  if (!options.bind.empty()) {
    line += " bind=" + options.bind;
  }
  if (!options.device.empty()) {
    line += " device=" + options.device;
  }
  if (options.blocking == Blocking::kNo) {
    line += " nonblock";
  }
  if (options.protocol == Protocol::kMptcp) {
    line += " mptcp";
  }
  if (options.fast_open == FastOpen::kConnect) {
    line += " tfo=connect";
  } else if (options.fast_open == FastOpen::kSendto) {
    line += " tfo=sendto data=" + options.fast_open_data;
  }
  return line + " " + options.more;
}

}  // namespace

Result<std::unique_ptr<PodShell>> PodShell::start(const Place& place) {
  auto process = Process::start({.arguments = {lab_program("st_pod_shell")},
                                 .environment = {},
                                 .netns_path = place.netns_path,
                                 .cgroup_path = place.cgroup_path,
                                 .log_file = {}});
  if (!process) {
    return process.error();
  }
  return std::unique_ptr<PodShell>(new PodShell(std::move(*process)));
}

Result<nlohmann::json> PodShell::command(const std::string& line, milliseconds within) {
  ST_TRY(process_->write(line + "\n"));
  auto text = process_->read_line(within);
  if (!text) {
    return text.error().within(line);
  }
  nlohmann::json answer = nlohmann::json::parse(*text, nullptr, false);
  if (answer.is_discarded() || answer.contains("error")) {
    return make_error(ErrorCode::kInvalid, fmt::format("{}: {}", line, *text));
  }
  return answer;
}

Result<SocketState> PodShell::socket_command(const std::string& line) {
  auto answer = command(line);
  if (!answer) {
    return answer.error();
  }
  return SocketState{.id = answer->value("id", 0),
                     .error_number = answer->value("errno", 0),
                     .first_errno = answer->value("first_errno", 0),
                     .errno_name = answer->value("errno_name", "")};
}

Result<Endpoint> PodShell::endpoint_command(const std::string& line) {
  auto answer = command(line);
  if (!answer) {
    return answer.error();
  }
  return Endpoint{.id = answer->value("id", 0),
                  .error_number = answer->value("errno", 0),
                  .address = answer->value("address", ""),
                  .port = answer->value("port", std::uint16_t{0})};
}

Result<Received> PodShell::receive_command(const std::string& line) {
  auto answer = command(line);
  if (!answer) {
    return answer.error();
  }
  return Received{.error_number = answer->value("errno", 0),
                  .length = answer->value("length", std::uint64_t{0}),
                  .text = bytes_of(answer->value("hex", "")),
                  .digest = answer->value("digest", "")};
}

Result<SocketState> PodShell::connect(const std::string& address, std::uint16_t port,
                                      const ConnectOptions& options) {
  return socket_command(connect_line(address, port, options));
}

Result<SocketState> PodShell::connect_again(int id, const std::string& address,
                                            std::uint16_t port) {
  return socket_command(fmt::format("connect_again {} {} {}", id, address, port));
}

Result<SocketState> PodShell::disconnect(int id) {
  return socket_command(fmt::format("disconnect {}", id));
}

Result<Endpoint> PodShell::listen(const std::string& address, std::uint16_t port, int backlog) {
  return endpoint_command(fmt::format("listen {} {} {} backlog={}", is_v6(address) ? "v6" : "v4",
                                      address, port, backlog));
}

Result<Endpoint> PodShell::accept(int id) {
  return endpoint_command(fmt::format("accept {}", id));
}
Result<Endpoint> PodShell::peer_name(int id) {
  return endpoint_command(fmt::format("getpeername {}", id));
}
Result<Endpoint> PodShell::socket_name(int id) {
  return endpoint_command(fmt::format("getsockname {}", id));
}

Result<Endpoint> PodShell::original_destination(int id) {
  auto own = socket_name(id);
  if (!own) {
    return own.error();
  }
  const bool v6 = is_v6(own->address) && !own->address.starts_with("::ffff:");
  return endpoint_command(fmt::format("original_dst {}{}", id, v6 ? " v6" : ""));
}

Result<SocketState> PodShell::socket_error(int id) {
  return socket_command(fmt::format("getsockopt_error {}", id));
}

Result<std::uint64_t> PodShell::cookie(int id) {
  auto answer = command(fmt::format("cookie {}", id));
  if (!answer) {
    return answer.error();
  }
  return answer->value("cookie", std::uint64_t{0});
}

Result<SocketState> PodShell::send(int id, std::string_view bytes) {
  return socket_command(fmt::format("send {} {}", id, hex_of(bytes)));
}

Result<Received> PodShell::receive(int id, std::uint64_t length) {
  return receive_command(fmt::format("recv {} {}", id, length));
}

Result<Received> PodShell::receive_to_end(int id) {
  return receive_command(fmt::format("recv_eof {}", id));
}

Result<Exchanged> PodShell::exchange(int id, std::uint64_t length, std::uint64_t seed) {
  auto answer = command(fmt::format("exchange {} len={} seed={}", id, length, seed),
                        scaled(milliseconds(60'000)));
  if (!answer) {
    return answer.error();
  }
  return Exchanged{.error_number = answer->value("errno", 0),
                   .send_errno = answer->value("send_errno", 0),
                   .sent = answer->value("sent", std::uint64_t{0}),
                   .length = answer->value("length", std::uint64_t{0}),
                   .digest = answer->value("digest", ""),
                   .expected_digest = answer->value("expected_digest", "")};
}

Result<SocketState> PodShell::shutdown(int id) {
  return socket_command(fmt::format("shutdown {}", id));
}

Result<SocketState> PodShell::close(int id, CloseHow how) {
  return socket_command(fmt::format("close {}{}", id, how == CloseHow::kReset ? " linger0" : ""));
}

Result<bool> PodShell::udp_exchange(const std::string& address, std::uint16_t port) {
  auto answer = command(fmt::format("udp_exchange {} {}", address, port));
  if (!answer) {
    return answer.error();
  }
  return answer->value("same", false);
}

Result<BurstResult> PodShell::burst(const std::string& address, std::uint16_t port,
                                    const BurstOptions& options) {
  auto answer =
      command(fmt::format("burst {} {} {} threads={} len={} timeout_ms={}", address, port,
                          options.count, options.threads, options.length, options.timeout.count()),
              scaled(milliseconds(100'000)));
  if (!answer) {
    return answer.error();
  }
  BurstResult result;
  result.ok = answer->value("ok", std::uint64_t{0});
  result.mismatches = answer->value("mismatches", std::uint64_t{0});
  result.connect_errors = answer->at("connect_errors").get<std::map<std::string, std::uint64_t>>();
  result.io_errors = answer->at("io_errors").get<std::map<std::string, std::uint64_t>>();
  result.max_us = answer->value("max_us", std::int64_t{0});
  result.p50_us = answer->value("p50_us", std::int64_t{0});
  result.total_us = answer->value("total_us", std::int64_t{0});
  return result;
}

Result<std::uint64_t> PodShell::hold(const std::string& address, std::uint16_t port,
                                     std::uint64_t count) {
  auto answer =
      command(fmt::format("hold {} {} {}", address, port, count), scaled(milliseconds(100'000)));
  if (!answer) {
    return answer.error();
  }
  return answer->value("opened", std::uint64_t{0});
}

Result<std::uint64_t> PodShell::release() {
  auto answer = command("release");
  if (!answer) {
    return answer.error();
  }
  return answer->value("released", std::uint64_t{0});
}

}  // namespace sidetrack::lab
