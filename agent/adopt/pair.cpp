// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/pair.h"

#include <array>

namespace sidetrack::adopt {

namespace {

struct Words {
  std::string_view name, text;
};

constexpr std::array<Words, ST_FAST_COUNT> kWords = {{
#define ST_FAST(NAME, name, text) {#name, text},
#include "sidetrack/abi/fast_path.def"
#undef ST_FAST
}};

// Whose end an application has: of a pair from an engine the server's, else the client's.
st_pair_side application_side(const Pair& pair) {
  return pair.nominated.kind == ST_PAIR_FROM_ENGINE ? ST_SIDE_SERVER : ST_SIDE_CLIENT;
}

const st_pair_end& end_of(const Pair& pair, bool application) {
  const st_pair_side side = application_side(pair);
  const bool client = (side == ST_SIDE_CLIENT) == application;
  return pair.nominated.end[client ? ST_SIDE_CLIENT : ST_SIDE_SERVER];
}

}  // namespace

st_adopt_request request_for(const Pair& pair, st_pair_side side, st_adopt_op op) {
  st_adopt_request request{};
  request.op = op;
  request.key = pair.nominated.key;
  request.self = pair.nominated.end[side];
  request.peer = pair.nominated.end[side == ST_SIDE_CLIENT ? ST_SIDE_SERVER : ST_SIDE_CLIENT];
  request.side = static_cast<std::uint8_t>(side);
  request.kind = pair.nominated.kind;
  return request;
}

st_adopt_request link_request(const Pair& pair, const Pair& other, const Pair& client,
                              std::uint32_t index, st_adopt_op op) {
  st_adopt_request request = request_for(pair, application_side(pair), op);
  const st_pair_end& leg = end_of(other, false);
  request.leg = {.cookie = leg.cookie, .sock = leg.sock};
  request.far = end_of(other, true);
  request.client_key = client.nominated.key;
  // From the client: the even slot.
  request.slot = 2 * index + (&pair == &client ? 0 : 1);
  return request;
}

bool passes(st_fast_reason reason) {
  return reason == ST_FAST_YOUNG || reason == ST_FAST_NOT_ACCEPTED || reason == ST_FAST_SLEEPER;
}

std::string_view name_of(st_fast_reason reason) {
  return reason < kWords.size() ? kWords[reason].name : "fp_unknown";
}

std::string_view text_of(st_fast_reason reason) {
  return reason < kWords.size() ? kWords[reason].text : "not known to this version";
}

}  // namespace sidetrack::adopt
