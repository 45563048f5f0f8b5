// SPDX-License-Identifier: Apache-2.0
// YAML and JSON text to nlohmann::json with line numbers. Values are typed by the YAML 1.2 core
// schema: quoted is a string, unquoted true, 80 and null are not. Bounded by document.h; never
// throws. Not a YAML 1.1 reader: no merge keys, no yes/no.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/kube/document.h"

namespace sidetrack::kube {

// Something about one line of the text.
struct LineNote {
  int line = 1;
  std::string text;  // the offending text
  std::string reason;
};

struct Parsed {
  std::vector<Document> documents;  // empty documents are left out
  std::optional<LineNote> error;  // the text is not usable as a whole; documents before it are kept
  std::vector<LineNote> warnings;
};

[[nodiscard]] Parsed parse_yaml(std::string_view text);
[[nodiscard]] Parsed parse_json(std::string_view text);

// Line `number` (from 1) of `text`, without surrounding blanks and cut for display.
[[nodiscard]] std::string shown_line(std::string_view text, int number);

}  // namespace sidetrack::kube
