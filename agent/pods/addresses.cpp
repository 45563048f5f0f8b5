// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

namespace sidetrack::pods {
namespace {

struct IfaddrsDeleter {
  void operator()(ifaddrs* list) const { freeifaddrs(list); }
};

std::string text_of(const sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address->sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof(v4));
    inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
  } else if (address->sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, address, sizeof(v6));
    inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
  }
  return text.data();
}

Result<std::vector<std::string>> list_here() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    return errno_error("list addresses", errno);
  }
  const std::unique_ptr<ifaddrs, IfaddrsDeleter> owner(list);
  std::vector<std::string> addresses;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_LOOPBACK) != 0) {
      continue;
    }
    if (std::string text = text_of(one->ifa_addr); !text.empty()) {
      addresses.push_back(std::move(text));
    }
  }
  return addresses;
}

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
    addresses = list_here();
  });
  visitor.join();
  return addresses;
}

bool same_address(const std::string& one, const std::string& other) {
  const std::string bytes = bytes_of(one);
  return !bytes.empty() && bytes == bytes_of(other);
}

}  // namespace sidetrack::pods
