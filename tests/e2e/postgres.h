// SPDX-License-Identifier: Apache-2.0
// A PostgreSQL of the test's own.
#pragma once

#include <string>
#include <vector>

#include "sidetrack/result.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

// What it says when it can be used.
inline constexpr const char* kPostgresReady = "database system is ready to accept connections";

// The newest of /usr/lib/postgresql/N/bin; empty: none.
std::string postgres_folder();

// Makes a cluster in the new folder `data` and gives the command that serves it on port 5432, both
// as a user that is not root (PostgreSQL insists). Its superuser is "tester".
Result<std::vector<std::string>> make_postgres(const std::string& data, milliseconds within);

}  // namespace sidetrack::lab
