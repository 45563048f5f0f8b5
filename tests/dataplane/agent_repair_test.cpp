// SPDX-License-Identifier: Apache-2.0
// What others have damaged or given wrongly: the agent says it, mends what it can, and goes on.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include <nlohmann/json.hpp>

#include "tests/dataplane/agent_node.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

const std::set<std::string> kPrograms = {"st_connect4",     "st_connect6",     "st_getpeername4",
                                         "st_getpeername6", "st_getsockname4", "st_getsockname6",
                                         "st_getsockopt",   "st_setsockopt",   "st_sockops"};

class AgentRepair : public AgentNode {
 protected:
  // Of all that a status names.
  static std::set<std::string> programs_that_are(bool attached, const json& status) {
    std::set<std::string> names;
    for (const json& program : status.at("programs")) {
      if (program.value("attached", !attached) == attached) {
        names.insert(program.value("name", ""));
      }
    }
    return names;
  }
};

// Every one of them, the engine's too: detached, or with its pin removed.
TEST_F(AgentRepair, detached_programs_are_reported_and_attached_again) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  ASSERT_EQ(repairs(), 0U);
  ST_ASSERT_VALUE(const auto links, kernel().links());
  for (const auto& [link, cgroup] : links) {
    if (link == "st_sockops") {
      ASSERT_EQ(::unlink((sidetrack_->pin_dir() + "/v1/links/" + link).c_str()), 0);
    } else {
      ST_ASSERT_OK(kernel().detach_link(link));
    }
  }
  ST_ASSERT_VALUE(const json damaged, sidetrack_->get("/v1/status"));
  // Unless the agent was quicker.
  if (damaged.value("repairs", std::uint64_t{0}) == 0) {
    EXPECT_EQ(programs_that_are(false, damaged), kPrograms) << damaged.dump();
    EXPECT_EQ(damaged["agent"]["state"], "degraded");
  }
  ASSERT_TRUE(eventually(kPatience, [&] { return repairs() == kPrograms.size(); }))
      << sidetrack_->logs();
  ST_ASSERT_VALUE(const auto again, kernel().links());
  EXPECT_EQ(again, links);
  ST_ASSERT_VALUE(const json repaired, sidetrack_->get("/v1/status"));
  EXPECT_EQ(programs_that_are(true, repaired), kPrograms) << repaired.dump();
  ST_ASSERT_VALUE(const auto doctor,
                  sidetrack_->ctl({"--pin-dir", sidetrack_->pin_dir(), "doctor"}));
  for (const std::string& program : kPrograms) {
    const std::string report = "program " + program + " was detached; put right";
    EXPECT_NE(repaired["problems"].dump().find(report), std::string::npos) << repaired.dump();
    EXPECT_NE(doctor.output.find(report), std::string::npos) << doctor.output;
  }
  expect_connections(5, "redirected");
}

TEST_F(AgentRepair, a_deleted_row_is_written_again_and_counted) {
  ASSERT_NO_FATAL_FAILURE(start_sidetrack());
  ST_ASSERT_OK(kernel().delete_pod(cookie_));
  ASSERT_TRUE(eventually(kPatience, [&] { return kernel().pod(cookie_).has_value(); }));
  ASSERT_TRUE(eventually(kPatience, [&] { return repairs() >= 1; })) << sidetrack_->logs();
  EXPECT_EQ(sidetrack_->metric("sidetrack_repairs_total"), repairs());
  ASSERT_TRUE(eventually_explains("redirected"));
  expect_connections(5, "redirected");
}

TEST_F(AgentRepair, a_path_that_is_no_namespace_stops_nothing) {
  start_sidetrack();
  const std::string fifo = folder_->file("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop", .name = "odd", .netns_path = fifo}));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/odd", "drift", "redirect"));
  ST_ASSERT_VALUE(const auto pod, sidetrack_->pod("shop/odd"));
  EXPECT_NE(pod.value("reason_detail", "").find(fifo + ": not a network namespace"),
            std::string::npos)
      << pod;
  ST_ASSERT_OK(sidetrack_->get_http("/readyz"));
  expect_connections(5, "redirected");
  for (const auto& [state, count] :
       Counts{{"wanted", 2}, {"enrolled", 1}, {"drift", 1}, {"skipped", 0}}) {
    EXPECT_EQ(sidetrack_->metric(fmt::format("sidetrack_pods{{state=\"{}\"}}", state)), count);
  }
  EXPECT_EQ(sidetrack_->metric(
                fmt::format("sidetrack_pod_drift{{reason=\"{}\"}}", pod.value("reason", ""))),
            1.0);
}

}  // namespace
}  // namespace sidetrack::lab
