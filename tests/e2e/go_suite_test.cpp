// SPDX-License-Identifier: Apache-2.0
// Go's own tests of net and net/http, as the installed Go has them, in a pod whose loopback
// connections are adopted as early as the options allow, and in one without: every test must end
// the same. `make test-go` runs all of them, ctest a part. Most of their connections end sooner
// than any is adopted: some of Go's benchmarks, which keep theirs, run behind the tests.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <regex>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/lab/cgroup.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/process.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

const milliseconds kSuitePatience = scaled(milliseconds(250'000));
const milliseconds kCompilePatience = scaled(milliseconds(100'000));

// What these ask for is not in a pod of the lab: names of the internet.
constexpr const char* kNeedsTheInternet = "Lookup|Google|Resolver|DNSFlood|InterfaceArrival";

// Go's word on each test: PASS, FAIL, SKIP.
using Verdicts = std::map<std::string, std::string>;

struct SuiteRun {
  int exit_status = -1;
  Verdicts verdicts;
  std::string output;
};

// What the kernel has counted so far.
struct Counted {
  std::uint64_t paired = 0;
  std::uint64_t adopted = 0;  // sockets
  std::uint64_t messages = 0;
  std::uint64_t released = 0;
};

Verdicts verdicts_of(const std::string& output) {
  static const std::regex kLine("--- (PASS|FAIL|SKIP): ([^ \n]+) \\(");
  Verdicts verdicts;
  for (std::sregex_iterator match(output.begin(), output.end(), kLine), end; match != end;
       ++match) {
    verdicts[(*match)[2]] = (*match)[1];
  }
  return verdicts;
}

// The lines around each mention of the test.
std::string about(const SuiteRun& run, const std::string& test) {
  std::istringstream lines(run.output);
  std::string text;
  int left = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(test) != std::string::npos) {
      left = 12;
    }
    if (left-- > 0) {
      text += line + "\n";
    }
  }
  return text;
}

class GoSuite : public testing::Test {
 protected:
  void SetUp() override;

  // Tests of `package` that match `pattern` ("" = all), then `benchmarks`, in both pods, one after
  // the other.
  void compare(const std::string& package, const std::string& pattern,
               const std::string& benchmarks);

 private:
  SuiteRun run_in(const Pod& pod, const std::string& package, const std::string& pattern,
                  const std::string& benchmarks);
  Pod* add_pod(const std::string& namespace_name, const char* mode);
  [[nodiscard]] Counted counted() const;
  void report(const std::string& package, const SuiteRun& run, const Counted& before) const;

  // Members are destroyed from the last to the first.
  std::unique_ptr<TestCgroup> cgroup_;
  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<Objects> objects_;
  std::unique_ptr<Lab> lab_;
  std::unique_ptr<Sidetrack> sidetrack_;
};

void GoSuite::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  if (std::string(ST_GO).empty()) {
    GTEST_SKIP() << "no Go compiler of at least 1.20 was there when this was configured";
  }
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("gosuite"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto folder, TempDir::create("gosuite"));
  folder_ = std::make_unique<TempDir>(std::move(folder));
  objects_ = std::make_unique<Objects>(folder_->file("objects"));
  ST_ASSERT_VALUE(lab_, Lab::create("gosuite"));
  ST_ASSERT_VALUE(sidetrack_,
                  Sidetrack::create(*cgroup_, {.objects_folder = objects_->folder().string(),
                                               .engine = "none",
                                               .netns_path = lab_->node().path(),
                                               .fast_path = true,
                                               .agent_arguments = {"--fast-path-probation", "0s",
                                                                   "--fast-path-round-trips", "1",
                                                                   "--fast-path-loopback", "on"}}));
  ST_ASSERT_OK(sidetrack_->start_agent());
}

Pod* GoSuite::add_pod(const std::string& namespace_name, const char* mode) {
  Pod* pod = nullptr;
  const auto fill = [&] {
    ST_ASSERT_OK(objects_->put(
        NamespaceSpec{.name = namespace_name, .labels = {{"sidetrack.io/mode", mode}}}));
    ST_ASSERT_VALUE(pod, lab_->add_pod(namespace_name));
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = namespace_name,
                                       .name = pod->name,
                                       .netns_path = pod->netns.path(),
                                       .addresses = {pod->v4, pod->v6}}));
    ST_ASSERT_OK(sidetrack_->wait_for_pod(namespace_name + "/" + pod->name,
                                          std::string(mode) == "disabled" ? "skipped" : "enrolled",
                                          mode));
  };
  fill();
  return pod;
}

