// SPDX-License-Identifier: Apache-2.0
// What is open now: rows of maps, and what programs read of the sockets behind (bpf/look.bpf.c).
#include <algorithm>
#include <set>
#include <span>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

// As many rows in one packet as the kernel takes.
template <typename Row>
Result<void> run_on_all(const bpf_program* program, std::span<Row> rows) {
  for (auto left = rows; !left.empty();) {
    const auto part = left.first(std::min<std::size_t>(left.size(), ST_LIVE_ROWS));
    ST_TRY(run_on(bpf_program__fd(program), bpf_program__name(program), part));
    left = left.subspan(part.size());
  }
  return {};
}

}  // namespace

Result<std::vector<st_live>> Dataplane::live_sockets() const {
  if (!impl_->look_problem.empty()) {
    return make_error(ErrorCode::kUnsupported, impl_->look_problem);
  }
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
  ST_TRY(run_on_all(impl_->skeleton->progs.st_look, std::span(rows)));
  for (const st_live& row : rows) {
    // Its close was not seen (an older agent's program was attached). A cookie is never used again.
    if (row.open == 0 && row.redirected != 0) {
      ST_TRY(map_delete(impl_->map_fd("st_redirected"), "st_redirected", row.cookie));
    }
  }
  std::erase_if(rows, [](const st_live& row) { return row.open == 0; });
  return rows;
}

Result<std::optional<st_report>> Dataplane::report(std::uint64_t client_cookie) const {
  return map_lookup<st_report>(impl_->map_fd("st_endpoints"), "st_endpoints", client_cookie);
}

const std::string& Dataplane::look_problem() const {
  return impl_->look_problem;
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
  if (!bpf_program__autoload(impl_->skeleton->progs.st_look_fast)) {
    return rows;  // nothing here can look at them
  }
  const auto cookies = map_keys<std::uint64_t>(impl_->map_fd("st_adopted"), "st_adopted");
  ST_TRY(cookies);
  for (const std::uint64_t cookie : std::set(cookies->begin(), cookies->end())) {
    rows.push_back({.state = {.cookie = cookie}});
  }
  ST_TRY(run_on_all(impl_->skeleton->progs.st_look_fast, std::span(rows)));
  std::erase_if(rows, [](const st_fast_live& row) { return row.sock == 0; });
  return rows;
}

}  // namespace sidetrack::dataplane
