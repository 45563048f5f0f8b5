// SPDX-License-Identifier: Apache-2.0
#include "agent/main/external_engine.h"

#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "sidetrack/decide.h"

namespace sidetrack::agent {

namespace {

struct SocketDeleter {
  void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
};
using Socket = std::unique_ptr<mnl_socket, SocketDeleter>;

void read_attributes(const nlmsghdr* header, NodeListener& listener) {
  const auto read_one = [](const nlattr* attribute, void* data) {
    auto& found = *static_cast<NodeListener*>(data);
    if (mnl_attr_get_type(attribute) == INET_DIAG_SKV6ONLY) {
      found.v6_only = mnl_attr_get_u8(attribute) != 0;
    } else if (mnl_attr_get_type(attribute) == INET_DIAG_CGROUP_ID) {
      found.cgroup_id = mnl_attr_get_u64(attribute);
    }
    return MNL_CB_OK;
  };
  mnl_attr_parse(header, sizeof(inet_diag_msg), read_one, &listener);
}

int read_listener(const nlmsghdr* header, void* data) {
  auto& listeners = *static_cast<std::vector<NodeListener>*>(data);
  const auto* message = static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(header));
  NodeListener listener;
  if (message->idiag_family == AF_INET) {
    listener.address.bytes[10] = listener.address.bytes[11] = 0xff;
    std::memcpy(&listener.address.bytes[12], message->id.idiag_src, 4);
  } else {
    std::memcpy(listener.address.bytes, message->id.idiag_src, 16);
  }
  listener.port = ntohs(message->id.idiag_sport);
  listener.cookie =
      message->id.idiag_cookie[0] | static_cast<std::uint64_t>(message->id.idiag_cookie[1]) << 32;
  listener.backlog = message->idiag_rqueue;
  listener.max_backlog = message->idiag_wqueue;
  read_attributes(header, listener);
  listeners.push_back(listener);
  return MNL_CB_OK;
}

Result<void> dump(mnl_socket* socket, std::uint8_t family, std::vector<NodeListener>& listeners) {
  std::vector<char> buffer(32768);
  nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  auto* request =
      static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(header, sizeof(inet_diag_req_v2)));
  request->sdiag_family = family;
  request->sdiag_protocol = IPPROTO_TCP;
  request->idiag_states = 1U << TCP_LISTEN;
  if (mnl_socket_sendto(socket, header, header->nlmsg_len) < 0) {
    return errno_error("sock_diag: send", errno);
  }
  for (;;) {
    const ssize_t size = mnl_socket_recvfrom(socket, buffer.data(), buffer.size());
    if (size < 0) {
      return errno_error("sock_diag: receive", errno);
    }
    const int more =
        mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), 0, 0, read_listener, &listeners);
    if (more < 0) {
      return errno_error("sock_diag: answer", errno);
    }
    if (more == MNL_CB_STOP) {
      return {};
    }
  }
}

bool is_any(const st_addr& address) {
  static constexpr std::uint8_t kZero[4] = {};
  return st_addr_is_zero(&address) != 0 ||
         (st_addr_is_v4(&address) != 0 && std::memcmp(&address.bytes[12], kZero, 4) == 0);
}

bool is_watched(const volatile st_engine& cell, std::uint64_t cookie) {
  return std::any_of(std::begin(cell.watched), std::end(cell.watched),
                     [cookie](std::uint64_t seen) { return seen == cookie; });
}

}  // namespace

Result<std::vector<NodeListener>> list_listeners() {
  const Socket socket(mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC));
  if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) {
    return errno_error("sock_diag: open", errno);
  }
  std::vector<NodeListener> listeners;
  ST_TRY(dump(socket.get(), AF_INET, listeners));
  ST_TRY(dump(socket.get(), AF_INET6, listeners));
  return listeners;
}

bool listens_on(const NodeListener& listener, const policy::SocketAddress& address) {
  if (listener.port != address.port) {
    return false;
  }
  if (st_addr_equal(&listener.address, &address.address) != 0) {
    return true;
  }
  const bool wants_v4 = st_addr_is_v4(&address.address) != 0;
  const bool any_v6 = st_addr_is_zero(&listener.address) != 0;
  return is_any(listener.address) && (wants_v4 ? !any_v6 || !listener.v6_only : any_v6);
}

ExternalWatch::ExternalWatch(ExternalEngine engine, std::uint64_t engine_cgroup_id,
                             volatile st_engine* cell)
    : engine_(engine), engine_cgroup_id_(engine_cgroup_id), cell_(cell) {}

const NodeListener* ExternalWatch::find(const std::vector<NodeListener>& listeners,
                                        const policy::SocketAddress& address) {
  if (address.port == 0) {
    return nullptr;
  }
  for (const NodeListener& listener : listeners) {
    if (!listens_on(listener, address)) {
      continue;
    }
    // The program that answers SO_ORIGINAL_DST follows the cgroup in which the listener was made.
    if (listener.cgroup_id != 0 && listener.cgroup_id != engine_cgroup_id_) {
      problem_ = fmt::format(
          "{} is listened on from cgroup {}, not from --engine-cgroup (id {}): start the proxy "
          "inside of it",
          policy::format_endpoint(address.address, address.port), listener.cgroup_id,
          engine_cgroup_id_);
      continue;
    }
    return &listener;
  }
  if (problem_.empty()) {
    problem_ = "nothing listens on " + policy::format_endpoint(address.address, address.port);
  }
  return nullptr;
}

bool ExternalWatch::look(std::uint64_t now_ns) {
  problem_.clear();
  auto listeners = list_listeners();
  if (!listeners) {
    problem_ = listeners.error().message;
    return up_;  // the heartbeat ends by itself if this lasts
  }
  const NodeListener* v4 = find(*listeners, engine_.v4);
  const NodeListener* v6 = find(*listeners, engine_.v6);
  bool watched = true;
  full_ = false;
  for (const NodeListener* listener : {v4, v6}) {
    if (listener != nullptr) {
      watched = watched && is_watched(*cell_, listener->cookie);
      full_ = full_ || listener->backlog > listener->max_backlog - listener->max_backlog / 4;
    }
  }
  up_ = v4 != nullptr || v6 != nullptr;
  // Only what differs is written: sockops may be clearing a cookie right now. A cookie that it
  // cleared meanwhile comes back here for one look at most, and the next one (or its own close)
  // takes it away.
  const std::uint64_t cookie_v4 = v4 == nullptr ? 0 : v4->cookie;
  const std::uint64_t cookie_v6 = v6 == nullptr ? 0 : v6->cookie;
  if (cell_->listener_cookie_v4 != cookie_v4) {
    cell_->listener_cookie_v4 = cookie_v4;
  }
  if (cell_->listener_cookie_v6 != cookie_v6) {
    cell_->listener_cookie_v6 = cookie_v6;
  }
  cell_->full = full_ ? 1 : 0;
  cell_->beat_ns = !up_ ? 0 : watched ? ST_BEAT_NOT_NEEDED : now_ns;
  return up_;
}

}  // namespace sidetrack::agent
