// SPDX-License-Identifier: Apache-2.0
// ScaleNode: the fixture of the tests of limits: a lab node, a namespace "shop" in mode redirect,
// an agent and, unless a test wants another one, the embedded engine. Thread rule: one owner.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/lab/cgroup.h"
#include "tests/lab/echo_server.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/pod_shell.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {

class ScaleNode : public testing::Test {
 protected:
  // Cgroup, objects folder, lab and the namespace; skips without root.
  void SetUp() override;
  // A pod of the lab, not known to the agent yet.
  Pod& plain_pod(const std::string& name);
  // ... and one that has an object in "shop".
  Pod& meshed_pod(const std::string& name, const StringMap& annotations = {});
  // Agent and engine, with the lab's node as their place.
  void start_sidetrack(SidetrackOptions options = {});
  // Only makes it: the test starts what it wants.
  void make_sidetrack(SidetrackOptions options = {});
  void wait_until_enrolled(const std::string& pod, const std::string& mode = "redirect");
  std::unique_ptr<PodShell> shell_in(const Pod& pod);
  std::unique_ptr<EchoServer> echo_in(const Pod& pod, const std::vector<std::string>& listeners);
  [[nodiscard]] Place place(const Pod& pod) const { return {pod.netns.path(), cgroup_->path()}; }
  // Of the namespace "shop", from the kernel's counters; 0 if it never came up.
  std::uint64_t counted(const std::string& reason) const;
  // {verdict, reason} of /v1/explain as "redirected/redirected", with "!" when it differs from the
  // compiled policy.
  std::string explain(const std::string& pod, const std::string& destination) const;
  // Rows of a map, by /v1/status.
  std::uint64_t map_entries(const std::string& map) const;

  // Members are destroyed from the last to the first.
  std::unique_ptr<TestCgroup> cgroup_;
  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<Objects> objects_;
  std::unique_ptr<Lab> lab_;
  std::unique_ptr<Sidetrack> sidetrack_;
};

}  // namespace sidetrack::lab
