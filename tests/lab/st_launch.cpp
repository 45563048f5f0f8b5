// SPDX-License-Identifier: Apache-2.0
// st_launch PARENT_PID CGROUP NETNS PROGRAM [ARGUMENT...]: joins the cgroup folder and the network
// namespace (each may be empty), then becomes the program, with the pid it has. Descriptor 3 closes
// when that has come about, or says why not. It exists because a test process has threads, and a
// forked child of such may only exec: everything between fork and exec happens here instead.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kStatusFd = 3;

int fail(const std::string& what) {
  const std::string message = what + ": " + std::strerror(errno);
  (void)!::write(kStatusFd, message.data(), message.size());
  return 127;
}

bool join_cgroup(const std::string& cgroup) {
  const int procs = ::open((cgroup + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC);
  return procs >= 0 && ::write(procs, "0", 1) == 1;
}

bool join_netns(const char* netns) {
  const int fd = ::open(netns, O_RDONLY | O_CLOEXEC);
  return fd >= 0 && ::setns(fd, CLONE_NEWNET) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: st_launch PARENT_PID CGROUP NETNS PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  ::fcntl(kStatusFd, F_SETFD, FD_CLOEXEC);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != std::atoi(argv[1])) {
    return 127;  // the parent died before the line above
  }
  if (*argv[2] != '\0' && !join_cgroup(argv[2])) {
    return fail(std::string("join cgroup ") + argv[2]);
  }
  if (*argv[3] != '\0' && !join_netns(argv[3])) {
    return fail(std::string("enter netns ") + argv[3]);
  }
  ::execvp(argv[4], argv + 4);
  return fail(std::string("run ") + argv[4]);
}
