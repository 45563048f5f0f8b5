// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/fault_node.h"

#include <fmt/format.h>
#include <unistd.h>

#include <stdexcept>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {

using nlohmann::json;

void expect_clean(const BurstResult& burst, std::uint64_t count, const std::string& logs) {
  EXPECT_EQ(burst.ok, count);
  EXPECT_EQ(burst.mismatches, 0U);
  EXPECT_EQ(burst.connect_errors, Counts()) << logs;
  EXPECT_EQ(burst.io_errors, Counts()) << logs;
}

void FaultNode::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("fault"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto folder, TempDir::create("objects"));
  folder_ = std::make_unique<TempDir>(std::move(folder));
  objects_ = std::make_unique<Objects>(folder_->path());
  ST_ASSERT_VALUE(lab_, Lab::create("fault"));
  ST_ASSERT_VALUE(web_, lab_->add_pod("web"));
  ST_ASSERT_VALUE(api_, lab_->add_pod("api"));
  api_v4_ = api_->v4;
  ST_ASSERT_VALUE(cookie_, web_->netns.cookie());
  ST_ASSERT_OK(
      objects_->put(NamespaceSpec{.name = "shop", .labels = {{"sidetrack.io/mode", "redirect"}}}));
  put_web();
}

void FaultNode::put_web(const std::string& name, const StringMap& labels) {
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = name,
                                     .netns_path = web_->netns.path(),
                                     .addresses = {web_->v4, web_->v6},
                                     .labels = labels}));
}

void FaultNode::make_sidetrack(SidetrackOptions options) {
  options.objects_folder = objects_->folder().string();
  options.netns_path = lab_->node().path();
  ST_ASSERT_VALUE(sidetrack_, Sidetrack::create(*cgroup_, options));
}

void FaultNode::start_sidetrack(SidetrackOptions options) {
  ASSERT_NO_FATAL_FAILURE(make_sidetrack(std::move(options)));
  ST_ASSERT_OK(sidetrack_->start());
  ASSERT_NO_FATAL_FAILURE(wait_enrolled());
  shell_ = shell_in(*web_);
}

void FaultNode::wait_enrolled(const std::string& name) {
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/" + name, "enrolled", "redirect",
                                        scaled(milliseconds(30'000))));
}

void FaultNode::start_echo(const std::vector<std::string>& listeners) {
  ST_ASSERT_VALUE(echo_, EchoServer::start(place(*api_), listeners));
}

std::unique_ptr<PodShell> FaultNode::shell_in(const Pod& pod) const {
  auto shell = PodShell::start(place(pod));
  return shell ? std::move(*shell) : throw std::runtime_error(shell.error().message);
}

st_pod FaultNode::row() const {
  const auto found = kernel().pod(cookie_);
  EXPECT_TRUE(found.has_value()) << found.error().message;
  return found ? *found : st_pod{};
}

std::uint64_t FaultNode::repairs() const {
  const auto status = sidetrack_->get("/v1/status");
  return status ? status->value("repairs", std::uint64_t{0}) : 0;
}

Counts FaultNode::counted() const {
  const auto counts = kernel().counted(row().namespace_slot);
  EXPECT_TRUE(counts.has_value()) << counts.error().message;
  return counts ? *counts : Counts();
}

Counts FaultNode::since(const Counts& before) const {
  Counts more = counted();
  for (const auto& [reason, count] : before) {
    more[reason] -= count;
  }
  // The engine's own connects: one or more for each that it serves.
  std::erase_if(more,
                [](const auto& item) { return item.second == 0 || item.first == "engine_socket"; });
  return more;
}

std::string FaultNode::explain(const std::string& pod) const {
  const auto answer = sidetrack_->get(
      fmt::format("/v1/explain?namespace=shop&pod={}&destination={}:{}", pod, api_v4_, kEcho));
  return answer ? answer->value("reason", "") : answer.error().message;
}

bool FaultNode::eventually_explains(const std::string& reason) const {
  return eventually(kPatience, [&] { return explain() == reason; });
}

void FaultNode::expect_connections(std::uint64_t count, const std::string& reason,
                                   std::uint16_t port) {
  const Counts before = counted();
  ST_ASSERT_VALUE(const auto burst, shell_->burst(api_v4_, port, {.count = count}));
  expect_clean(burst, count, sidetrack_->logs());
  EXPECT_EQ(since(before), (Counts{{reason, count}}));
}

void FaultNode::expect_alive(PodShell& shell, int id, std::uint64_t length) {
  ST_ASSERT_VALUE(const auto answer,
                  shell.command(fmt::format("exchange {} len={} seed={} open", id, length, id)));
  EXPECT_EQ(answer.value("errno", -1), 0) << "connection " << id;
  EXPECT_EQ(answer.value("send_errno", -1), 0) << "connection " << id;
  EXPECT_EQ(answer.value("length", std::uint64_t{0}), length);
  EXPECT_EQ(answer.value("digest", ""), answer.value("expected_digest", "-"));
}

}  // namespace sidetrack::lab
