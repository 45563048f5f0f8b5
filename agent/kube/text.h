// SPDX-License-Identifier: Apache-2.0
// The text of one file to objects and problems: parse, decode, name the line. Pure, never throws;
// this is what the fuzzer feeds.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/kube/decode.h"
#include "agent/kube/model.h"

namespace sidetrack::kube {

enum class TextFormat { kYaml, kJson };

struct TextObjects {
  std::vector<Object> objects;    // each name once
  std::vector<Problem> problems;  // object `source`, key "line N"
  bool parsed = false;            // false: the text is broken, `objects` is empty
  bool complete = false;          // every object of the text could be used
};

// `source` names the text in problems ("file /objects/a.yaml").
[[nodiscard]] TextObjects decode_text(std::string_view text, TextFormat format,
                                      const std::string& source);
[[nodiscard]] TextObjects decode_yaml_text(std::string_view text);

}  // namespace sidetrack::kube
