// SPDX-License-Identifier: Apache-2.0
// Whether our DaemonSet is still there: what the API server says of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "agent/kube/api_client.h"
#include "agent/kube/kubeconfig.h"

namespace sidetrack::kube {

enum class Existence : std::uint8_t {
  kExists,
  kGone,       // or being deleted
  kNoAccount,  // the API server does not know our account (any more): it went with our DaemonSet
  kNoRight,    // we may not ask: nobody gave us the right, or it has just gone
  kUnknown,    // the API server did not answer, or something else did
};

[[nodiscard]] ApiRequest daemonset_request(const std::string& namespace_name,
                                           const std::string& name,
                                           std::chrono::milliseconds limit);
// Of the answer to it; `body`: of a 2xx one. Pure.
[[nodiscard]] Existence daemonset_existence(const ApiOutcome& outcome, const std::string& body);

struct Patience {
  std::chrono::milliseconds answer;
  // What takes everything of ours away takes our rights first and our account then, which an API
  // server goes on believing in for ten seconds: so long a refusal says nothing.
  std::chrono::milliseconds refusal;
};
// Asks until it is known to exist or to be gone, or `answer` is over; then what was last said of
// it, kUnknown if nothing was. Each kNoRight of the first `refusal` gives it as much again.
// Blocking. kInternal: the client cannot start.
[[nodiscard]] Result<Existence> ask_daemonset(const ApiConfig& config,
                                              const std::string& namespace_name,
                                              const std::string& name, Patience patience);

}  // namespace sidetrack::kube
