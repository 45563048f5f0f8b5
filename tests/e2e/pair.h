// SPDX-License-Identifier: Apache-2.0
// Pair: the same client program, run once in a pod that is not enrolled (the control) and once in
// one of mode redirect, towards the same servers. The kernel's counters say that each of them went
// the way it was meant to. Thread rule: one owner.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/lab/cgroup.h"
#include "tests/lab/echo_server.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/process.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

// Long enough for a cold Java virtual machine on a busy machine.
inline constexpr milliseconds kClientPatience{50'000};

struct Client {
  std::vector<std::string> arguments{};
  std::string input{};
};

// How the same client ended in either pod.
struct Outcomes {
  CommandResult direct;
  CommandResult redirected;
  std::uint64_t redirects = 0;  // connections that the second run had redirected
};

// The pods and Sidetrack are made once per test program, servers and files per test.
class Pair : public testing::Test {
 protected:
  static void TearDownTestSuite();
  void SetUp() override;

  // Runs it in both pods. Fails the test if a run does not end in time, the control was redirected
  // or the other one was not.
  [[nodiscard]] Outcomes run_both(const Client& client);
  // run_both, and both must succeed and say exactly the same, something at all.
  void expect_same(const Client& client);
  // As expect_same, of a client that prints a line for each server that failed it: `name` is its
  // row in the table of complaints.cpp.
  void expect_same_complaints(const std::string& name, const Client& client);

  // A program in the server's pod; the test fails unless it says `ready`.
  void serve(std::vector<std::string> arguments, const std::string& ready);
  // ... or in another one.
  void serve_in(const Pod& pod, std::vector<std::string> arguments, const std::string& ready);
  // probe_server.py there.
  void serve_probes();
  // An echo server of the lab there: {"echo:7000"}.
  void serve_echo(const std::vector<std::string>& listeners);
  // Waits until something listens on a TCP port of the server's pod, or of another one.
  void wait_for_listener(std::uint16_t port) { wait_for_listener(*server_, port); }
  void wait_for_listener(const Pod& pod, std::uint16_t port);

  // clients/NAME.
  static std::string client_file(const std::string& name);
  // A file of the test's folder with `size` bytes that are no two places alike.
  [[nodiscard]] std::string make_file(const std::string& name, std::size_t size) const;
  [[nodiscard]] std::string write_file(const std::string& name, const std::string& text) const;
  static bool installed(const std::string& program);

  // Connections of namespace shop that were redirected.
  [[nodiscard]] static std::uint64_t redirected_count();
  // Runs `commands` of ip(8) in both client pods.
  static void in_both_pods(const std::string& commands);

  static inline std::unique_ptr<TestCgroup> cgroup_;
  static inline std::unique_ptr<TempDir> objects_folder_;
  static inline std::unique_ptr<Objects> objects_;
  static inline std::unique_ptr<Lab> lab_;
  static inline Pod* web_ = nullptr;     // shop/web: redirect
  static inline Pod* plain_ = nullptr;   // depot/plain: not enrolled
  static inline Pod* server_ = nullptr;  // depot/server: not enrolled
  static inline std::unique_ptr<Sidetrack> sidetrack_;
  std::unique_ptr<TempDir> folder_;  // of the test: files, configurations, data
  std::vector<std::unique_ptr<Process>> servers_;
  std::unique_ptr<EchoServer> echo_;

 private:
  // Not SetUpTestSuite: when that fails, a case of its own counts as skipped.
  static void set_up_pods();
  static inline bool ready_ = false;
  [[nodiscard]] static CommandResult run_in(const Pod& pod, const Client& client);
};

}  // namespace sidetrack::lab
