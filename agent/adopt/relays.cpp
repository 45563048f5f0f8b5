// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/relays.h"

#include <utility>

namespace sidetrack::adopt {

namespace {

constexpr std::chrono::seconds kLook{1};  // at those that wait, without an occasion

bool is_relay(const Pair& client, const Pair& server, const Link& link) {
  return client.nominated.kind == ST_PAIR_TO_ENGINE && server_cookie(client) == link.client_leg &&
         server.nominated.kind == ST_PAIR_FROM_ENGINE && client_cookie(server) == link.server_leg;
}

}  // namespace

void Relays::add(const Link& link, Clock::time_point until) {
  pending_.insert_or_assign(link.client_leg, Pending{.link = link, .until = until});
  look_ = true;
}

Pair* Relays::part(Pair& pair, Clock::time_point now) {
  if (!pair.link) {
    return nullptr;
  }
  const Link link = *std::exchange(pair.link, std::nullopt);
  Pair* const client = pairs_.find(link.client_leg);
  Pair* const other = client == &pair ? pairs_.find(link.server_leg) : client;
  if (other != nullptr) {
    other->link.reset();
    add(link, now);
  }
  return other;
}

std::vector<st_fast_reason> Relays::connect(Clock::time_point now) {
  std::vector<st_fast_reason> failures;
  if (!look_ && now < look_at_) {
    return failures;
  }
  look_ = false;
  look_at_ = now + kLook;
  std::erase_if(pending_, [&](const auto& entry) {
    st_fast_reason failed = ST_FAST_NONE;
    const Outcome outcome = try_to_join(entry.second, now, &failed);
    if (outcome == Outcome::kNever && failed != ST_FAST_NONE) {
      failures.push_back(failed);
    }
    return outcome != Outcome::kWaits;
  });
  return failures;
}

Relays::Outcome Relays::try_to_join(const Pending& pending, Clock::time_point now,
                                    st_fast_reason* failed) {
  Pair* client = pairs_.find(pending.link.client_leg);
  Pair* server = pairs_.find(pending.link.server_leg);
  if (client == nullptr || server == nullptr) {
    return now < pending.until ? Outcome::kWaits : Outcome::kNever;
  }
  if (client->stage == Stage::kRefused || server->stage == Stage::kRefused ||
      !is_relay(*client, *server, pending.link)) {
    return Outcome::kNever;
  }
  if (client->stage != Stage::kAdopted || server->stage != Stage::kAdopted) {
    return Outcome::kWaits;  // as long as both live
  }
  *failed = join(*client, *server, pending.link);
  if (*failed == ST_FAST_NONE) {
    return Outcome::kJoined;
  }
  return *failed == ST_FAST_INTERNAL ? Outcome::kWaits : Outcome::kNever;
}

// Each request may come twice: what could not be visited is tried again.
st_fast_reason Relays::join(Pair& client, Pair& server, const Link& link) {
  for (const st_adopt_op op : {ST_ADOPT_LINK, ST_ADOPT_ARM_LINK}) {
    for (const st_fast_reason answer :
         sockets_.run({link_request(client, server, client, link.index, op),
                       link_request(server, client, client, link.index, op)})) {
      if (answer != ST_FAST_NONE) {
        return answer == ST_FAST_GONE ? ST_FAST_RELAY_GONE : answer;
      }
    }
    // Before they may send: from here on they leave together.
    client.link = server.link = link;
  }
  return ST_FAST_NONE;
}

}  // namespace sidetrack::adopt
