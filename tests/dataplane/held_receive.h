// SPDX-License-Identifier: Apache-2.0
// FaultingPage: memory in which a system call stops until it is filled. HeldReceive: a recv() of
// another thread that has chosen to read the queue of TCP and has not yet got the socket's lock.
// First the lock is held, by a send() that stops in such a page; after unlock() it is free, and the
// thread does not get a processor, unless the machine is so busy that even the last one has its
// turn. Thread rule: one owner.
#pragma once

#include <linux/userfaultfd.h>

#include <array>
#include <atomic>
#include <future>
#include <string>
#include <thread>

#include "sidetrack/unique_fd.h"

namespace sidetrack::lab {

class FaultingPage {
 public:
  static constexpr std::size_t kSize = 4096;

  FaultingPage();
  ~FaultingPage();
  FaultingPage(const FaultingPage&) = delete;
  FaultingPage& operator=(const FaultingPage&) = delete;

  [[nodiscard]] char* memory() const { return static_cast<char*>(page_); }
  void wait_for_fault() const;
  // With zeroes; the call goes on.
  void fill() const;

 private:
  UniqueFd faults_;
  void* page_;
  uffdio_range range_;
};

class HeldReceive {
 public:
  // Returns when it is held. `fd` stays the caller's, and sends one byte of zero.
  explicit HeldReceive(const UniqueFd& fd);
  ~HeldReceive();
  HeldReceive(const HeldReceive&) = delete;
  HeldReceive& operator=(const HeldReceive&) = delete;

  // Others may use the socket from here on.
  void unlock();
  [[nodiscard]] bool held() const;
  // Lets the recv() go on; what it read.
  std::string finish();

 private:
  FaultingPage page_;
  std::future<ssize_t> lock_;
  std::atomic<bool> finish_{false};
  std::array<std::thread, 2> hogs_;
  std::future<std::string> result_;
};

// Whether the thread is inside recvfrom(2) and waits there.
[[nodiscard]] bool waits_in_receive(pid_t thread);

}  // namespace sidetrack::lab
