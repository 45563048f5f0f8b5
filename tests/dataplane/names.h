// SPDX-License-Identifier: Apache-2.0
// NamesTest: what sockets say of themselves, in the redirected pod and in the one of plain TCP.
// Thread rule: one owner.
#pragma once

#include <fmt/format.h>

#include <ostream>
#include <string>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {

// Both names of a socket, with the pod's addresses and an ephemeral port made the same for all
// pods.
struct Names {
  std::string peer;
  std::string own;
  bool operator==(const Names&) const = default;
};

inline void PrintTo(const Names& names, std::ostream* out) {
  *out << "peer " << names.peer << ", own " << names.own;
}

inline std::string neutral(std::string text, const Pod& pod) {
  for (const auto& [from, to] : {std::pair{pod.v4, "POD4"}, {pod.v6, "POD6"}}) {
    if (const std::size_t at = text.find(from); at != std::string::npos) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

class NamesTest : public Mesh {
 protected:
  static Names names(PodShell& shell, const Pod& pod, int id) {
    const auto show = [&](const Result<Endpoint>& name, bool own) {
      if (!name || name->error_number != 0) {
        return fmt::format("error {}", name ? name->error_number : -1);
      }
      const bool ephemeral = own && name->port >= 32768;
      return neutral(
          fmt::format("{} {}", name->address, ephemeral ? "port" : std::to_string(name->port)),
          pod);
    };
    return {show(shell.peer_name(id), false), show(shell.socket_name(id), true)};
  }

  // Does the same in the redirected pod and in the one of plain TCP and compares the names at the
  // end. `prepare` gives the socket.
  template <typename Prepare>
  Names same_in_both(Prepare prepare) {
    const Names expected = names(*control_, *plain_, prepare(*control_, *plain_));
    const Names seen = names(*shell_, *web_, prepare(*shell_, *web_));
    EXPECT_EQ(seen, expected);
    return expected;
  }

  int connected(PodShell& shell, const std::string& address, std::uint16_t port,
                const ConnectOptions& options = {}) {
    const auto socket = shell.connect(address, port, options);
    EXPECT_TRUE(socket && socket->error_number == 0);
    if (!socket) {
      return 0;
    }
    const auto role = remembered(shell, socket->id);
    EXPECT_TRUE(role && role->empty() == (&shell != shell_.get()));
    return socket->id;
  }
};

}  // namespace sidetrack::lab
