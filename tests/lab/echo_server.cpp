// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/echo_server.h"

#include <sstream>

namespace sidetrack::lab {

Result<std::unique_ptr<EchoServer>> EchoServer::start(const Place& place,
                                                      const std::vector<std::string>& listeners) {
  ProcessSpec spec{.arguments = {lab_program("st_echo")},
                   .environment = {},
                   .netns_path = place.netns_path,
                   .cgroup_path = place.cgroup_path,
                   .log_file = {}};
  spec.arguments.insert(spec.arguments.end(), listeners.begin(), listeners.end());
  auto process = Process::start(spec);
  if (!process) {
    return process.error();
  }
  std::unique_ptr<EchoServer> server(new EchoServer(std::move(*process)));
  for (;;) {
    auto line = server->process_->read_line();
    if (!line) {
      return line.error();
    }
    if (*line == "ready") {
      return server;
    }
    std::istringstream words(*line);
    std::string listening;
    std::string mode;
    std::uint16_t port = 0;
    words >> listening >> mode >> port;
    server->ports_[mode] = port;
  }
}

std::uint16_t EchoServer::port(const std::string& mode) const {
  const auto known = ports_.find(mode);
  return known == ports_.end() ? std::uint16_t{0} : known->second;
}

}  // namespace sidetrack::lab
