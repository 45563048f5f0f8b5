// SPDX-License-Identifier: Apache-2.0
// docs/policy.md, bad input: last good values, passthrough instead of a wrong capture, and problems
// that name everything.
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::SizeIs;

auto is_problem(const char* object, const char* key, const char* value) {
  return AllOf(Field("object", &kube::Problem::object, object),
               Field("key", &kube::Problem::key, HasSubstr(key)),
               Field("value", &kube::Problem::value, HasSubstr(value)),
               Field("warning", &kube::Problem::warning, false));
}

auto is_warning(const char* object, const char* key, const char* value) {
  return AllOf(Field("object", &kube::Problem::object, object),
               Field("key", &kube::Problem::key, key),
               Field("value", &kube::Problem::value, HasSubstr(value)),
               Field("warning", &kube::Problem::warning, true));
}

TEST(SharedAddress, is_one_problem_that_names_both_pods) {
  Cluster cluster;
  cluster.web().addresses = {"10.1.0.2", "fd00::2"};
  kube::Pod& other = cluster.add_pod("depot", "api");
  other.addresses = {"10.1.0.2"};
  const Resolution resolution = cluster.resolve();
  std::vector<kube::Problem> told;
  for (const kube::Problem& problem : resolution.problems) {
    if (problem.key == "status.podIPs") {
      told.push_back(problem);
    }
  }
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].object, "Pod/shop/web");
  EXPECT_EQ(told[0].value, "10.1.0.2");
  EXPECT_TRUE(told[0].warning);
  EXPECT_EQ(told[0].reason.find("Pod/depot/api has this address, too"), 0U);
}

TEST(SharedAddress, of_a_finished_pod_or_of_the_host_is_none) {
  Cluster cluster;
  cluster.web().addresses = {"10.1.0.2"};
  for (const char* name : {"done", "host"}) {
    kube::Pod& other = cluster.add_pod("shop", name);
    other.addresses = {"10.1.0.2"};
    other.phase = std::string(name) == "done" ? "Succeeded" : "Running";
    other.host_network = std::string(name) == "host";
  }
  EXPECT_TRUE(cluster.resolve().problems.empty());
}

TEST(PolicyNamespace, enrols_pods_as_the_resolver_does) {
  EXPECT_TRUE(enrols_pods({.name = "shop", .labels = {{kMode, "redirect"}}}));
  EXPECT_TRUE(enrols_pods({.name = "shop", .labels = {{kMode, "passthrough"}}}));
  EXPECT_TRUE(enrols_pods({.name = "shop", .labels = {{kMode, "redirct"}}}));
  EXPECT_FALSE(enrols_pods({.name = "shop", .labels = {{kMode, "disabled"}}}));
  EXPECT_FALSE(enrols_pods({.name = "shop"}));
}

TEST(PolicyBadMode, counts_as_passthrough) {
  Cluster cluster(Text{{kMode, "redirct"}});
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].state, PodState::kEnrol);
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_PASSTHROUGH);
  EXPECT_EQ(resolution.pods[0].reason, "invalid_mode");
  EXPECT_THAT(resolution.problems, Contains(is_problem("Namespace/shop", kMode, "redirct")));
}

TEST(PolicyBadMode, has_no_last_good_value) {
  Cluster cluster(Text{{kMode, "redirect"}});
  static_cast<void>(cluster.resolve());
  cluster.shop().metadata.labels = {{kMode, "Redirect"}};
  EXPECT_EQ(cluster.resolve_web().mode, ST_MODE_PASSTHROUGH);
}

