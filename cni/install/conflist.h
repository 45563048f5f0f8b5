// SPDX-License-Identifier: Apache-2.0
// Edits CNI network configurations: text in, text out. What is not ours stays as it is, byte for
// byte: order, unknown keys, numbers, escapes, line ends. Taking our entry out of a text gives the
// text that it was put into. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sidetrack/result.h"
#include "sidetrack/wire/cni.h"

namespace sidetrack::cni::install {

// Our entry in the list of plugins. Its order of keys is the one that Go writes.
struct Entry {
  std::string type = "sidetrack-cni";  // also the name of the program
  std::string socket = "/run/sidetrack/cni.sock";
  std::uint32_t deny_for_seconds = wire::cni::kDefaultDenyForSeconds;  // 0: for ever
  std::string enrolled_namespaces;                                     // file, empty: none
  std::string log_file;                                                // empty: none
  std::string on_agent_down = "allow";
  std::string own_namespace;  // empty: unknown
  bool status_checks_agent = false;
  std::uint32_t timeout_ms = wire::cni::kDefaultTimeoutMs;
};
// One line of JSON. Members that are empty or default are left out.
[[nodiscard]] std::string entry_text(const Entry& entry);

struct Facts {
  std::string name;                // of the network
  std::vector<std::string> types;  // of its plugins, in order
};
// Checks the text as a runtime does, and that our plugin speaks its version. kInvalid: a runtime
// would not load it; kUnsupported: no plugin may be chained (its version).
[[nodiscard]] Result<Facts> read_list(std::string_view list);    // a *.conflist
[[nodiscard]] Result<Facts> read_single(std::string_view conf);  // a *.conf or *.json

// The list with every entry of `entry.type` removed and this one put last. The same text if it is
// so already, however it is formatted. Errors as read_list.
[[nodiscard]] Result<std::string> with_entry(std::string_view list, const Entry& entry);

// The list without entries of this type; the same text if there are none. kInvalid: no list, or
// there would be no plugin left.
[[nodiscard]] Result<std::string> without_entry(std::string_view list, std::string_view type);

// Does any entry of this text, a list or a single configuration, have this type?
[[nodiscard]] bool mentions(std::string_view text, std::string_view type);

// The same; of a text that is neither a list nor a single configuration, so that no runtime loads
// it as it is: whether it contains the type at all.
[[nodiscard]] bool may_mention(std::string_view text, std::string_view type);

// A list of the single configuration and our entry. Errors as read_single.
[[nodiscard]] Result<std::string> list_around(std::string_view conf, const Entry& entry);

}  // namespace sidetrack::cni::install
