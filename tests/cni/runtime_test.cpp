// SPDX-License-Identifier: Apache-2.0
// The plugin behind real ones, called by libcni, by containerd's go-cni and by cnitool, at every
// version of CNI. A network namespace of the test's own is the node, another one the pod.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cni/install/folder.h"
#include "tests/lab/netns.h"
#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"
#include "tests/unit/cni_agent_thread.h"

namespace sidetrack::cni {
namespace {

using nlohmann::json;

constexpr const char* kDebianPlugins = "/usr/lib/cni";
// Up to six Go programs, one after the other, on a machine that may be busy.
const lab::milliseconds kRunPatience = lab::scaled(lab::milliseconds(60'000));
const lab::milliseconds kBuildPatience = lab::scaled(lab::milliseconds(240'000));

// The Go programs: built once for all tests of this process, empty if they cannot be.
const std::string& go_programs() {
  static const std::string folder = [] {
    const std::string out = ST_GO_PROGRAMS;
    const auto built = lab::run_command(
        {.arguments = {ST_SOURCE_DIR "/build.sh", ST_GO, out}, .within = kBuildPatience});
    if (!built || built->exit_status != 0) {
      ADD_FAILURE() << (built ? built->output : built.error().message);
      return std::string();
    }
    return out;
  }();
  return folder;
}

class CniRuntime : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override;

  // The network configuration: ptp, host-local, and our entry put there by the installer.
  void configure();
  [[nodiscard]] json network() const;  // ptp's part of it
  // The same as a single file, which the installer leaves alone and embeds.
  void configure_as_single_file();
  std::vector<json> runtime(const std::string& library, const std::string& commands);
  lab::CommandResult cnitool(const std::string& command);
  // Runs a program in the node's netns, with a /var/lib of its own: libcni's cache is there.
  lab::CommandResult run(std::vector<std::string> arguments);
  void start_agent() { agent = std::make_unique<AgentThread>(settings.entry.socket); }
  [[nodiscard]] bool has_gc_and_status() const { return GetParam() == "1.1.0"; }
  [[nodiscard]] bool has_check() const { return GetParam() >= "0.4.0"; }
  [[nodiscard]] std::string address_in_pod() const;

  std::optional<lab::TempDir> folder;
  std::unique_ptr<lab::Netns> node;
  std::unique_ptr<lab::Netns> pod;
  install::Settings settings;
  std::unique_ptr<AgentThread> agent;
};

void CniRuntime::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  if (std::string(ST_GO).empty()) {
    GTEST_SKIP() << "no Go compiler of at least 1.24.2 was there when this was configured";
  }
  if (!std::filesystem::exists(std::string(kDebianPlugins) + "/ptp")) {
    GTEST_SKIP() << "the package containernetworking-plugins is not installed";
  }
  ASSERT_FALSE(go_programs().empty());
  ST_ASSERT_VALUE(auto made, lab::TempDir::create("cniruntime"));
  folder.emplace(std::move(made));
  ST_ASSERT_VALUE(auto node_netns, lab::Netns::create("cninode"));
  node = std::make_unique<lab::Netns>(std::move(node_netns));
  ST_ASSERT_VALUE(auto pod_netns, lab::Netns::create("cnipod"));
  pod = std::make_unique<lab::Netns>(std::move(pod_netns));
  configure();
}

void CniRuntime::configure() {
  for (const char* name : {"net.d", "bin", "cache", "results", "var-lib"}) {
    std::filesystem::create_directory(folder->path() / name);
  }
  settings = {.conf_dir = folder->path() / "net.d",
              .bin_dir = folder->path() / "bin",
              .binary = lab::built_program("sidetrack-cni"),
              .cache_dir = folder->path() / "cache",
              .entry = {.socket = folder->file("cni.sock"),
                        .enrolled_namespaces = folder->file("enrolled"),
                        .log_file = folder->file("log"),
                        .own_namespace = "mesh",
                        .timeout_ms = 1000}};
  // Debian's plugins do not speak 1.1.0.
  const std::string from = has_gc_and_status() ? go_programs() : kDebianPlugins;
  for (const char* name : {"ptp", "host-local"}) {
    std::filesystem::create_symlink(from + "/" + name, settings.bin_dir / name);
  }
  std::filesystem::copy(settings.binary, settings.bin_dir / "sidetrack-cni");
  std::ofstream(settings.conf_dir / "10-net.conflist")
      << json{{"cniVersion", GetParam()}, {"name", "net"}, {"plugins", {network()}}}.dump(2);
  ST_ASSERT_OK(install::apply(settings));
}

json CniRuntime::network() const {
  return {{"type", "ptp"},
          {"mtu", 1400},
          {"ipam",
           {{"type", "host-local"},
            {"dataDir", folder->file("ipam")},
            {"ranges", {{{{"subnet", "10.77.0.0/24"}}}, {{{"subnet", "fd77::/64"}}}}},
            {"routes", {{{"dst", "0.0.0.0/0"}}}}}}};
}

void CniRuntime::configure_as_single_file() {
  std::filesystem::remove(settings.conf_dir / "10-net.conflist");
  json single = network();
  single["cniVersion"] = GetParam();
  single["name"] = "net";
  std::ofstream(settings.conf_dir / "10-net.conf") << single.dump(2);
  ST_ASSERT_VALUE(const auto applied, install::apply(settings));
  ASSERT_EQ(applied.file, install::kOwnList);
}

lab::CommandResult CniRuntime::run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"unshare", "-m", "sh", "-c",
                                       "mount --bind \"$1\" /var/lib && shift && exec \"$@\"", "sh",
                                       folder->file("var-lib")});
  auto result = lab::run_command(
      {.arguments = arguments, .netns_path = node->path(), .within = kRunPatience});
  if (!result) {
    ADD_FAILURE() << result.error().message;
    return {.exit_status = -1};
  }
  return *result;
}

std::vector<json> CniRuntime::runtime(const std::string& library, const std::string& commands) {
  const auto result = run({go_programs() + "/cni", library, commands, settings.conf_dir.string(),
                           settings.bin_dir.string(), folder->file("results"), pod->path()});
  EXPECT_EQ(result.exit_status, 0) << result.output;
  std::vector<json> lines;
  std::istringstream text(result.standard_output);
  for (std::string line; std::getline(text, line);) {
    lines.push_back(json::parse(line));
  }
  EXPECT_FALSE(lines.empty()) << result.output;
  return lines;
}

lab::CommandResult CniRuntime::cnitool(const std::string& command) {
  return run({"env", "CNI_PATH=" + settings.bin_dir.string(),
              "NETCONFPATH=" + settings.conf_dir.string(),
              "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0",
              go_programs() + "/cnitool", command, "net", pod->path()});
}

std::string CniRuntime::address_in_pod() const {
  const auto shown = lab::run_command(
      {.arguments = {"ip", "-n", pod->name(), "-brief", "address", "show", "dev", "eth0"}});
  return shown ? shown->output : shown.error().message;
}

void expect_fine(const std::vector<json>& lines) {
  for (const json& line : lines) {
    EXPECT_EQ(line["error"], "") << line.dump(2);
  }
}

const json& last_call(const json& line) {
  return line["calls"].back();
}

TEST_P(CniRuntime, libcni_is_served_in_all_it_asks) {
  start_agent();
  std::string commands = "version,add";
  commands += has_check() ? ",check" : "";
  commands += has_gc_and_status() ? ",status,gc" : "";
  const auto lines = runtime("libcni", commands);
  expect_fine(lines);
  const json& add = lines.at(1);
  ASSERT_EQ(add["calls"].size(), 2U);
  EXPECT_EQ(last_call(add)["plugin"], "sidetrack-cni");
  EXPECT_TRUE(last_call(add)["same"]) << "the result is not what came in: " << add.dump(2);
  EXPECT_EQ(json::parse(last_call(add)["stdout"].get<std::string>())["cniVersion"], GetParam());
  EXPECT_NE(address_in_pod().find("10.77.0."), std::string::npos) << address_in_pod();
  if (has_check()) {
    EXPECT_EQ(last_call(lines.at(2))["stdout"], "");
  }
  agent->look([this] {
    const RecordingHandler& seen = agent->handler();
    ASSERT_EQ(seen.added.size(), 1U);
    EXPECT_EQ(seen.added[0].pod_namespace + "/" + seen.added[0].pod_name, "shop/web-0");
    EXPECT_EQ(seen.added[0].ifname, "eth0");
    ASSERT_EQ(seen.added[0].addresses.size(), 2U);
    EXPECT_NE(address_in_pod().find(seen.added[0].addresses[0] + "/"), std::string::npos);
    EXPECT_NE(address_in_pod().find(seen.added[0].addresses[1] + "/"), std::string::npos);
    EXPECT_EQ(seen.claims.size(), has_check() ? 1U : 0U);
    EXPECT_EQ(seen.kept.size(), has_gc_and_status() ? 1U : 0U);
    if (has_gc_and_status()) {
      EXPECT_EQ(seen.kept[0], (std::set<AttachmentId>{{"c0ffee", "eth0"}}));
    }
  });
  expect_fine(runtime("libcni", "del,del"));
  EXPECT_NE(address_in_pod().find("does not exist"), std::string::npos) << address_in_pod();
  agent->look([this] { EXPECT_EQ(agent->handler().removed.size(), 2U); });
}

TEST_P(CniRuntime, containerds_library_is_served) {
  start_agent();
  // One process: go-cni's own cache must live from ADD to CHECK.
  expect_fine(runtime("go-cni", has_check() ? "status,add,check,del,del" : "status,add,del,del"));
  agent->look([this] {
    const RecordingHandler& seen = agent->handler();
    ASSERT_EQ(seen.added.size(), 1U);
    EXPECT_EQ(seen.added[0].container_id, "c0ffee");
    EXPECT_EQ(seen.added[0].pod_uid, "6a1c");
    EXPECT_EQ(seen.added[0].addresses.size(), 2U);
    EXPECT_EQ(seen.claims.size(), has_check() ? 1U : 0U);
    EXPECT_GE(seen.removed.size(), 1U);
  });
}

TEST_P(CniRuntime, cnitool_is_served) {
  start_agent();
  const auto add = cnitool("add");
  ASSERT_EQ(add.exit_status, 0) << add.output;
  EXPECT_EQ(json::parse(add.standard_output)["cniVersion"], GetParam());
  // libcni refuses CHECK of an older network by itself.
  EXPECT_EQ(cnitool("check").exit_status == 0, has_check());
  for (const char* command : {"gc", "status", "del", "del"}) {
    const auto ran = cnitool(command);
    EXPECT_EQ(ran.exit_status, 0) << command << ": " << ran.output;
  }
  agent->look([this] {
    EXPECT_EQ(agent->handler().added.size(), 1U);
    EXPECT_EQ(agent->handler().claims.size(), has_check() ? 1U : 0U);
    EXPECT_TRUE(agent->handler().kept.empty()) << "cnitool does not say who is valid";
  });
}

// A node whose network plugin has a single .conf: the runtimes load our list, which embeds it.
TEST_P(CniRuntime, a_single_configuration_is_served_by_the_list_around_it) {
  ASSERT_NO_FATAL_FAILURE(configure_as_single_file());
  start_agent();
  const std::string more = has_check() ? "add,check" : "add";
  expect_fine(runtime("go-cni", "status," + more + ",del"));
  const auto lines = runtime("libcni", more + ",del");
  expect_fine(lines);
  ASSERT_EQ(lines.at(0)["calls"].size(), 2U);
  EXPECT_EQ(last_call(lines.at(0))["plugin"], "sidetrack-cni");
  EXPECT_TRUE(last_call(lines.at(0))["same"]);
  const auto add = cnitool("add");
  EXPECT_EQ(add.exit_status, 0) << add.output;
  EXPECT_NE(address_in_pod().find("10.77.0."), std::string::npos) << address_in_pod();
  EXPECT_EQ(cnitool("del").exit_status, 0);
  agent->look([this] {
    EXPECT_EQ(agent->handler().added.size(), 3U);
    EXPECT_EQ(agent->handler().claims.size(), has_check() ? 2U : 0U);
  });
  EXPECT_NE(address_in_pod().find("does not exist"), std::string::npos) << address_in_pod();
}

TEST_P(CniRuntime, without_agent_pods_start_or_not_as_configured) {
  const auto open = runtime("libcni", "add,del");
  expect_fine(open);
  EXPECT_TRUE(last_call(open.at(0))["same"]);
  std::ifstream log(settings.entry.log_file);
  std::string line;
  EXPECT_TRUE(std::getline(log, line));
  EXPECT_NE(line.find("pod shop/web-0 starts before it is enrolled"), std::string::npos) << line;

  std::ofstream(folder->file("enrolled")) << "shop\n";
  settings.entry.on_agent_down = "deny";
  settings.entry.status_checks_agent = true;
  ST_ASSERT_OK(install::apply(settings));
  for (const std::string library : {"libcni", "go-cni"}) {
    const auto denied = runtime(library, "add,del");
    EXPECT_EQ(denied.at(0)["code"], 11) << denied.at(0).dump(2);
    const auto error = denied.at(0)["error"].get<std::string>();
    EXPECT_NE(error.find("pod shop/web-0 must not start"), std::string::npos) << error;
    EXPECT_NE(error.find("sidetrackctl doctor"), std::string::npos) << error;
    EXPECT_EQ(denied.at(1)["error"], "") << "DEL after a refused ADD";
    EXPECT_NE(address_in_pod().find("does not exist"), std::string::npos);
  }
  const auto status = runtime("go-cni", "status");
  EXPECT_EQ(status.at(0)["code"], has_gc_and_status() ? 50 : 0) << status.at(0).dump(2);
}

INSTANTIATE_TEST_SUITE_P(Versions, CniRuntime,
                         testing::Values("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"),
                         [](const auto& row) {
                           std::string name = "v" + row.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace sidetrack::cni
