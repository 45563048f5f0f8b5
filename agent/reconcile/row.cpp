// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/row.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "sidetrack/decide.h"

namespace sidetrack::reconcile {

namespace {

// A closed connection's port can be taken again after a second where TIME_WAIT is reused, else
// after a minute.
constexpr std::uint32_t kSecondShift = 30;
constexpr std::uint32_t kMinuteShift = 36;

void copy_listeners(std::span<const engines::Listener> listeners, std::uint8_t& count,
                    std::uint16_t* ports_be, __u64* cookies) {
  count = static_cast<std::uint8_t>(std::min<std::size_t>(listeners.size(), ST_MAX_LISTENERS));
  for (std::size_t i = 0; i < count; ++i) {
    ports_be[i] = htons(listeners[i].port);
    cookies[i] = listeners[i].cookie;
  }
}

void keep_lost(const st_pod& in_kernel, st_pod& row) {
  for (std::size_t i = 0; i < ST_MAX_LISTENERS; ++i) {
    if (in_kernel.port_v4_be[i] == 0 &&
        in_kernel.listener_cookie_v4[i] == row.listener_cookie_v4[i]) {
      row.port_v4_be[i] = 0;
    }
    if (in_kernel.port_v6_be[i] == 0 &&
        in_kernel.listener_cookie_v6[i] == row.listener_cookie_v6[i]) {
      row.port_v6_be[i] = 0;
    }
  }
}

bool same_listeners(const st_pod& left, const st_pod& right) {
  return left.external == right.external && left.engine_slot == right.engine_slot &&
         left.listeners_v4 == right.listeners_v4 && left.listeners_v6 == right.listeners_v6 &&
         std::ranges::equal(left.port_v4_be, right.port_v4_be) &&
         std::ranges::equal(left.port_v6_be, right.port_v6_be) &&
         std::ranges::equal(left.listener_cookie_v4, right.listener_cookie_v4) &&
         std::ranges::equal(left.listener_cookie_v6, right.listener_cookie_v6);
}

void set_listeners(const RowInput& input, st_pod& row) {
  if (input.listeners) {
    row.engine_slot = input.listeners->slot;
    copy_listeners(input.listeners->listeners.v4, row.listeners_v4, row.port_v4_be,
                   row.listener_cookie_v4);
    copy_listeners(input.listeners->listeners.v6, row.listeners_v6, row.port_v6_be,
                   row.listener_cookie_v6);
    if (input.in_kernel) {
      keep_lost(*input.in_kernel, row);
    }
  } else if (input.in_kernel && input.in_kernel->external == 0) {
    const st_pod& old = *input.in_kernel;
    row.engine_slot = old.engine_slot;
    row.listeners_v4 = old.listeners_v4;
    row.listeners_v6 = old.listeners_v6;
    std::copy(std::begin(old.port_v4_be), std::end(old.port_v4_be), std::begin(row.port_v4_be));
    std::copy(std::begin(old.port_v6_be), std::end(old.port_v6_be), std::begin(row.port_v6_be));
    std::copy(std::begin(old.listener_cookie_v4), std::end(old.listener_cookie_v4),
              std::begin(row.listener_cookie_v4));
    std::copy(std::begin(old.listener_cookie_v6), std::end(old.listener_cookie_v6),
              std::begin(row.listener_cookie_v6));
  }
}

// The first of each family counts. Routes come before what the object says: plain TCP takes its
// source from them, and so does the engine.
void set_own_addresses(const RowInput& input, st_pod& row) {
  const std::vector<st_addr> sources = policy::parse_addresses(input.facts.sources);
  const auto is_source = [&sources](const st_addr& address) {
    return std::ranges::any_of(
        sources, [&](const st_addr& one) { return st_addr_equal(&one, &address) != 0; });
  };
  const auto take = [&row](const st_addr& address) {
    st_addr& own = st_addr_is_v4(&address) != 0 ? row.own_v4 : row.own_v6;
    if (st_addr_is_zero(&own) != 0) {
      own = address;
    }
  };
  for (const st_addr& address : input.intent.addresses) {
    if (is_source(address)) {
      take(address);
    }
  }
  std::ranges::for_each(sources, take);
  std::ranges::for_each(input.intent.addresses, take);
  std::ranges::for_each(policy::parse_addresses(input.facts.addresses), take);
}

st_mode row_mode(const RowInput& input) {
  if (input.intent.state != policy::PodState::kEnrol) {
    return ST_MODE_DISABLED;
  }
  // Without an engine there is nowhere to redirect to; passthrough still gives flows.
  return input.engine == EngineKind::kNone && input.intent.mode == ST_MODE_REDIRECT
             ? ST_MODE_PASSTHROUGH
             : input.intent.mode;
}

}  // namespace

std::uint32_t port_budget(std::uint32_t port_low, std::uint32_t port_high) {
  const std::uint64_t ports = port_high - port_low + 1U;
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(1, ports * 8 / 10));
}

