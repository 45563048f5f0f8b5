// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/postgres.h"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/lab/process.h"

namespace sidetrack::lab {

std::string postgres_folder() {
  std::string newest;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
    const std::string folder = entry.path().string() + "/bin";
    if (std::filesystem::exists(folder + "/initdb") && folder > newest) {
      newest = folder;
    }
  }
  return newest;
}

Result<std::vector<std::string>> make_postgres(const std::string& data, milliseconds within) {
  const std::string programs = postgres_folder();
  const passwd* nobody = ::getpwnam("nobody");
  if (programs.empty() || nobody == nullptr) {
    return make_error(ErrorCode::kNotFound, "no PostgreSQL, or no user \"nobody\"");
  }
  if (::mkdir(data.c_str(), 0700) != 0 ||
      ::chown(data.c_str(), nobody->pw_uid, nobody->pw_gid) != 0) {
    return errno_error("make \"" + data + "\"", errno);
  }
  const std::vector<std::string> as_nobody = {"setpriv", fmt::format("--reuid={}", nobody->pw_uid),
                                              fmt::format("--regid={}", nobody->pw_gid),
                                              "--clear-groups"};
  std::vector<std::string> make = as_nobody;
  make.insert(make.end(), {programs + "/initdb", "-D", data, "-A", "trust", "-U", "tester", "-E",
                           "UTF8", "--locale=C", "--no-sync"});
  const auto made = run_command({.arguments = make, .within = within});
  ST_TRY(made);
  if (made->exit_status != 0) {
    return make_error(ErrorCode::kInternal, "initdb: " + made->output);
  }
  std::ofstream(data + "/pg_hba.conf", std::ios::app)
      << "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
  std::vector<std::string> run = as_nobody;
  run.insert(run.end(), {programs + "/postgres", "-D", data, "-c", "listen_addresses=*", "-c",
                         "unix_socket_directories=", "-c", "fsync=off", "-c", "jit=off"});
  return run;
}

}  // namespace sidetrack::lab
