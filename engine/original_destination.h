// SPDX-License-Identifier: Apache-2.0
// OriginalDestination: where the client of an accepted connection wanted to go. In production the
// BPF getsockopt program answers; whoever embeds the engine elsewhere gives another source. Called
// on every worker at once.
#pragma once

#include <optional>

#include "engine/address.h"

namespace sidetrack::engine {

class OriginalDestination {
 public:
  OriginalDestination() = default;
  OriginalDestination(const OriginalDestination&) = delete;
  OriginalDestination& operator=(const OriginalDestination&) = delete;
  virtual ~OriginalDestination() = default;

  // The destination of the accepted socket `fd`; `listener` is the address that it was accepted at.
  // Nothing = the connection was not redirected.
  [[nodiscard]] virtual std::optional<SocketAddress> of(int fd,
                                                        const SocketAddress& listener) const = 0;
};

// Asks the kernel: SO_ORIGINAL_DST.
class KernelOriginalDestination final : public OriginalDestination {
 public:
  [[nodiscard]] std::optional<SocketAddress> of(int fd,
                                                const SocketAddress& listener) const override;
};

}  // namespace sidetrack::engine
