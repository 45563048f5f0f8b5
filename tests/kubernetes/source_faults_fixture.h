// SPDX-License-Identifier: Apache-2.0
// FaultsTest: a real API server for all tests of the program, a fault proxy and a node's name for
// each.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "tests/kubernetes/source_cluster.h"
#include "tests/kubernetes/source_loop.h"
#include "tests/kubernetes/source_proxy.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::tests {

class FaultsTest : public testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;

  // Waits for nothing: the source reads what is there.
  [[nodiscard]] kube::KubernetesSettings settings() const;
  // Settings that do not try the streaming list.
  [[nodiscard]] kube::KubernetesSettings listing() const;
  void write_token(const std::string& token) const;
  // That the token above is for `server`, "https://127.0.0.1:PORT"; SetUp() writes the proxy's.
  void write_kubeconfig(const std::string& server) const;
  [[nodiscard]] static const std::string& token() { return token_; }

  void add_pod(const std::string& name) const;
  void remove_pod(const std::string& name) const;
  // Runs until `name` is known.
  [[nodiscard]] static bool sees(SourceLoop& loop, const std::string& name);
  // The rule holds for so long; what was known stays so all the time.
  void expect_unshaken(SourceLoop& loop, const std::string& pod, FaultProxy::Rule rule,
                       std::chrono::milliseconds time);
  // A change gets through, once the fault is over.
  void expect_recovery(SourceLoop& loop, const std::string& new_pod);

  static inline std::unique_ptr<RealApi> api_;
  static inline std::string token_;
  std::optional<lab::TempDir> folder_;
  std::unique_ptr<FaultProxy> proxy_;
  std::string node_;
};

// A rule for watches and lists of pods only.
[[nodiscard]] FaultProxy::Rule for_pods(FaultProxy::Rule rule);
// A rule for watches that are no lists.
[[nodiscard]] FaultProxy::Rule for_watches(FaultProxy::Rule rule);
// What the server says, in single bytes, at most 64 of them in a millisecond.
[[nodiscard]] FaultProxy::Rule byte_by_byte(const FaultProxy& proxy);
// Takes the request and says nothing.
[[nodiscard]] FaultProxy::Rule no_answer();
[[nodiscard]] FaultProxy::Rule answer_with(int status, std::string reason,
                                           std::string headers = "");

}  // namespace sidetrack::tests
