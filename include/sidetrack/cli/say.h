// SPDX-License-Identifier: Apache-2.0
// What a program says on stdout. What could not be written never stops its work: it is told of at
// the end. Any thread.
#pragma once

#include <string_view>

namespace sidetrack::cli {

void say(std::string_view text) noexcept;

// The exit code of a program that would end with `status`: not 0 where something that it said on
// stdout could not be written, which it complains of.
[[nodiscard]] int end_with(std::string_view program, int status) noexcept;

}  // namespace sidetrack::cli
