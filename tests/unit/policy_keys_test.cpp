// SPDX-License-Identifier: Apache-2.0
// docs/policy.md, bad input: keys under our prefix that are misspelt or in the wrong place are told
// with object, key and the key that was meant, and never capture what somebody wanted left out.
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

auto is_problem(const char* object, const std::string& key, const char* reason) {
  return AllOf(Field("object", &kube::Problem::object, object),
               Field("key", &kube::Problem::key, key),
               Field("reason", &kube::Problem::reason, HasSubstr(reason)),
               Field("warning", &kube::Problem::warning, false));
}

enum class On { kLabels, kAnnotations };
struct Stray {
  On on;
  const char* name;
  const char* value;
  const char* says;
};
std::string key_of(const Stray& stray) {
  return std::string("sidetrack.io/") + stray.name;
}
void put(const Stray& stray, kube::Metadata& metadata) {
  (stray.on == On::kLabels ? metadata.labels : metadata.annotations)[key_of(stray)] = stray.value;
}
void PrintTo(const Stray& stray, std::ostream* out) {
  *out << (stray.on == On::kLabels ? "label " : "annotation ") << stray.name << "=" << stray.value;
}

class MayExclude : public ::testing::TestWithParam<Stray> {};

TEST_P(MayExclude, leaves_the_pod_alone) {
  Cluster cluster;
  put(GetParam(), cluster.web().metadata);
  const Resolution resolution = cluster.resolve();
  const PodIntent& web = resolution.pods[0];
  EXPECT_EQ(web.state, PodState::kEnrol);
  EXPECT_EQ(web.mode, ST_MODE_PASSTHROUGH);
  EXPECT_EQ(web.fast_path, ST_FAST_PATH_OFF);
  EXPECT_EQ(web.reason, "unknown_key");
  EXPECT_EQ(web.reason_detail, "Pod/shop/web " + key_of(GetParam()) + "=" + GetParam().value);
  EXPECT_EQ(web.mode_origin.value, GetParam().value);
  EXPECT_THAT(resolution.problems,
              ElementsAre(is_problem("Pod/shop/web", key_of(GetParam()), GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    PolicyKeys, MayExclude,
    ::testing::Values(
        Stray{On::kAnnotations, "exclude-outbound-port", "8500",
              "nearest known key is the annotation sidetrack.io/exclude-outbound-ports"},
        Stray{On::kAnnotations, "excludeOutboundPorts", "8500",
              "nearest known key is the annotation sidetrack.io/exclude-outbound-ports"},
        Stray{On::kAnnotations, "exlude-outbound-cdirs", "10.0.0.0/8",
              "nearest known key is the annotation sidetrack.io/exclude-outbound-cidrs"},
        Stray{On::kAnnotations, "include-outbound-cidr", "10.0.0.0/8",
              "nearest known key is the annotation sidetrack.io/include-outbound-cidrs"},
        Stray{On::kAnnotations, "skip", "8500", "unknown annotation"},
        Stray{On::kLabels, "exclude-outbound-ports", "8500",
              "no effect as label, it is read as annotation only"},
        Stray{On::kAnnotations, "mode", "disabled",
              "no effect as annotation, it is read as label only"},
        Stray{On::kLabels, "moode", "passthrough",
              "nearest known key is the label sidetrack.io/mode"},
        Stray{On::kLabels, "mod", "off", "nearest known key is the label sidetrack.io/mode"},
        Stray{On::kLabels, "modes", "passthru", "nearest known key is the label sidetrack.io/mode"},
        Stray{On::kAnnotations, "outboundPort", "8500", "unknown annotation"},
        Stray{On::kLabels, "inject", "disabled", "unknown label"}));

class CannotExclude : public ::testing::TestWithParam<Stray> {};

TEST_P(CannotExclude, is_told_and_changes_nothing) {
  Cluster cluster;
  put(GetParam(), cluster.web().metadata);
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_EQ(resolution.pods[0].fast_path, ST_FAST_PATH_AUTO);
  EXPECT_EQ(resolution.pods[0].on_engine_loss, ST_ON_ENGINE_LOSS_OPEN);
  EXPECT_EQ(resolution.pods[0].reason, "");
  EXPECT_THAT(resolution.problems,
              ElementsAre(is_problem("Pod/shop/web", key_of(GetParam()), GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    PolicyKeys, CannotExclude,
    ::testing::Values(
        Stray{On::kLabels, "fastpath", "auto",
              "nearest known key is the label sidetrack.io/fast-path"},
        Stray{On::kAnnotations, "on-engine-loss", "closed",
              "no effect as annotation, it is read as label only"},
        Stray{On::kLabels, "moode", "redirect", "nearest known key is the label sidetrack.io/mode"},
        Stray{On::kAnnotations, "owner", "payments", "unknown annotation"},
        Stray{On::kAnnotations, "support", "a-team", "unknown annotation"},
        Stray{On::kAnnotations, "export", "true", "unknown annotation"},
        Stray{On::kLabels, "zone", "eu-1", "unknown label"},
        Stray{On::kLabels, "node", "worker-1", "nearest known key is the label sidetrack.io/mode"},
        Stray{On::kLabels, "model", "v2", "nearest known key is the label sidetrack.io/mode"}));

TEST(PolicyKeys, known_ones_in_their_place_are_fine) {
  Cluster cluster;
  cluster.web().metadata.labels = {{"sidetrack.io/mode", "redirect"},
                                   {"sidetrack.io/fast-path", "auto"},
                                   {"sidetrack.io/on-engine-loss", "open"},
                                   {"sidetrack.iox/skip", "x"},
                                   {"app", "skip"}};
  cluster.web().metadata.annotations = {{kExcludePorts, "1"},
                                        {kExcludeCidrs, "10.1.0.0/16"},
                                        {kIncludePorts, "80"},
                                        {kIncludeCidrs, "10.0.0.0/8"},
                                        {"sidetrack.io/config-hash", "abc"},
                                        {"sidetrack.io/netns", "/run/netns/web"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_THAT(resolution.problems, IsEmpty());
}

TEST(PolicyKeys, of_a_namespace_concern_its_pods_and_no_others) {
  Cluster cluster;
  cluster.objects.namespaces["bank"].metadata.name = "bank";
  cluster.objects.namespaces["bank"].metadata.labels = {{kMode, "redirect"}};
  cluster.objects.namespaces["bank"].metadata.annotations = {
      {"sidetrack.io/exclude-outbound-port", "1"}};
  cluster.add_pod("bank", "till");
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_PASSTHROUGH);
  EXPECT_EQ(resolution.pods[0].reason_detail,
            "Namespace/bank sidetrack.io/exclude-outbound-port=1");
  EXPECT_EQ(resolution.pods[1].mode, ST_MODE_REDIRECT);
}

TEST(PolicyKeys, never_enrol_a_pod) {
  Cluster cluster(Text{});
  cluster.web().metadata.labels = {{"sidetrack.io/moode", "redirect"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].state, PodState::kSkipped);
  EXPECT_EQ(resolution.pods[0].reason, "mode_disabled");
  EXPECT_THAT(resolution.problems,
              ElementsAre(is_problem("Pod/shop/web", "sidetrack.io/moode", "sidetrack.io/mode")));
}

TEST(PolicyKeys, what_is_right_on_the_same_object_still_excludes) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "80"},
                                        {"sidetrack.io/exclude-outbound-cidr", "10.0.0.0/8"}};
  EXPECT_EQ(verdict(*cluster.resolve_web().compiled, "1.1.1.1", 80), ST_REASON_EXCLUDED_PORT);
}

}  // namespace
}  // namespace sidetrack::policy
