// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/policy.h"
#include "agent/policy/text.h"

namespace sidetrack::policy {

Result<PortSet> parse_ports(std::string_view text) {
  PortSet ports;
  ST_TRY(for_each_item(text, [&ports](std::string_view item) -> Result<void> {
    const auto range = parse_port_range(item);
    if (!range) {
      return item_error(item, range.error().message);
    }
    ports.add(*range);
    return {};
  }));
  return ports;
}

}  // namespace sidetrack::policy
