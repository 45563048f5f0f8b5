// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/source.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

namespace sidetrack::pods {
namespace {

struct IfaddrsDeleter {
  void operator()(ifaddrs* list) const { freeifaddrs(list); }
};
struct SocketDeleter {
  void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
};
using Netlink = std::unique_ptr<mnl_socket, SocketDeleter>;

constexpr std::uint32_t kSequence = 1;

// Of no network (RFC 5737, RFC 3849; fc00::/8 is not given out): the default route leads there.
// Nothing is sent.
constexpr const char* kSomewhereV4 = "192.0.2.1";
constexpr const char* kSomewhereV6 = "2001:db8::1";
constexpr const char* kSomewhereLocalV6 = "fc00::1";

std::string text_of(int family, const void* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(family, address, text.data(), text.size());
  return text.data();
}

std::string text_of(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof(v4));
    return text_of(AF_INET, &v4.sin_addr);
  }
  if (address->sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, address, sizeof(v6));
    return text_of(AF_INET6, &v6.sin6_addr);
  }
  return "";
}

int read_source(const nlattr* attribute, void* data) {
  if (mnl_attr_get_type(attribute) == RTA_PREFSRC) {
    const auto* bytes = static_cast<const std::uint8_t*>(mnl_attr_get_payload(attribute));
    static_cast<std::vector<std::uint8_t>*>(data)->assign(
        bytes, bytes + mnl_attr_get_payload_len(attribute));
  }
  return MNL_CB_OK;
}

int read_route(const nlmsghdr* header, void* data) {
  const auto* route = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(header));
  if (route->rtm_type == RTN_UNICAST) {
    mnl_attr_parse(header, sizeof(rtmsg), read_source, data);
  }
  return MNL_CB_STOP;
}

std::size_t size_of(int family) {
  return family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr);
}

nlmsghdr* put_request(std::span<char> buffer, int family, const char* destination) {
  nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = RTM_GETROUTE;
  header->nlmsg_flags = NLM_F_REQUEST;
  header->nlmsg_seq = kSequence;
  auto* route = static_cast<rtmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(rtmsg)));
  route->rtm_family = static_cast<unsigned char>(family);
  route->rtm_dst_len = static_cast<unsigned char>(8 * size_of(family));
  in6_addr to{};
  inet_pton(family, destination, &to);
  mnl_attr_put(header, RTA_DST, size_of(family), &to);
  return header;
}

// Empty: none.
std::string source_towards(mnl_socket* netlink, int family, const char* destination) {
  std::array<char, 8192> buffer{};
  const nlmsghdr* request = put_request(buffer, family, destination);
  if (mnl_socket_sendto(netlink, request, request->nlmsg_len) < 0) {
    return "";
  }
  const ssize_t size = mnl_socket_recvfrom(netlink, buffer.data(), buffer.size());
  std::vector<std::uint8_t> source;
  if (size < 0 ||
      mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), kSequence,
                 mnl_socket_get_portid(netlink), read_route, &source) < 0 ||
      source.size() != size_of(family)) {
    return "";
  }
  return text_of(family, source.data());
}

}  // namespace

Result<std::vector<std::string>> list_own_addresses() {
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

bool is_link_local(const std::string& address) {
  in6_addr v6{};
  in_addr v4{};
  if (inet_pton(AF_INET6, address.c_str(), &v6) == 1) {
    return IN6_IS_ADDR_LINKLOCAL(&v6);
  }
  return inet_pton(AF_INET, address.c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 16) == 0xa9fe;
}

std::vector<std::string> default_sources() {
  const Netlink netlink(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC));
  std::vector<std::string> sources;
  if (!netlink || mnl_socket_bind(netlink.get(), 0, MNL_SOCKET_AUTOPID) < 0) {
    return sources;
  }
  for (const auto& [family, destination] : {std::pair{AF_INET, kSomewhereV4},
                                            {AF_INET6, kSomewhereV6},
                                            {AF_INET6, kSomewhereLocalV6}}) {
    if (std::string source = source_towards(netlink.get(), family, destination);
        !source.empty() && !is_link_local(source)) {
      sources.push_back(std::move(source));
    }
  }
  return sources;
}

}  // namespace sidetrack::pods
