// SPDX-License-Identifier: Apache-2.0
// docs/policy.md: annotations of other meshes, honoured on request.
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using namespace testing;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kIstioExcludePorts = "traffic.sidecar.istio.io/excludeOutboundPorts";
constexpr const char* kIstioExcludeRanges = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
constexpr const char* kIstioIncludePorts = "traffic.sidecar.istio.io/includeOutboundPorts";
constexpr const char* kIstioIncludeRanges = "traffic.sidecar.istio.io/includeOutboundIPRanges";
constexpr const char* kLinkerdSkip = "config.linkerd.io/skip-outbound-ports";
constexpr const char* kKumaPorts = "traffic.kuma.io/exclude-outbound-ports";
constexpr const char* kKumaIps = "traffic.kuma.io/exclude-outbound-ips";

struct CompatRow {
  const char* name;
  Compat compat;
  const char* key;
  const char* text;
  const char* host;
  std::uint16_t port;
  st_reason reason;
};

class CompatTest : public ::testing::TestWithParam<CompatRow> {};

TEST_P(CompatTest, applies_on_pod_and_namespace_when_asked_for) {
  const CompatRow& row = GetParam();
  Cluster on_pod;
  on_pod.node.compat = {row.compat};
  on_pod.web().metadata.annotations = {{row.key, row.text}};
  EXPECT_EQ(verdict(*on_pod.resolve_web().compiled, row.host, row.port), row.reason);
  Cluster on_namespace;
  on_namespace.node.compat = {row.compat};
  on_namespace.shop().metadata.annotations = {{row.key, row.text}};
  EXPECT_EQ(verdict(*on_namespace.resolve_web().compiled, row.host, row.port), row.reason);
}

TEST_P(CompatTest, is_ignored_by_default) {
  const CompatRow& row = GetParam();
  Cluster cluster;
  cluster.web().metadata.annotations = {{row.key, row.text}};
  EXPECT_TRUE(cluster.resolve_web().compiled->empty());
}

INSTANTIATE_TEST_SUITE_P(
    PolicyCompat, CompatTest,
    ::testing::Values(CompatRow{"istio_exclude_ports", Compat::kIstio, kIstioExcludePorts, "80",
                                "1.1.1.1", 80, ST_REASON_EXCLUDED_PORT},
                      CompatRow{"istio_exclude_ranges", Compat::kIstio, kIstioExcludeRanges,
                                "10.1.0.0/16", "10.1.0.1", 80, ST_REASON_EXCLUDED_CIDR},
                      CompatRow{"istio_include_ports", Compat::kIstio, kIstioIncludePorts, "80",
                                "1.1.1.1", 81, ST_REASON_NOT_INCLUDED},
                      CompatRow{"istio_include_ranges", Compat::kIstio, kIstioIncludeRanges,
                                "10.1.0.0/16", "1.1.1.1", 80, ST_REASON_NOT_INCLUDED},
                      CompatRow{"istio_include_none", Compat::kIstio, kIstioIncludeRanges, "",
                                "1.1.1.1", 80, ST_REASON_NOT_INCLUDED},
                      CompatRow{"linkerd", Compat::kLinkerd, kLinkerdSkip, "4567-4570,25",
                                "1.1.1.1", 4568, ST_REASON_EXCLUDED_PORT},
                      CompatRow{"kuma_ports", Compat::kKuma, kKumaPorts, "80", "1.1.1.1", 80,
                                ST_REASON_EXCLUDED_PORT},
                      CompatRow{"kuma_ips", Compat::kKuma, kKumaIps, "10.1.0.1", "10.1.0.1", 80,
                                ST_REASON_EXCLUDED_CIDR}),
    [](const auto& row) { return row.param.name; });

TEST(PolicyCompat, star_of_istio_is_as_if_the_key_were_absent) {
  Cluster cluster;
  cluster.node.compat = {Compat::kIstio};
  cluster.shop().metadata.annotations = {{kIstioIncludeRanges, "10.0.0.0/8"}};
  cluster.web().metadata.annotations = {{kIstioIncludePorts, "*"}, {kIstioIncludeRanges, " * "}};
  const Resolution resolution = cluster.resolve();
  EXPECT_THAT(resolution.problems, IsEmpty());
  EXPECT_EQ(verdict(*resolution.pods[0].compiled, "1.1.1.1", 80), ST_REASON_NOT_INCLUDED);
}

TEST(PolicyCompat, star_in_an_exclude_list_is_bad_input) {
  Cluster cluster;
  cluster.node.compat = {Compat::kIstio};
  cluster.web().metadata.annotations = {{kIstioExcludeRanges, "*"}};
  EXPECT_EQ(cluster.resolve_web().reason, "invalid_annotation");
}

TEST(PolicyCompat, ours_replaces_theirs_on_the_same_object) {
  Cluster cluster;
  cluster.node.compat = {Compat::kIstio};
  cluster.web().metadata.annotations = {
      {kExcludePorts, "443"}, {kIstioExcludePorts, "80"}, {kIstioExcludeRanges, "10.1.0.0/16"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 443), ST_REASON_EXCLUDED_PORT);
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 80), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(*web.compiled, "10.1.0.1", 80), ST_REASON_EXCLUDED_CIDR);
}

TEST(PolicyCompat, ours_on_the_namespace_adds_to_theirs_on_the_pod) {
  Cluster cluster;
  cluster.node.compat = {Compat::kIstio};
  cluster.shop().metadata.annotations = {{kExcludePorts, "443"}};
  cluster.web().metadata.annotations = {{kIstioExcludePorts, "80"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 443), ST_REASON_EXCLUDED_PORT);
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 80), ST_REASON_EXCLUDED_PORT);
}

TEST(PolicyCompat, bad_value_of_theirs_is_not_looked_at_when_ours_is_there) {
  Cluster cluster;
  cluster.node.compat = {Compat::kIstio};
  cluster.web().metadata.annotations = {{kExcludePorts, "443"}, {kIstioExcludePorts, "x"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_THAT(resolution.problems, IsEmpty());
}

TEST(PolicyCompat, bad_value_of_theirs_follows_the_rules_for_ours) {
  Cluster cluster;
  cluster.node.compat = {Compat::kLinkerd};
  cluster.web().metadata.annotations = {{kLinkerdSkip, "80"}};
  static_cast<void>(cluster.resolve());
  cluster.web().metadata.annotations = {{kLinkerdSkip, "x"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(verdict(*resolution.pods[0].compiled, "1.1.1.1", 80), ST_REASON_EXCLUDED_PORT);
  ASSERT_THAT(resolution.problems, SizeIs(1));
  EXPECT_EQ(resolution.problems[0].key, kLinkerdSkip);
}

TEST(PolicyCompat, several_meshes_on_one_object_add_up) {
  Cluster cluster;
  cluster.node.compat = {Compat::kIstio, Compat::kLinkerd, Compat::kKuma};
  cluster.web().metadata.annotations = {
      {kIstioExcludePorts, "80"}, {kLinkerdSkip, "81"}, {kKumaPorts, "82"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 80), ST_REASON_EXCLUDED_PORT);
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 81), ST_REASON_EXCLUDED_PORT);
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 82), ST_REASON_EXCLUDED_PORT);
}

}  // namespace
}  // namespace sidetrack::policy
