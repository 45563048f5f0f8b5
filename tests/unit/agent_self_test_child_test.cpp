// SPDX-License-Identifier: Apache-2.0
// The self-test's process, played by a script.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include <boost/asio/io_context.hpp>

#include "agent/main/self_test_child.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::agent {
namespace {

TEST(SelfTestChild, that_could_not_be_run_can_be_started_again) {
  const auto folder = lab::TempDir::create("self-test");
  ASSERT_TRUE(folder) << folder.error().message;
  const std::string script = folder->file("program");
  const std::string output = folder->file("output");
  std::ofstream(script) << "#!/bin/sh\nexec cat " << output << "\n";
  chmod(script.c_str(), 0700);
  boost::asio::io_context context;
  SelfTestChild child(context, script);
  int pipes[2] = {-1, -1};
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  const UniqueFd netns(pipes[0]);  // any descriptor: nobody enters it
  const UniqueFd other(pipes[1]);
  const auto run = [&](const std::string& says) {
    std::ofstream(output) << says;
    std::optional<Result<selftest::Report>> report;
    const auto started = child.start({}, netns, [&](const auto& made) { report = made; });
    EXPECT_TRUE(started);
    context.restart();
    context.run();
    return report.value_or(make_error(ErrorCode::kInternal, "no report came"));
  };
  const auto failed = run("sidetrack-agent: fork: too many open files\n");
  ASSERT_FALSE(failed);
  EXPECT_NE(failed.error().message.find("too many open files"), std::string::npos);
  const selftest::Report good{.checks = {{.name = "order", .passed = true, .detail = "seen"}},
                              .charges_reader = true};
  const auto passed = run(selftest::to_json(good));
  ASSERT_TRUE(passed) << passed.error().message;
  EXPECT_TRUE(passed->passed());
}

}  // namespace
}  // namespace sidetrack::agent
