// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/notes.h"

#include "sidetrack/fast_rules.h"

namespace sidetrack::adopt {

namespace {

st_adopt_request note_request(const Pair& pair, st_fast_reason reason) {
  st_adopt_request request = request_for(pair, ST_SIDE_CLIENT, ST_ADOPT_NOTE);
  request.reason = static_cast<std::uint8_t>(reason);
  return request;
}

// An engine's own connection is part of its client's.
bool has_flow_record(const Pair& pair) {
  return pair.nominated.kind != ST_PAIR_FROM_ENGINE;
}

}  // namespace

void Notes::tell(const std::vector<Pair*>& pairs) {
  std::vector<Pair*> told;
  std::vector<st_adopt_request> requests;
  for (Pair* pair : pairs) {
    if (pair->reason != pair->noted && st_is_why_on_tcp(pair->reason) != 0 &&
        has_flow_record(*pair)) {
      told.push_back(pair);
      requests.push_back(note_request(*pair, pair->reason));
    }
  }
  const std::vector<st_fast_reason> answers = sockets_.run(requests);
  for (std::size_t i = 0; i < told.size(); ++i) {
    if (answers[i] == ST_FAST_NONE) {
      told[i]->noted = told[i]->reason;
    }
  }
}

void Notes::tell_adopted(const PairTable::Pairs& pairs) {
  std::vector<st_adopt_request> requests;
  for (const auto& [cookie, pair] : pairs) {
    if (pair.stage == Stage::kAdopted && has_flow_record(pair)) {
      requests.push_back(note_request(pair, ST_FAST_UNARMED));
      requests.back().if_none = 1;
    }
  }
  (void)sockets_.run(requests);  // one that is closed has told its end
}

}  // namespace sidetrack::adopt
