// SPDX-License-Identifier: Apache-2.0
// The admin API (docs/api.md): requests answered from the Views. No I/O of its own; thread rule:
// that of the Views.
#pragma once

#include "agent/admin/request.h"
#include "agent/admin/views.h"

namespace sidetrack::admin {

// `views` must outlive the handler.
[[nodiscard]] Handler make_api(Views& views);

}  // namespace sidetrack::admin
