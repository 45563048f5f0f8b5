// SPDX-License-Identifier: Apache-2.0
// Any bytes as the text of an object file; what starts like JSON is read as JSON and as YAML.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "agent/kube/text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using sidetrack::kube::TextFormat;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bool json = bytes.starts_with('{') || bytes.starts_with('[');
  const auto format = json ? TextFormat::kJson : TextFormat::kYaml;
  const auto decoded = sidetrack::kube::decode_text(bytes, format, "file fuzz");
  const bool consistent = decoded.parsed || (decoded.objects.empty() && !decoded.problems.empty());
  if (!consistent) {
    std::abort();
  }
  if (json) {
    static_cast<void>(sidetrack::kube::decode_yaml_text(bytes));
  }
  return 0;
}
