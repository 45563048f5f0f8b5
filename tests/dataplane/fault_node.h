// SPDX-License-Identifier: Apache-2.0
// FaultNode: the fixture of the tests of faults: pod shop/web (mode redirect) as client, pod api
// (not enrolled) as server, agent and embedded engine. Thread rule: one owner.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "tests/dataplane/kernel_view.h"
#include "tests/dataplane/traffic.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/echo_server.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/pod_shell.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {

using Counts = std::map<std::string, std::uint64_t>;

class FaultNode : public testing::Test {
 protected:
  static constexpr std::uint16_t kEcho = 7000;

  // Everything but Sidetrack; a test starts that with the options it wants.
  void SetUp() override;
  void make_sidetrack(SidetrackOptions options = {});
  // Agent, engine, and web enrolled.
  void start_sidetrack(SidetrackOptions options = {});
  void put_web(const std::string& name = "web", const StringMap& labels = {});
  void wait_enrolled(const std::string& name = "web");
  void start_echo(const std::vector<std::string>& listeners = {"echo:7000"});
  std::unique_ptr<PodShell> shell_in(const Pod& pod) const;
  [[nodiscard]] Place place(const Pod& pod) const { return {pod.netns.path(), cgroup_->path()}; }

  // Of the namespace shop, from the kernel.
  [[nodiscard]] Counts counted() const;
  // What was counted since `before`.
  [[nodiscard]] Counts since(const Counts& before) const;
  [[nodiscard]] st_pod row() const;
  // The maps as they are pinned, with or without an agent.
  [[nodiscard]] KernelView kernel() const { return KernelView(sidetrack_->pin_dir()); }
  // Of the agent, as it counts them.
  [[nodiscard]] std::uint64_t repairs() const;
  // Verdict of the kernel's rows for a connect of `pod` to the echo server: "engine_down".
  [[nodiscard]] std::string explain(const std::string& pod = "web") const;
  [[nodiscard]] bool eventually_explains(const std::string& reason) const;
  // `count` connections of web to an echo server, all of which must succeed for `reason`.
  void expect_connections(std::uint64_t count, const std::string& reason,
                          std::uint16_t port = kEcho);
  // One message there and back on an open connection.
  static void expect_alive(PodShell& shell, int id, std::uint64_t length = 4096);

  // Members are destroyed from the last to the first.
  std::unique_ptr<TestCgroup> cgroup_;
  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<Objects> objects_;
  std::unique_ptr<Lab> lab_;
  Pod* web_ = nullptr;
  Pod* api_ = nullptr;
  std::string api_v4_;
  std::uint64_t cookie_ = 0;  // of web's netns
  std::unique_ptr<Sidetrack> sidetrack_;
  std::unique_ptr<EchoServer> echo_;
  std::unique_ptr<PodShell> shell_;  // in web
};

// Nothing went wrong, every answer was right.
void expect_clean(const BurstResult& burst, std::uint64_t count, const std::string& logs);

}  // namespace sidetrack::lab
