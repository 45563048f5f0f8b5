// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/held_receive.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>

#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

void stay_on(int processor) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(processor, &only);
  EXPECT_EQ(::sched_setaffinity(0, sizeof(only), &only), 0);
}

// The thread runs only when nobody else wants its processor.
void make_last(pid_t thread) {
  const sched_param none{};
  EXPECT_EQ(::sched_setscheduler(thread, SCHED_IDLE, &none), 0);
}

std::string receive_at_once(int fd) {
  std::array<char, 64> bytes{};
  const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
  return {bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

}  // namespace

FaultingPage::FaultingPage()
    // poll() works on non-blocking ones only (fs/userfaultfd.c).
    : faults_(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))),
      page_(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
      range_{.start = reinterpret_cast<std::uintptr_t>(page_), .len = kSize} {
  uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
  uffdio_register watched{.range = range_, .mode = UFFDIO_REGISTER_MODE_MISSING, .ioctls = 0};
  EXPECT_EQ(::ioctl(faults_.get(), UFFDIO_API, &api), 0);
  EXPECT_EQ(::ioctl(faults_.get(), UFFDIO_REGISTER, &watched), 0);
}

FaultingPage::~FaultingPage() {
  ::munmap(page_, kSize);
}

void FaultingPage::wait_for_fault() const {
  pollfd fault{faults_.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&fault, 1, static_cast<int>(kPatience.count())), 1);
  EXPECT_EQ(fault.revents, POLLIN);
}

void FaultingPage::fill() const {
  uffdio_zeropage zero{.range = range_, .mode = 0, .zeropage = 0};
  EXPECT_EQ(::ioctl(faults_.get(), UFFDIO_ZEROPAGE, &zero), 0);
}

HeldReceive::HeldReceive(const UniqueFd& fd) {
  lock_ = std::async(std::launch::async,
                     [this, fd = fd.get()] { return ::send(fd, page_.memory(), 1, MSG_NOSIGNAL); });
  page_.wait_for_fault();
  const int processor = ::sched_getcpu();
  std::atomic<pid_t> thread{0};
  result_ = std::async(std::launch::async, [&thread, fd = fd.get(), processor] {
    stay_on(processor);
    thread = ::gettid();
    return receive_at_once(fd);
  });
  EXPECT_TRUE(eventually(kPatience, [&] { return thread != 0 && waits_in_receive(thread); }));
  make_last(thread);
  // Two, of which one is always due before it.
  for (std::thread& hog : hogs_) {
    hog = std::thread([this, processor] {
      stay_on(processor);
      while (!finish_) {
      }
    });
  }
}

void HeldReceive::unlock() {
  page_.fill();
  EXPECT_EQ(lock_.get(), 1);
}

bool HeldReceive::held() const {
  return result_.wait_for(milliseconds(0)) == std::future_status::timeout;
}

std::string HeldReceive::finish() {
  finish_ = true;
  return result_.get();
}

HeldReceive::~HeldReceive() {
  finish_ = true;
  if (lock_.valid()) {
    page_.fill();
  }
  for (std::thread& hog : hogs_) {
    hog.join();
  }
}

bool waits_in_receive(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/syscall");
  std::string number;
  return file >> number && number == std::to_string(SYS_recvfrom);
}

}  // namespace sidetrack::lab