TEST(PolicyBadMode, of_the_namespace_does_not_touch_a_pod_with_its_own) {
  Cluster cluster(Text{{kMode, "on"}});
  cluster.web().metadata.labels = {{kMode, "redirect"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(web.mode, ST_MODE_REDIRECT);
  EXPECT_EQ(web.reason, "");
}

TEST(PolicyBadToggle, without_a_last_good_value_is_the_default) {
  Cluster cluster(Text{{kMode, "redirect"},
                       {"sidetrack.io/fast-path", "turbo"},
                       {"sidetrack.io/on-engine-loss", "close"}});
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_EQ(resolution.pods[0].fast_path, ST_FAST_PATH_AUTO);
  EXPECT_EQ(resolution.pods[0].on_engine_loss, ST_ON_ENGINE_LOSS_OPEN);
  EXPECT_THAT(resolution.problems,
              Contains(is_problem("Namespace/shop", "sidetrack.io/fast-path", "turbo")));
  EXPECT_THAT(resolution.problems,
              Contains(is_problem("Namespace/shop", "sidetrack.io/on-engine-loss", "close")));
}

TEST(PolicyBadToggle, keeps_the_last_good_value) {
  Cluster cluster(Text{{kMode, "redirect"},
                       {"sidetrack.io/fast-path", "off"},
                       {"sidetrack.io/on-engine-loss", "closed"}});
  static_cast<void>(cluster.resolve());
  cluster.shop().metadata.labels = {
      {kMode, "redirect"}, {"sidetrack.io/fast-path", "x"}, {"sidetrack.io/on-engine-loss", "y"}};
  static_cast<void>(cluster.resolve());
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(web.fast_path, ST_FAST_PATH_OFF);
  EXPECT_EQ(web.on_engine_loss, ST_ON_ENGINE_LOSS_CLOSED);
}

TEST(PolicyBadToggle, of_a_pod_falls_back_to_its_namespace) {
  Cluster cluster(Text{{kMode, "redirect"}, {"sidetrack.io/fast-path", "off"}});
  cluster.web().metadata.labels = {{"sidetrack.io/fast-path", "turbo"}};
  EXPECT_EQ(cluster.resolve_web().fast_path, ST_FAST_PATH_OFF);
}

class BadListTest : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(BadListTest, without_a_last_good_value_makes_the_pod_passthrough) {
  Cluster cluster;
  const auto [key, text] = GetParam();
  cluster.web().metadata.annotations = {{key, text}};
  const Resolution resolution = cluster.resolve();
  const PodIntent& web = resolution.pods[0];
  EXPECT_EQ(web.state, PodState::kEnrol);
  EXPECT_EQ(web.mode, ST_MODE_PASSTHROUGH);
  EXPECT_EQ(web.fast_path, ST_FAST_PATH_OFF);
  EXPECT_EQ(web.reason, "invalid_annotation");
  EXPECT_EQ(web.reason_detail, "Pod/shop/web " + std::string(key) + "=" + text);
  EXPECT_THAT(resolution.problems, Contains(is_problem("Pod/shop/web", key, text)));
}

INSTANTIATE_TEST_SUITE_P(PolicyBadInput, BadListTest,
                         ::testing::Values(std::pair{kExcludePorts, "80,http"},
                                           std::pair{kExcludeCidrs, "10.0.0.0/33"},
                                           std::pair{kIncludePorts, "0"},
                                           std::pair{kIncludeCidrs, "*"}));

TEST(PolicyBadList, keeps_the_last_good_value_of_that_key_only) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "80"}, {kExcludeCidrs, "10.1.0.0/16"}};
  static_cast<void>(cluster.resolve());
  cluster.web().metadata.annotations = {{kExcludePorts, "80,http"}, {kExcludeCidrs, "10.2.0.0/16"}};
  const Resolution resolution = cluster.resolve();
  const PodIntent& web = resolution.pods[0];
  EXPECT_EQ(web.mode, ST_MODE_REDIRECT);
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 80), ST_REASON_EXCLUDED_PORT);
  EXPECT_EQ(verdict(*web.compiled, "10.2.0.1", 443), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(*web.compiled, "10.1.0.1", 443), ST_REASON_REDIRECTED);
  EXPECT_EQ(web.rules.exclude_ports[0].origin.value, "80");
  EXPECT_THAT(resolution.problems, Contains(is_problem("Pod/shop/web", kExcludePorts, "80,http")));
  EXPECT_THAT(resolution.problems[0].reason,
              AllOf(HasSubstr("\"http\""), HasSubstr("last good value")));
}

TEST(PolicyBadList, last_good_value_survives_many_rounds) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "80"}};
  static_cast<void>(cluster.resolve());
  cluster.web().metadata.annotations = {{kExcludePorts, "x"}};
  static_cast<void>(cluster.resolve());
  cluster.web().metadata.annotations = {{kExcludePorts, "y"}};
  static_cast<void>(cluster.resolve());
  EXPECT_EQ(verdict(*cluster.resolve_web().compiled, "1.1.1.1", 80), ST_REASON_EXCLUDED_PORT);
}

