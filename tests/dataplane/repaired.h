// SPDX-License-Identifier: Apache-2.0
// Connections that claim to be established, with sequence numbers of the application's choosing
// (TCP_REPAIR): such an application may name those of others. Thread rule: plain functions.
#pragma once

#include <cstdint>
#include <memory>

#include "tests/lab/echo_server.h"
#include "tests/lab/process.h"

namespace sidetrack::lab {

// kAnybody: without rights but in a user and a network namespace of its own making.
enum class Rights { kRoot, kAnybody };

// The next byte that the first of them sends and expects; one more for each after it.
inline constexpr std::uint32_t kChosenToSend = 0x11111111;
inline constexpr std::uint32_t kChosenToExpect = 0x22222222;
// Holds `count` of them; fails the test if it cannot.
[[nodiscard]] std::unique_ptr<Process> connect_under_repair(const Place& place, Rights rights,
                                                            int count);

}  // namespace sidetrack::lab
