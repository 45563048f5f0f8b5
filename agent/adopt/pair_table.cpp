// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/pair_table.h"

#include <algorithm>

namespace sidetrack::adopt {

Pair* PairTable::find(std::uint64_t cookie) {
  const auto client = client_of_.find(cookie);
  if (client == client_of_.end()) {
    return nullptr;
  }
  const auto pair = pairs_.find(client->second);
  return pair == pairs_.end() ? nullptr : &pair->second;
}

Pair& PairTable::put(const Candidate& candidate) {
  const std::uint64_t client = candidate.end[ST_SIDE_CLIENT].cookie;
  Pair& pair = pairs_[client];
  pair.nominated = candidate;
  client_of_[client] = client;
  client_of_[candidate.end[ST_SIDE_SERVER].cookie] = client;
  return pair;
}

void PairTable::erase(std::uint64_t client) {
  const auto found = pairs_.find(client);
  if (found == pairs_.end()) {
    return;
  }
  client_of_.erase(server_cookie(found->second));
  client_of_.erase(client);
  pairs_.erase(found);
}

void PairTable::set_due(Pair& pair, Clock::time_point due) {
  pair.due = due;
  next_due_ = std::min(next_due_, due);
}

void PairTable::move_to(Pair& pair, Stage stage, Clock::time_point due) {
  pair.stage = stage;
  set_due(pair, due);
  pair.attempts = 0;
  pair.disarmed = false;
}

std::map<Stage, std::vector<Pair*>> PairTable::take_due(Clock::time_point now) {
  std::map<Stage, std::vector<Pair*>> due;
  if (now < next_due_) {
    return due;
  }
  next_due_ = Clock::time_point::max();
  for (auto& [cookie, pair] : pairs_) {
    if (pair.due <= now) {
      due[pair.stage].push_back(&pair);
    }
    next_due_ = std::min(next_due_, pair.due);
  }
  return due;
}

}  // namespace sidetrack::adopt
