// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/tokio_program.h"

#include <filesystem>

#include "tests/lab/process.h"
#include "tests/lab/registry.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

const milliseconds kBuild = scaled(milliseconds(100'000));

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
    return fetch_error(built->output);
  }
  return (folder / "debug" / "fast_rust").string();
}

}  // namespace sidetrack::lab
