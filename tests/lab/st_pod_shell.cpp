// SPDX-License-Identifier: Apache-2.0
// st_pod_shell: reads socket commands from stdin, one a line, and answers each with one line of
// JSON. It stands where a pod's application would: in the pod's netns and in the cgroup under test,
// as the hooks look at the calling process. The commands: tests/lab/README.md. Ends at the end of
// its stdin.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "tests/lab/shell_burst.h"
#include "tests/lab/shell_sockets.h"

int main() {
  ::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);

  sidetrack::lab::ShellSockets sockets;
  for (std::string line; std::getline(std::cin, line);) {
    const sidetrack::lab::Words words(line);
    const nlohmann::json answer = words.at(0) == "burst" ? run_burst(words) : sockets.run(words);
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}