st_pod build_row(const RowInput& input) {
  st_pod row{};
  row.policy_id = input.policy_id;
  row.namespace_slot = input.namespace_slot;
  row.mode = static_cast<std::uint8_t>(row_mode(input));
  row.on_engine_loss = static_cast<std::uint8_t>(input.intent.on_engine_loss);
  row.fast_path = static_cast<std::uint8_t>(input.intent.fast_path);
  row.port_budget = port_budget(input.facts.port_low, input.facts.port_high);
  row.budget_shift = input.facts.reuses_time_wait ? kSecondShift : kMinuteShift;
  set_own_addresses(input, row);
  if (row.mode != ST_MODE_REDIRECT) {
    return row;
  }
  if (input.engine == EngineKind::kExternal) {
    row.external = 1;
    row.engine_slot = ST_EXTERNAL_ENGINE_SLOT;
    row.listeners_v4 = input.external_v4 ? 1 : 0;
    row.listeners_v6 = input.external_v6 ? 1 : 0;
  } else if (input.facts.loopback_up) {
    set_listeners(input, row);
  }
  return row;
}

bool same_row(const st_pod& left, const st_pod& right) {
  return std::memcmp(&left, &right, sizeof(st_pod)) == 0;
}

std::string difference(const st_pod& written, const st_pod& in_kernel) {
  st_pod expected = written;
  keep_lost(in_kernel, expected);
  if (same_row(expected, in_kernel)) {
    return "";
  }
  std::string words;
  const auto add = [&words](bool differs, const char* name) {
    words += !differs ? "" : (words.empty() ? "" : ", ") + std::string(name);
  };
  add(expected.mode != in_kernel.mode, "mode");
  add(expected.policy_id != in_kernel.policy_id, "policy");
  add(expected.on_engine_loss != in_kernel.on_engine_loss, "on-engine-loss");
  add(expected.fast_path != in_kernel.fast_path, "fast path");
  add(!same_listeners(expected, in_kernel), "listeners");
  return words.empty() ? "numbers" : words;
}

bool has_lost_listener(const st_pod& row) {
  if (row.external != 0) {
    return false;
  }
  for (std::size_t i = 0; i < row.listeners_v4; ++i) {
    if (row.port_v4_be[i] == 0) {
      return true;
    }
  }
  for (std::size_t i = 0; i < row.listeners_v6; ++i) {
    if (row.port_v6_be[i] == 0) {
      return true;
    }
  }
  return false;
}

bool has_listener(const st_pod& row) {
  if (row.external != 0) {
    return row.listeners_v4 != 0 || row.listeners_v6 != 0;
  }
  const auto any = [](const std::uint16_t* ports, std::uint8_t count) {
    return std::any_of(ports, ports + count, [](std::uint16_t port) { return port != 0; });
  };
  return any(row.port_v4_be, row.listeners_v4) || any(row.port_v6_be, row.listeners_v6);
}

}  // namespace sidetrack::reconcile
