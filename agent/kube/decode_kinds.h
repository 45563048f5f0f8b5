// SPDX-License-Identifier: Apache-2.0
// From the fields of one object to the struct of its kind; decode.h chooses. Internal to
// agent/kube.
#pragma once

#include "agent/kube/decode.h"
#include "agent/kube/fields.h"

namespace sidetrack::kube {

// Each notes what it cannot use as issues of `object`.
[[nodiscard]] Object decode_namespace(const Field& object);
[[nodiscard]] Object decode_node(const Field& object);
[[nodiscard]] Object decode_pod(const Field& object);
[[nodiscard]] Object decode_service(const Field& object);
[[nodiscard]] Object decode_endpoint_slice(const Field& object);

}  // namespace sidetrack::kube