TEST(PolicyBadList, mode_of_the_same_object_still_applies) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "x"}};
  cluster.web().metadata.labels = {{kMode, "disabled"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(web.state, PodState::kSkipped);
  EXPECT_EQ(web.reason, "mode_disabled");
}

TEST(PolicyBadList, of_a_namespace_touches_all_its_pods_and_no_other) {
  Cluster cluster;
  cluster.objects.namespaces["bank"].metadata = {.name = "bank",
                                                 .namespace_name = "",
                                                 .uid = "",
                                                 .labels = {{kMode, "redirect"}},
                                                 .annotations = {}};
  cluster.add_pod("bank", "ledger");
  cluster.add_pod("shop", "web2");
  cluster.shop().metadata.annotations = {{kExcludeCidrs, "10.0.0.0/8,typo"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_EQ(resolution.pods[1].mode, ST_MODE_PASSTHROUGH);
  EXPECT_EQ(resolution.pods[2].mode, ST_MODE_PASSTHROUGH);
  EXPECT_THAT(resolution.problems, SizeIs(1));
}

TEST(PolicyBadList, of_a_pod_touches_no_other_pod) {
  Cluster cluster;
  cluster.add_pod("shop", "web2").metadata.annotations = {{kExcludePorts, "x"}};
  EXPECT_EQ(cluster.resolve().pods[0].mode, ST_MODE_REDIRECT);
}

TEST(PolicyBadList, what_did_parse_is_still_excluded) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "x"}, {kExcludeCidrs, "10.1.0.0/16"}};
  EXPECT_EQ(verdict(*cluster.resolve_web().compiled, "10.1.0.1", 80), ST_REASON_EXCLUDED_CIDR);
}

TEST(PolicyBadList, problem_value_is_cut_to_200_bytes_at_a_character) {
  Cluster cluster;
  std::string text(199, 'x');
  cluster.web().metadata.annotations = {{kExcludePorts, text + "\xc3\xa9 and more"}};
  const Resolution resolution = cluster.resolve();
  ASSERT_THAT(resolution.problems, SizeIs(1));
  EXPECT_EQ(resolution.problems[0].value, text);
}

TEST(PolicyHostBits, are_cleared_with_a_warning) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludeCidrs, "10.9.1.2/16"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_EQ(verdict(*resolution.pods[0].compiled, "10.9.200.1", 80), ST_REASON_EXCLUDED_CIDR);
  EXPECT_THAT(resolution.problems,
              Contains(is_warning("Pod/shop/web", kExcludeCidrs, "10.9.1.2/16")));
}

TEST(PolicyLastGood, holds_every_key_that_parsed) {
  Cluster cluster(Text{{kMode, "redirect"}, {"sidetrack.io/fast-path", "off"}});
  cluster.shop().metadata.annotations = {{kExcludePorts, "80"}};
  cluster.web().metadata.annotations = {{kIncludeCidrs, ""}};
  const LastGood good = cluster.resolve().last_good;
  EXPECT_THAT(good.values, Contains(std::pair<const std::string, std::string>(
                               "Namespace/shop|sidetrack.io/exclude-outbound-ports", "80")));
  EXPECT_THAT(good.values, Contains(std::pair<const std::string, std::string>(
                               "Namespace/shop|sidetrack.io/fast-path", "off")));
  EXPECT_THAT(good.values, Contains(std::pair<const std::string, std::string>(
                               "Pod/shop/web|sidetrack.io/include-outbound-cidrs", "")));
}

TEST(PolicyLastGood, forgets_objects_that_are_gone) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "80"}};
  EXPECT_THAT(cluster.resolve().last_good.values, SizeIs(1));
  cluster.objects.pods.clear();
  EXPECT_THAT(cluster.resolve().last_good.values, IsEmpty());
}

TEST(PolicyLastGood, forgets_keys_that_were_removed) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "80"}};
  static_cast<void>(cluster.resolve());
  cluster.web().metadata.annotations.clear();
  EXPECT_TRUE(cluster.resolve_web().compiled->empty());
  cluster.web().metadata.annotations = {{kExcludePorts, "x"}};
  EXPECT_EQ(cluster.resolve_web().reason, "invalid_annotation");
}

