// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/owed_readers.h"

#include <vector>

namespace sidetrack::adopt {

namespace {

constexpr std::chrono::milliseconds kPause{10};

}  // namespace

void OwedReaders::add(std::uint64_t cookie, Clock::time_point now) {
  owed_.try_emplace(cookie, Owed{.due = now + kPause});
}

st_adopt_request OwedReaders::request_to(std::uint64_t cookie) {
  const Pair* pair = pairs_.find(cookie);
  if (pair == nullptr) {
    return {};
  }
  const bool is_client = client_cookie(*pair) == cookie;
  return request_for(*pair, is_client ? ST_SIDE_CLIENT : ST_SIDE_SERVER, ST_ADOPT_DRAINED);
}

// Two looks that find bytes of TCP only: the reader has had time to come by itself. Telling it for
// nothing does no harm.
void OwedReaders::answer(std::uint64_t cookie, const st_adopt_request& request,
                         st_fast_reason found) {
  Owed& owed = owed_.at(cookie);
  if (found == ST_FAST_READER_BUSY) {
    owed.only_tcp_before = false;
  } else if (found == ST_FAST_FIN_WAITS) {
    sockets_.nudge(request.peer.netns_cookie, request.peer.cookie);
  } else if (found == ST_FAST_UNREAD && !owed.only_tcp_before) {
    owed.only_tcp_before = true;
  } else {
    // Taken out meanwhile: what came by TCP may be there all the same.
    const bool was_taken_out = found == ST_FAST_GONE && request.self.cookie != 0;
    if (found == ST_FAST_UNREAD || was_taken_out) {
      sockets_.nudge(request.self.netns_cookie, cookie);
    }
    owed_.erase(cookie);
  }
}

void OwedReaders::look(Clock::time_point now) {
  std::vector<std::uint64_t> cookies;
  std::vector<st_adopt_request> requests;
  for (auto& [cookie, owed] : owed_) {
    if (owed.due <= now) {
      owed.due = now + kPause;
      cookies.push_back(cookie);
      requests.push_back(request_to(cookie));
    }
  }
  if (cookies.empty()) {
    return;
  }
  const std::vector<st_fast_reason> answers = sockets_.run(requests);
  for (std::size_t i = 0; i < cookies.size(); ++i) {
    answer(cookies[i], requests[i], answers[i]);
  }
}

}  // namespace sidetrack::adopt
