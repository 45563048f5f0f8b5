// SPDX-License-Identifier: Apache-2.0
// Fuzzes the engine protocol: any bytes as a message, and as a stream of frames. What decodes must
// survive a round trip. Built with -fsanitize=fuzzer, or linked into a unit test that replays
// tests/fuzz/corpus/wire.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "sidetrack/unique_fd.h"
#include "sidetrack/wire/engine.h"
#include "sidetrack/wire/framing.h"

namespace {

using namespace sidetrack;

constexpr std::size_t kMaxStreamBytes = 65536;  // fits the socket's buffer

void check_message(std::string_view body) {
  const auto message = wire::decode(body);
  if (!message) {
    return;
  }
  const auto again = wire::encode(*message);
  if (!again) {
    return;  // long text of another form can pass the frame's limit
  }
  const auto same = wire::decode(*again);
  if (!same || !(*same == *message)) {
    std::abort();
  }
}

void check_stream(std::string_view bytes) {
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) != 0) {
    std::abort();
  }
  const UniqueFd reading(pair[0]);
  UniqueFd writing(pair[1]);
  const std::size_t size = std::min(bytes.size(), kMaxStreamBytes);
  if (size > 0 && ::send(writing.get(), bytes.data(), size, MSG_NOSIGNAL) < 0) {
    std::abort();
  }
  writing.reset();
  wire::FrameReader reader;
  for (;;) {
    const auto received = reader.read(reading.get());
    if (!received) {
      return;
    }
    for (const wire::Frame& frame : received->frames) {
      check_message(frame.body);
    }
    if (received->closed) {
      return;
    }
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check_message(bytes);
  check_stream(bytes);
  return 0;
}