TEST(PolicyLastGood, of_a_namespace_is_kept_while_no_pod_of_it_is_here) {
  Cluster cluster;
  cluster.shop().metadata.annotations = {{kExcludePorts, "80"}};
  static_cast<void>(cluster.resolve());
  cluster.objects.pods.clear();
  cluster.shop().metadata.annotations = {{kExcludePorts, "x"}};
  EXPECT_THAT(cluster.resolve().problems, IsEmpty());
  cluster.add_pod("shop", "web");
  EXPECT_EQ(verdict(*cluster.resolve_web().compiled, "1.1.1.1", 80), ST_REASON_EXCLUDED_PORT);
}

std::string cidrs(int count, int second_octet) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += "10." + std::to_string(second_octet) + "." + std::to_string(i / 250) + "." +
            std::to_string(i % 250) + ",";
  }
  text.pop_back();
  return text;
}

TEST(PolicyLimits, merged_list_of_ten_thousand_cidrs_is_used) {
  Cluster cluster;
  cluster.shop().metadata.annotations = {{kExcludeCidrs, cidrs(5000, 1)}};
  cluster.web().metadata.annotations = {{kExcludeCidrs, cidrs(5000, 2)}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_THAT(resolution.pods[0].compiled->cidrs, SizeIs(10000));
  EXPECT_THAT(resolution.problems, IsEmpty());
}

TEST(PolicyLimits, one_more_makes_that_pod_passthrough_and_cuts_nothing) {
  Cluster cluster;
  cluster.add_pod("shop", "web2");
  cluster.shop().metadata.annotations = {{kExcludeCidrs, cidrs(5000, 1)}};
  cluster.web().metadata.annotations = {{kExcludeCidrs, cidrs(5001, 2)}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].state, PodState::kEnrol);
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_PASSTHROUGH);
  EXPECT_EQ(resolution.pods[0].reason, "policy_too_large");
  EXPECT_EQ(resolution.pods[1].mode, ST_MODE_REDIRECT);
  EXPECT_THAT(resolution.problems, Contains(is_problem("Pod/shop/web", kExcludeCidrs, "")));
  EXPECT_THAT(resolution.problems[0].reason, HasSubstr("10001"));
}

// The pod is the object of the problem: only keys of another object come with its name.
TEST(PolicyLimits, lists_that_are_too_long_name_the_pod_once) {
  Cluster cluster;
  cluster.shop().metadata.annotations = {{kExcludeCidrs, cidrs(1, 1)}};
  cluster.web().metadata.annotations = {{kExcludeCidrs, cidrs(10001, 2)}};
  const std::string keys = std::string(kExcludeCidrs) + "; Namespace/shop " + kExcludeCidrs;
  const Resolution resolution = cluster.resolve();
  ASSERT_THAT(resolution.problems, SizeIs(1));
  EXPECT_EQ(resolution.problems[0].object, "Pod/shop/web");
  EXPECT_EQ(resolution.problems[0].key, keys);
  EXPECT_EQ(resolution.pods[0].mode_origin.object, "Pod/shop/web");
  EXPECT_EQ(resolution.pods[0].mode_origin.key, keys);
}

TEST(PolicyLimits, every_port_may_be_listed) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "1-65535"}};
  EXPECT_EQ(cluster.resolve_web().compiled->exclude_ports, ST_PORT_SET_ALL);
}

TEST(PolicyTcp, a_value_that_does_not_parse_never_changes_the_mode) {
  Cluster cluster;
  for (const char* const text :
       {"keepalives=60s", "keepalive", "nodelay=1", "congestion=", "nodelay,,"}) {
    cluster.web().metadata.annotations = {{"sidetrack.io/tcp", text}};
    const Resolution resolution = cluster.resolve();
    EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT) << text;
    EXPECT_EQ(resolution.pods[0].tuning.keepalive_s, 0U) << text;
    EXPECT_THAT(resolution.problems,
                Contains(is_problem("Pod/shop/web", "sidetrack.io/tcp", text)));
  }
}

TEST(PolicyTcp, the_last_good_value_stays_in_use) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{"sidetrack.io/tcp", "keepalive=60s"}};
  EXPECT_EQ(cluster.resolve().pods[0].tuning.keepalive_s, 60U);
  cluster.web().metadata.annotations = {{"sidetrack.io/tcp", "keepalive=61"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].tuning.keepalive_s, 60U);
  EXPECT_EQ(resolution.pods[0].tuning_origin.value, "keepalive=60s");
  EXPECT_THAT(resolution.problems,
              Contains(is_problem("Pod/shop/web", "sidetrack.io/tcp", "keepalive=61")));
}

}  // namespace
}  // namespace sidetrack::policy
