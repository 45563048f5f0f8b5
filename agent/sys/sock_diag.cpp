// SPDX-License-Identifier: Apache-2.0
#include "agent/sys/sock_diag.h"

#include <libmnl/libmnl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace sidetrack::sys {

namespace {

struct SocketDeleter {
  void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
};
using Netlink = std::unique_ptr<mnl_socket, SocketDeleter>;
using Buffer = std::array<char, 32768>;

Result<Netlink> open_netlink() {
  Netlink netlink(mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC));
  if (!netlink || mnl_socket_bind(netlink.get(), 0, MNL_SOCKET_AUTOPID) < 0) {
    return errno_error("sock_diag: open", errno);
  }
  return netlink;
}

// In `buffer`, to be filled in.
inet_diag_req_v2* put_request(nlmsghdr* header, std::uint16_t type, std::uint16_t flags,
                              std::uint8_t family) {
  header->nlmsg_type = type;
  header->nlmsg_flags = flags;
  auto* request =
      static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(header, sizeof(inet_diag_req_v2)));
  request->sdiag_family = family;
  request->sdiag_protocol = IPPROTO_TCP;
  return request;
}

int read_attribute(const nlattr* attribute, void* data) {
  auto& socket = *static_cast<TcpSocket*>(data);
  if (mnl_attr_get_type(attribute) == INET_DIAG_SKV6ONLY) {
    socket.v6_only = mnl_attr_get_u8(attribute) != 0;
  } else if (mnl_attr_get_type(attribute) == INET_DIAG_CGROUP_ID) {
    socket.cgroup_id = mnl_attr_get_u64(attribute);
  }
  return MNL_CB_OK;
}

int read_socket(const nlmsghdr* header, void* data) {
  const auto* message = static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(header));
  TcpSocket socket{.id = message->id, .family = message->idiag_family};
  socket.cookie =
      message->id.idiag_cookie[0] | static_cast<std::uint64_t>(message->id.idiag_cookie[1]) << 32;
  socket.receive_queue = message->idiag_rqueue;
  socket.send_queue = message->idiag_wqueue;
  mnl_attr_parse(header, sizeof(inet_diag_msg), read_attribute, &socket);
  static_cast<std::vector<TcpSocket>*>(data)->push_back(socket);
  return MNL_CB_OK;
}

// NLMSG_ERROR and NLMSG_DONE both begin with an error, negative, or 0; that of a list which was cut
// short is in the latter.
int read_end(const nlmsghdr* header, void* /*data*/) {
  int error = 0;
  if (mnl_nlmsg_get_payload_len(header) >= sizeof(error)) {
    std::memcpy(&error, mnl_nlmsg_get_payload(header), sizeof(error));
  } else if (header->nlmsg_type == NLMSG_ERROR) {
    error = -EBADMSG;
  }
  errno = std::abs(error);
  return error == 0 ? MNL_CB_STOP : MNL_CB_ERROR;
}

// Reads answers until the kernel has said all.
Result<void> receive(mnl_socket* netlink, Buffer& buffer, std::vector<TcpSocket>& sockets) {
  for (;;) {
    const ssize_t size = mnl_socket_recvfrom(netlink, buffer.data(), buffer.size());
    if (size < 0) {
      return errno_error("sock_diag: receive", errno);
    }
    const auto all = read_answer({buffer.data(), static_cast<std::size_t>(size)}, sockets);
    ST_TRY(all);
    if (*all) {
      return {};
    }
  }
}

}  // namespace

Result<bool> read_answer(std::span<const char> answer, std::vector<TcpSocket>& sockets) {
  std::array<mnl_cb_t, NLMSG_DONE + 1> at_end{};
  at_end[NLMSG_ERROR] = at_end[NLMSG_DONE] = read_end;
  const int more = mnl_cb_run2(answer.data(), answer.size(), 0, 0, read_socket, &sockets,
                               at_end.data(), at_end.size());
  if (more < 0) {
    return errno_error("sock_diag: answer", errno);
  }
  return more == MNL_CB_STOP;
}

Result<std::vector<TcpSocket>> list_tcp_sockets(std::uint32_t states) {
  auto netlink = open_netlink();
  ST_TRY(netlink);
  std::vector<TcpSocket> sockets;
  for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
    Buffer buffer{};
    nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
    put_request(header, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family)->idiag_states =
        states;
    if (mnl_socket_sendto(netlink->get(), header, header->nlmsg_len) < 0) {
      return errno_error("sock_diag: send", errno);
    }
    ST_TRY(receive(netlink->get(), buffer, sockets));
  }
  return sockets;
}

Result<bool> destroy_tcp_socket(const TcpSocket& socket) {
  auto netlink = open_netlink();
  ST_TRY(netlink);
  Buffer buffer{};
  nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
  put_request(header, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, socket.family)->id = socket.id;
  if (mnl_socket_sendto(netlink->get(), header, header->nlmsg_len) < 0) {
    return errno_error("sock_diag: send", errno);
  }
  std::vector<TcpSocket> none;
  const auto answer = receive(netlink->get(), buffer, none);
  if (!answer && answer.error().error_number == ENOENT) {
    return false;
  }
  ST_TRY(answer);
  return true;
}

}  // namespace sidetrack::sys
