// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/tokio_program.h"

#include <filesystem>

#include "tests/lab/process.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

const milliseconds kBuild = scaled(milliseconds(100'000));

bool registry_is_away(const std::string& output) {
  for (const char* sign : {"network error", "Could not resolve host", "Could not connect",
                           "failed to query replaced source", "Timeout was reached"}) {
    if (output.find(sign) != std::string::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

Result<std::string> build_tokio_program() {
  const std::string cargo = ST_CARGO;
  if (cargo.empty()) {
    return make_error(ErrorCode::kNotFound, "no cargo was there when this was configured");
  }
  const auto folder = std::filesystem::temp_directory_path() / "sidetrack-test-tokio";
  const std::string manifest = std::string(ST_PROGRAMS_DIR) + "/fast_rust/Cargo.toml";
  auto built = run_command({.arguments = {cargo, "build", "--quiet", "--locked", "--manifest-path",
                                          manifest, "--target-dir", folder.string()},
                            .within = kBuild});
  if (!built) {
    return built.error();
  }
  if (built->exit_status != 0) {
    return make_error(registry_is_away(built->output) ? ErrorCode::kNotFound : ErrorCode::kInternal,
                      built->output);
  }
  return (folder / "debug" / "fast_rust").string();
}

}  // namespace sidetrack::lab
