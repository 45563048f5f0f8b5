// SPDX-License-Identifier: Apache-2.0
// What the chart's pod runs before its agent is ended (preStop; also when a probe ends it). An
// agent that answers takes everything back itself when its DaemonSet is gone; one that hangs
// cannot, and its node must start pods and connect them all the same.
#pragma once

#include "agent/main/options.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

// Where no agent answers and the API server says that our DaemonSet is gone, or knows our account
// no more: no connection is redirected from then on, and the plugin is out of the CNI
// configuration. Otherwise nothing is changed. Prints what it found; takes up to 10 s, or 20 where
// the API server refuses to say. kInvalid: --daemonset or --namespace is missing; kIo: nobody says
// whether the DaemonSet is there.
[[nodiscard]] Result<void> leave(const Options& options);

}  // namespace sidetrack::agent
