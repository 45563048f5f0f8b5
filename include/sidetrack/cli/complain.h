// SPDX-License-Identifier: Apache-2.0
// How a program says on stderr why it ends. Any thread.
#pragma once

#include <string_view>

namespace sidetrack::cli {

// "PROGRAM: MESSAGE", one line. Never fails: where it cannot be written, the exit code says it.
void complain(std::string_view program, std::string_view message) noexcept;

}  // namespace sidetrack::cli
