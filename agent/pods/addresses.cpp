// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/addresses.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>

#include <array>
#include <cerrno>
#include <thread>

#include "agent/pods/source.h"

namespace sidetrack::pods {
namespace {

// The bytes of an address; none if it is not one.
std::string bytes_of(const std::string& text) {
  std::array<char, sizeof(in6_addr)> bytes{};
  if (inet_pton(AF_INET, text.c_str(), bytes.data()) == 1) {
    return {bytes.data(), sizeof(in_addr)};
  }
  if (inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1) {
    return {bytes.data(), sizeof(in6_addr)};
  }
  return "";
}

}  // namespace

Result<std::vector<std::string>> list_addresses(int netns_fd) {
  Result<std::vector<std::string>> addresses = make_error(ErrorCode::kInternal, "not read");
  std::thread visitor([&addresses, netns_fd] {
    if (setns(netns_fd, CLONE_NEWNET) != 0) {
      addresses = errno_error("enter a pod's netns", errno);
      return;
    }
    addresses = list_own_addresses();
  });
  visitor.join();
  return addresses;
}

bool same_address(const std::string& one, const std::string& other) {
  const std::string bytes = bytes_of(one);
  return !bytes.empty() && bytes == bytes_of(other);
}

}  // namespace sidetrack::pods
