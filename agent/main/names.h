// SPDX-License-Identifier: Apache-2.0
// The words of the API (interfaces in docs/api.md) for the enumerations of the ABI.
#pragma once

#include <string>
#include <vector>

#include "agent/policy/policy.h"
#include "sidetrack/abi/types.h"

namespace sidetrack::agent {

[[nodiscard]] std::string reason_name(unsigned reason);
[[nodiscard]] std::string verdict_name(unsigned reason);
[[nodiscard]] std::string path_name(unsigned path);
[[nodiscard]] std::string close_name(unsigned close);  // empty = still open
[[nodiscard]] std::string mode_name(unsigned mode);
[[nodiscard]] std::string fast_path_name(unsigned fast_path);
[[nodiscard]] std::string on_engine_loss_name(unsigned value);
// What a person is told about a verdict.
[[nodiscard]] std::string reason_sentence(unsigned reason);

// What happens to a connection of that verdict to a Service that has no endpoint.
[[nodiscard]] std::string no_endpoint_sentence(const std::string& service, unsigned reason);

// Which mistake makes the pod's mode passthrough; empty: none does. `problems` are those that were
// found when it was resolved.
[[nodiscard]] std::string mistake_sentence(const policy::PodIntent& intent,
                                           const std::vector<kube::Problem>& problems);

}  // namespace sidetrack::agent
