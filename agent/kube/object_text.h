// SPDX-License-Identifier: Apache-2.0
// From the structs of model.h back to the JSON of a Kubernetes object, as far as the structs know
// it: decode() of the text gives the same struct. For the objects kept on disk. Pure.
#pragma once

#include <string>

#include "agent/kube/decode.h"

namespace sidetrack::kube {

// One line without its end.
[[nodiscard]] std::string to_text(const Object& object);

// Empties what is in no rule of Sidetrack's and would fill the memory of a large cluster: labels
// and annotations of Services and EndpointSlices, annotations of Nodes, the copy of itself that
// kubectl puts into an object.
void drop_unused(Object& object);

}  // namespace sidetrack::kube
