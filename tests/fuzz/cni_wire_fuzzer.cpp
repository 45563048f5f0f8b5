// SPDX-License-Identifier: Apache-2.0
// Any bytes as a message between the CNI plugin and the agent. What decodes survives a round trip.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "sidetrack/wire/cni.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sidetrack::wire;
  const auto message = cni::decode({reinterpret_cast<const char*>(data), size});
  if (!message) {
    return 0;
  }
  const auto body = cni::encode(*message);
  if (!body) {
    return 0;  // long text of another form can pass the frame's limit
  }
  const auto again = cni::decode(*body);
  if (!again || !(*again == *message)) {
    std::abort();
  }
  return 0;
}
