// SPDX-License-Identifier: Apache-2.0
// `onAgentDown: deny` has an end: the built plugin, and a list that was touched at some time.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <ctime>
#include <string>

#include "cni/plugin/system.h"
#include "tests/unit/cni_agent_thread.h"
#include "tests/unit/cni_plugin_fixture.h"

namespace sidetrack::cni {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;

seconds time_of(clockid_t clock) {
  timespec time{};
  EXPECT_EQ(::clock_gettime(clock, &time), 0);
  return seconds(time.tv_sec);
}

class CniDenyFor : public CniPluginTest {
 protected:
  void deny_for(seconds bound) {
    keys = ", \"timeoutMs\": 100, \"onAgentDown\": \"deny\", \"enrolledNamespaces\": \"" +
           folder->file("enrolled") + "\", \"logFile\": \"" + folder->file("log") +
           "\", \"denyForSeconds\": " + std::to_string(bound.count());
  }
  // The list, and when an agent was there last, in seconds since 1970.
  void touched(seconds when) const {
    write("enrolled", "shop\n");
    const timespec time{.tv_sec = when.count(), .tv_nsec = 0};
    const timespec times[] = {time, time};
    ASSERT_EQ(::utimensat(AT_FDCWD, folder->file("enrolled").c_str(), times, 0), 0);
  }
  void expect_refused(int code = 11) {
    EXPECT_EQ(run("ADD").code(), code);
    EXPECT_EQ(run("CHECK").code(), code);
    EXPECT_THAT(read("log"), Not(HasSubstr("starts before")));
  }
};

TEST(CniAge, is_that_of_this_boot) {
  const seconds now = time_of(CLOCK_REALTIME);
  const seconds day(24 * 3600);
  EXPECT_EQ(plugin::age_in_this_boot(now, now, day), seconds(0));
  EXPECT_EQ(plugin::age_in_this_boot(now - seconds(90), now, day), seconds(90));
  EXPECT_EQ(plugin::age_in_this_boot(now - 2 * day, now, seconds(20)), seconds(20)) << "was off";
  EXPECT_EQ(plugin::age_in_this_boot(now + day, now, seconds(20)), seconds(0)) << "time to come";
  EXPECT_EQ(plugin::age_in_this_boot(seconds::min(), now, seconds(20)), seconds(20));
  EXPECT_EQ(plugin::age_in_this_boot(seconds::max(), now, seconds(20)), seconds(0));
}

TEST_F(CniDenyFor, refuses_while_an_agent_was_there_lately) {
  deny_for(seconds(3600));
  touched(time_of(CLOCK_REALTIME));
  expect_refused();
}

TEST_F(CniDenyFor, ends_when_no_agent_was_there_for_longer_and_says_so) {
  deny_for(seconds(1));
  touched(time_of(CLOCK_REALTIME) - seconds(100));
  const Ran ran = run("ADD");
  EXPECT_EQ(ran.exit_status, 0) << ran.all;
  EXPECT_EQ(ran.output, R"({"cniVersion":"1.1.0"})");
  for (const std::string& where : {ran.noted(), read("log")}) {
    EXPECT_THAT(where, HasSubstr("pod shop/web-0 starts before it is enrolled: the agent of this "
                                 "node does not answer on " +
                                 socket));
    EXPECT_THAT(where, HasSubstr("no agent has been there for "));
    EXPECT_THAT(where, HasSubstr(" s, more than denyForSeconds (1)"));
    EXPECT_THAT(where, HasSubstr("`sidetrack-agent uninstall --cni-conf-dir DIR` on the node"));
  }
  EXPECT_EQ(run("CHECK").exit_status, 0);
}

// A node that was off for longer: nothing is known of its agent yet.
TEST_F(CniDenyFor, begins_anew_with_a_boot) {
  deny_for(time_of(CLOCK_BOOTTIME) + seconds(1000));
  touched(seconds(0));
  expect_refused();
}

TEST_F(CniDenyFor, zero_is_for_ever) {
  deny_for(seconds(0));
  touched(seconds(0));
  expect_refused();
}

TEST_F(CniDenyFor, a_list_of_a_time_to_come_was_touched_now) {
  deny_for(seconds(1));
  touched(time_of(CLOCK_REALTIME) + seconds(100'000));
  expect_refused();
}

// It is there, whatever became of the list: on a disk that is full, say.
TEST_F(CniDenyFor, holds_where_the_agent_answers) {
  AgentThread agent(socket);
  agent.look([&] { agent.handler().outcome = make_error(ErrorCode::kFull, "map is full"); });
  deny_for(seconds(1));
  touched(time_of(CLOCK_REALTIME) - seconds(100));
  expect_refused(100);
}

TEST_F(CniDenyFor, is_nothing_that_other_pods_hear_of) {
  deny_for(seconds(1));
  touched(time_of(CLOCK_REALTIME) - seconds(100));
  variables["CNI_ARGS"] = "K8S_POD_NAMESPACE=bank;K8S_POD_NAME=x";
  const Ran ran = run("ADD");
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_THAT(ran.noted(), HasSubstr("pod bank/x starts before it is enrolled"));
  EXPECT_THAT(ran.noted(), Not(HasSubstr("denyForSeconds")));
}

}  // namespace
}  // namespace sidetrack::cni