SuiteRun GoSuite::run_in(const Pod& pod, const std::string& package, const std::string& pattern,
                         const std::string& benchmarks) {
  SuiteRun run;
  const std::string script = fmt::format(
      "cd $({} env GOROOT)/src/{} && exec {} -test.v -test.run '{}' -test.skip '{}' {} "
      "-test.benchtime 1500ms",
      ST_GO, package, folder_->file("suite"), pattern, kNeedsTheInternet,
      benchmarks.empty() ? "" : fmt::format("-test.bench '{}'", benchmarks));
  auto result = run_command({.arguments = {"sh", "-c", script},
                             .netns_path = pod.netns.path(),
                             .cgroup_path = cgroup_->path(),
                             .within = kSuitePatience});
  if (!result) {
    ADD_FAILURE() << "in " << pod.name << ": " << result.error().message;
    return run;
  }
  run.exit_status = result->exit_status;
  run.output = std::move(result->output);
  run.verdicts = verdicts_of(run.output);
  return run;
}

Counted GoSuite::counted() const {
  Counted sum;
  const auto rows = sidetrack_->dump_map("st_fast_counters");
  if (!rows) {
    ADD_FAILURE() << rows.error().message;
    return sum;
  }
  for (const json& cpu : (*rows)[0]["formatted"]["values"]) {
    sum.paired += cpu["value"].value("paired", std::uint64_t{0});
    sum.adopted += cpu["value"].value("adopted", std::uint64_t{0});
    sum.messages += cpu["value"].value("messages", std::uint64_t{0});
    sum.released += cpu["value"].value("released", std::uint64_t{0});
  }
  return sum;
}

void GoSuite::report(const std::string& package, const SuiteRun& run, const Counted& before) const {
  std::map<std::string, int> count;
  for (const auto& [test, verdict] : run.verdicts) {
    ++count[verdict];
  }
  const Counted now = counted();
  const auto status = sidetrack_->get("/v1/status");
  const std::string seen = fmt::format(
      "{}: {} tests passed, {} failed, {} skipped; {} pairs seen, {} sockets adopted, {} taken out "
      "again, {} messages skipped TCP; refused so far: {}",
      package, count["PASS"], count["FAIL"], count["SKIP"], now.paired - before.paired,
      now.adopted - before.adopted, now.released - before.released, now.messages - before.messages,
      status ? status->value("fast_path_refused", json::object()).dump() : "?");
  std::cout << "[ FASTPATH ] " << seen << "\n";
  RecordProperty("fast_path", seen);
}

void GoSuite::compare(const std::string& package, const std::string& pattern,
                      const std::string& benchmarks) {
  ST_ASSERT_VALUE(
      const auto compiled,
      run_command({.arguments = {"env", "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod", "GOPROXY=off",
                                 ST_GO, "test", "-c", "-o", folder_->file("suite"), package},
                   .within = kCompilePatience}));
  ASSERT_EQ(compiled.exit_status, 0) << compiled.output;
  const Pod* plain = add_pod("plain", "disabled");
  const Pod* fast = add_pod("fast", "passthrough");
  ASSERT_FALSE(HasFatalFailure());
  const SuiteRun control = run_in(*plain, package, pattern, benchmarks);
  const Counted before = counted();
  EXPECT_EQ(before.paired, 0U) << "the control was paired";
  const SuiteRun run = run_in(*fast, package, pattern, benchmarks);
  report(package, run, before);
  EXPECT_EQ(run.exit_status, control.exit_status);
  EXPECT_FALSE(control.verdicts.empty()) << control.output;
  for (const auto& [test, verdict] : control.verdicts) {
    const auto found = run.verdicts.find(test);
    EXPECT_TRUE(found != run.verdicts.end() && found->second == verdict)
        << test << " without: " << verdict << "\n"
        << about(control, test) << "\nwith:\n"
        << about(run, test);
  }
  EXPECT_EQ(run.verdicts.size(), control.verdicts.size());
  const Counted after = counted();
  EXPECT_GT(after.adopted, before.adopted) << sidetrack_->logs();
  if (!benchmarks.empty()) {
    EXPECT_GT(after.messages, before.messages);
  }
}

// Short: ctest runs it.
TEST_F(GoSuite, part_of_net) {
  compare("net",
          "TestTCPReadWriteAllocs|TestTCPConn|TestTCPServer|TestTCPClose|TestCloseRead|TestConn",
          "TCP4Persistent$|TCP6ConcurrentReadWrite");
}

TEST_F(GoSuite, net) {
  compare("net", "", "");
}

TEST_F(GoSuite, net_http) {
  compare("net/http", "", "");
}

// Whose pod no test has demoted before.
TEST_F(GoSuite, net_http_kept_connections) {
  compare("net/http", "TestClient", "ClientServer$");
}

}  // namespace
}  // namespace sidetrack::lab
