// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/pair.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {
namespace {

using nlohmann::json;

std::string cut(const std::string& text) {
  return text.size() <= 2000 ? text
                             : text.substr(0, 2000) + fmt::format("... ({} bytes)", text.size());
}

}  // namespace

void Pair::set_up_pods() {
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("pair"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto objects_folder, TempDir::create("objects"));
  objects_folder_ = std::make_unique<TempDir>(std::move(objects_folder));
  objects_ = std::make_unique<Objects>(objects_folder_->path());
  ST_ASSERT_VALUE(lab_, Lab::create("pair"));
  ST_ASSERT_VALUE(web_, lab_->add_pod("web"));
  ST_ASSERT_VALUE(plain_, lab_->add_pod("plain"));
  ST_ASSERT_VALUE(server_, lab_->add_pod("server"));
  ST_ASSERT_OK(
      objects_->put(NamespaceSpec{.name = "shop", .labels = {{"sidetrack.io/mode", "redirect"}}}));
  ST_ASSERT_OK(objects_->put(NamespaceSpec{.name = "depot"}));
  for (const Pod* pod : {web_, plain_, server_}) {
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = pod == web_ ? "shop" : "depot",
                                       .name = pod->name,
                                       .netns_path = pod->netns.path(),
                                       .addresses = {pod->v4, pod->v6}}));
  }
  ST_ASSERT_VALUE(sidetrack_,
                  Sidetrack::create(*cgroup_, {.objects_folder = objects_->folder().string(),
                                               .netns_path = lab_->node().path()}));
  ST_ASSERT_OK(sidetrack_->start());
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "redirect"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("depot/plain", "skipped", "disabled"));
  ready_ = true;
}

void Pair::TearDownTestSuite() {
  sidetrack_.reset();
  lab_.reset();
  objects_.reset();
  objects_folder_.reset();
  cgroup_.reset();
}

void Pair::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  if (!cgroup_) {
    set_up_pods();
  }
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_TRUE(ready_) << "the pods could not be made";
  ST_ASSERT_VALUE(auto folder, TempDir::create("files"));
  folder_ = std::make_unique<TempDir>(std::move(folder));
  // Servers that give up root read it.
  ASSERT_EQ(::chmod(folder_->path().c_str(), 0755), 0);
}

std::uint64_t Pair::redirected_count() {
  const auto answer = sidetrack_->get("/v1/counters");
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return 0;
  }
  for (const json& row : (*answer)["counters"]) {
    if (row["namespace"] == "shop") {
      return row["connections"].value("redirected", std::uint64_t{0});
    }
  }
  return 0;
}

CommandResult Pair::run_in(const Pod& pod, const Client& client) {
  auto result = run_command({.arguments = client.arguments,
                             .input = client.input,
                             .netns_path = pod.netns.path(),
                             .cgroup_path = cgroup_->path(),
                             .within = kClientPatience});
  if (!result) {
    ADD_FAILURE() << "in " << pod.name << ": " << result.error().message;
    return {.exit_status = -1};
  }
  return *result;
}

Outcomes Pair::run_both(const Client& client) {
  const std::uint64_t before = redirected_count();
  Outcomes outcomes;
  outcomes.direct = run_in(*plain_, client);
  const std::uint64_t between = redirected_count();
  EXPECT_EQ(between, before) << "the control was redirected";
  outcomes.redirected = run_in(*web_, client);
  outcomes.redirects = redirected_count() - between;
  EXPECT_GT(outcomes.redirects, 0U) << "nothing was redirected";
  return outcomes;
}

void Pair::expect_same(const Client& client) {
  const Outcomes outcomes = run_both(client);
  EXPECT_EQ(outcomes.direct.exit_status, 0) << cut(outcomes.direct.output);
  EXPECT_EQ(outcomes.redirected.exit_status, 0) << cut(outcomes.redirected.output);
  EXPECT_FALSE(outcomes.direct.standard_output.empty());
  EXPECT_TRUE(outcomes.direct.standard_output == outcomes.redirected.standard_output)
      << "direct:\n"
      << cut(outcomes.direct.output) << "\nredirected:\n"
      << cut(outcomes.redirected.output) << "\n"
      << cut(sidetrack_->logs());
}

void Pair::serve(std::vector<std::string> arguments, const std::string& ready) {
  serve_in(*server_, std::move(arguments), ready);
}

void Pair::serve_probes() {
  serve({"python3", client_file("probe_server.py")}, "ready");
}

void Pair::serve_in(const Pod& pod, std::vector<std::string> arguments, const std::string& ready) {
  ST_ASSERT_VALUE(auto server, Process::start({.arguments = std::move(arguments),
                                               .netns_path = pod.netns.path(),
                                               .cgroup_path = cgroup_->path()}));
  servers_.push_back(std::move(server));
  if (!ready.empty()) {
    ST_ASSERT_OK(servers_.back()->wait_for_output(ready, kClientPatience));
  }
}

void Pair::serve_echo(const std::vector<std::string>& listeners) {
  ST_ASSERT_VALUE(echo_, EchoServer::start({server_->netns.path(), cgroup_->path()}, listeners));
}

void Pair::wait_for_listener(const Pod& pod, std::uint16_t port) {
  const std::string filter = fmt::format("sport = :{}", port);
  ASSERT_TRUE(eventually(kClientPatience,
                         [&] {
                           const auto sockets = run_command({.arguments = {"ss", "-Hltn", filter},
                                                             .netns_path = pod.netns.path()});
                           return sockets && !sockets->standard_output.empty();
                         }))
      << "nothing listens on port " << port << ": "
      << (servers_.empty() ? "" : servers_.back()->output());
}

std::string Pair::client_file(const std::string& name) {
  return std::string(ST_CLIENTS_DIR) + "/" + name;
}

std::string Pair::write_file(const std::string& name, const std::string& text) const {
  const std::string path = folder_->file(name);
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

std::string Pair::make_file(const std::string& name, std::size_t size) const {
  std::string text;
  text.reserve(size + 16);
  for (std::uint64_t line = 0; text.size() < size; ++line) {
    text += fmt::format("{:x}\n", (line + 1) * 0x9e3779b97f4a7c15ULL);
  }
  text.resize(size);
  return write_file(name, text);
}

bool Pair::installed(const std::string& program) {
  const auto found = run_command({.arguments = {"sh", "-c", "command -v " + program}});
  return found && found->exit_status == 0;
}

void Pair::in_both_pods(const std::string& commands) {
  ST_ASSERT_OK(web_->netns.ip(commands));
  ST_ASSERT_OK(plain_->netns.ip(commands));
}

}  // namespace sidetrack::lab
