// SPDX-License-Identifier: Apache-2.0
// DeviationsPair: probes in both pods of a Pair, beside the servers of probe_server.py. Thread
// rule: one owner.
#pragma once

#include <string>
#include <vector>

#include "tests/e2e/pair.h"

namespace sidetrack::lab {

class DeviationsPair : public Pair {
 protected:
  void SetUp() override {
    Pair::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    serve_probes();
    host_ = server_->v4;
  }

  // A step of `file`, one of clients/.
  static Client step_of(const std::string& file, const std::string& step,
                        const std::vector<std::string>& arguments) {
    Client client{{"python3", client_file(file), step}};
    client.arguments.insert(client.arguments.end(), arguments.begin(), arguments.end());
    return client;
  }
  static Client probe(const std::string& step, const std::vector<std::string>& arguments) {
    return step_of("probe.py", step, arguments);
  }
  void expect(const Client& client, const std::string& direct, const std::string& redirected) {
    const Outcomes outcomes = run_both(client);
    EXPECT_EQ(outcomes.direct.output, direct) << "direct";
    EXPECT_EQ(outcomes.redirected.output, redirected) << "redirected";
  }
  void expect_both(const Client& client, const std::string& output) {
    expect(client, output, output);
  }
  // Of one pod: "-A INPUT ...". `program`: ip6tables for IPv6.
  static void iptables(const Pod& pod, const std::string& arguments,
                       const std::string& program = "iptables") {
    ST_ASSERT_VALUE(const auto done,
                    run_command({.arguments = {"sh", "-c", program + " -w " + arguments},
                                 .netns_path = pod.netns.path()}));
    EXPECT_EQ(done.exit_status, 0) << done.output;
  }

  std::string host_;
};

}  // namespace sidetrack::lab
