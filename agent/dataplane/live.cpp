// SPDX-License-Identifier: Apache-2.0
// What is open now: rows of maps, and what programs read of the sockets behind (bpf/look.bpf.c).
#include <algorithm>
#include <set>
#include <span>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

Result<std::vector<st_live>> Dataplane::live_sockets() const {
  std::vector<st_live> rows;
  ST_TRY((for_each_row<std::uint64_t, st_redirected>(
      impl_->map_fd("st_redirected"), "st_redirected",
      [&](std::uint64_t cookie, const st_redirected& row) {
        rows.push_back({.client = row.client,
                        .cookie = cookie,
                        .sock = row.sock,
                        .source = row.own,
                        .redirected = 1});
      })));
  ST_TRY((for_each_row<std::uint64_t, st_observed>(
      impl_->map_fd("st_observed"), "st_observed",
      [&](std::uint64_t cookie, const st_observed& row) {
        if (row.client.counted != 0) {
          rows.push_back({.client = row.client, .cookie = cookie, .sock = row.sock});
        }
      })));
  const int program = bpf_program__fd(impl_->skeleton->progs.st_look);
  for (std::span<st_live> left = rows; !left.empty();) {
    const auto part = left.first(std::min<std::size_t>(left.size(), ST_LIVE_ROWS));
    ST_TRY(run_on(program, "st_look", part));
    left = left.subspan(part.size());
  }
  std::erase_if(rows, [](const st_live& row) { return row.open == 0; });
  return rows;
}

Result<bool> Dataplane::has_adopted() const {
  std::uint64_t first = 0;
  if (bpf_map_get_next_key(impl_->map_fd("st_adopted"), nullptr, &first) == 0) {
    return true;
  }
  return errno == ENOENT ? Result<bool>(false) : map_error("st_adopted", "list", errno);
}

Result<std::vector<st_fast_live>> Dataplane::adopted() const {
  std::vector<st_fast_live> rows;
  if (!impl_->fast_path_problem.empty()) {
    return rows;  // nothing here can look at them
  }
  const auto cookies = map_keys<std::uint64_t>(impl_->map_fd("st_adopted"), "st_adopted");
  ST_TRY(cookies);
  const int program = bpf_program__fd(impl_->skeleton->progs.st_look_fast);
  for (const std::uint64_t cookie : std::set(cookies->begin(), cookies->end())) {
    st_fast_live row{.state = {.cookie = cookie}};
    const auto found = run_on(program, "st_look_fast", std::span(&row, 1));
    ST_TRY(found);
    if (*found != 0) {
      rows.push_back(row);
    }
  }
  return rows;
}

}  // namespace sidetrack::dataplane
