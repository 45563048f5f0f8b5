// SPDX-License-Identifier: Apache-2.0
#include "agent/main/names.h"

#include <algorithm>
#include <array>

#include "sidetrack/decide.h"

namespace sidetrack::agent {

namespace {

template <std::size_t N>
std::string word(const std::array<const char*, N>& words, unsigned index) {
  return index < N ? words[index] : "unknown";
}

}  // namespace

std::string reason_name(unsigned reason) {
  static constexpr std::array kNames = {
#define ST_REASON(NAME, name, verdict) #name,
#include "sidetrack/abi/counters.def"
#undef ST_REASON
  };
  return word(kNames, reason);
}

std::string verdict_name(unsigned reason) {
  static constexpr std::array kNames = {"redirected", "direct", "refused"};
  return word(kNames, reason < ST_REASON_COUNT
                          ? static_cast<unsigned>(st_verdict_of(static_cast<st_reason>(reason)))
                          : 1U);
}

std::string path_name(unsigned path) {
  static constexpr std::array kNames = {"direct", "engine", "fast", "handoff"};
  return word(kNames, path);
}

std::string close_name(unsigned close) {
  static constexpr std::array kNames = {"",        "fin",     "rst_local", "rst_remote",
                                        "refused", "timeout", "killed"};
  return word(kNames, close);
}

std::string mode_name(unsigned mode) {
  static constexpr std::array kNames = {"disabled", "passthrough", "redirect"};
  return word(kNames, mode);
}

std::string fast_path_name(unsigned fast_path) {
  static constexpr std::array kNames = {"off", "auto", "node"};
  return word(kNames, fast_path);
}

std::string on_engine_loss_name(unsigned value) {
  static constexpr std::array kNames = {"open", "closed"};
  return word(kNames, value);
}

std::string reason_sentence(unsigned reason) {
  switch (static_cast<st_reason>(reason)) {
    case ST_REASON_REDIRECTED:
      return "It goes to the node's engine, which connects to the destination from the pod's own "
             "address.";
    case ST_REASON_NOT_TCP:
      return "Only TCP is ever redirected.";
    case ST_REASON_NOT_ENROLLED:
      return "The pod is not enrolled: its connections are left alone.";
    case ST_REASON_UNKNOWN_NETNS:
      return "No row for the pod's network namespace is in the kernel: its connections are left "
             "alone.";
    case ST_REASON_ENGINE_SOCKET:
      return "It is a connection of the engine itself.";
    case ST_REASON_PASSTHROUGH:
      return "The mode is passthrough: it goes directly and is only observed.";
    case ST_REASON_LOCAL_DESTINATION:
      return "Loopback, link-local, multicast, the pod's own addresses and the engine's are never "
             "redirected.";
    case ST_REASON_BOUND_DEVICE:
      return "The socket is bound to a device and could not reach the engine.";
    case ST_REASON_TRANSPARENT:
      return "The socket is transparent (IP_TRANSPARENT).";
    case ST_REASON_MPTCP:
      return "It is an MPTCP socket: left direct.";
    case ST_REASON_EXCLUDED_PORT:
      return "An excluded port: left fully alone.";
    case ST_REASON_EXCLUDED_CIDR:
      return "An excluded address range: left fully alone.";
    case ST_REASON_NOT_INCLUDED:
      return "An include list is present and the destination is not on it.";
    case ST_REASON_ENGINE_DOWN:
      return "No engine is alive for this pod: it goes directly (on-engine-loss: open).";
    case ST_REASON_ENGINE_FULL:
      return "The engine is full: it goes directly.";
    case ST_REASON_PORT_BUDGET:
      return "The pod's local ports for redirected connections are used up: it goes directly.";
    case ST_REASON_BYPASS:
      return "The node's emergency switch is on (`sidetrackctl bypass off` ends it): everything "
             "goes directly.";
    case ST_REASON_INTERNAL_ERROR:
      return "There was no memory for the connection's state: it goes directly.";
    case ST_REASON_ENGINE_DOWN_CLOSED:
      return "No engine can take it and the pod says on-engine-loss: closed: connect() fails with "
             "ECONNREFUSED.";
    case ST_REASON_NO_ORIGINAL_DESTINATION:
      return "The engine refused a connection that was not redirected to it.";
    case ST_REASON_BOUND_PORT:
      return "The socket is bound to a port that others may share (SO_REUSEADDR, SO_REUSEPORT): "
             "left direct.";
    case ST_REASON_COUNT:
      break;
  }
  return "";
}

std::string no_endpoint_sentence(const std::string& service, unsigned reason) {
  const std::string why = "Service " + service +
                          " has no endpoint that is ready for this node: the connection is refused";
  return reason == ST_REASON_REDIRECTED
             ? why + ", by the engine; the application sees a reset after connect()."
             : why + " by what serves the Service's address (kube-proxy).";
}

std::string mistake_sentence(const policy::PodIntent& intent,
                             const std::vector<kube::Problem>& problems) {
  const policy::Origin& cause = intent.mode_origin;
  const auto mistake = std::ranges::find_if(problems, [&](const kube::Problem& problem) {
    return !problem.warning && problem.object == cause.object && problem.key == cause.key;
  });
  if (intent.state != policy::PodState::kEnrol || intent.reason.empty() ||
      mistake == problems.end()) {
    return "";
  }
  return "A mistake makes the mode passthrough: " + mistake->object + " " + mistake->key +
         (mistake->value.empty() ? "" : " = " + mistake->value) + ": " + mistake->reason + ".";
}

}  // namespace sidetrack::agent
