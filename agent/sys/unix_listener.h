// SPDX-License-Identifier: Apache-2.0
// A listening unix socket as this agent wants it: mode 0600 from its first moment, whatever the
// umask, CLOEXEC, non-blocking. No event loop. Thread rule: free functions.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::sys {

// Replaces a socket file that nobody answers on. kExists: somebody does, or the file is no socket;
// kInvalid: path too long.
[[nodiscard]] Result<UniqueFd> listen_unix(const std::string& path);

// The next connection; an invalid descriptor when there is none now.
[[nodiscard]] Result<UniqueFd> accept_unix(int listener);

struct PeerCredentials {
  std::int64_t pid = 0;
  uid_t uid = 0;
};
// SO_PEERCRED: who called connect().
[[nodiscard]] Result<PeerCredentials> peer_credentials(int socket);

}  // namespace sidetrack::sys
