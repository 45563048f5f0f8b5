// SPDX-License-Identifier: Apache-2.0
// docs/policy.md: names, merge of levels, who is never enrolled, and what takes effect when an
// object is edited.
#include "tests/unit/policy_fixture.h"

namespace sidetrack::policy {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(PolicyMode, default_is_disabled) {
  const PodIntent web = Cluster(Text{}).resolve_web();
  EXPECT_EQ(web.state, PodState::kSkipped);
  EXPECT_EQ(web.mode, ST_MODE_DISABLED);
  EXPECT_EQ(web.reason, "mode_disabled");
  EXPECT_EQ(web.mode_origin.object, "default");
}

TEST(PolicyMode, namespace_label_enrols) {
  const PodIntent web = Cluster(Text{{kMode, "redirect"}}).resolve_web();
  EXPECT_EQ(web.state, PodState::kEnrol);
  EXPECT_EQ(web.mode, ST_MODE_REDIRECT);
  EXPECT_EQ(web.reason, "");
  EXPECT_EQ(web.mode_origin.object, "Namespace/shop");
}

TEST(PolicyMode, passthrough_is_enrolled) {
  const PodIntent web = Cluster(Text{{kMode, "passthrough"}}).resolve_web();
  EXPECT_EQ(web.state, PodState::kEnrol);
  EXPECT_EQ(web.mode, ST_MODE_PASSTHROUGH);
}

TEST(PolicyMode, pod_label_beats_namespace_label) {
  Cluster cluster(Text{{kMode, "redirect"}});
  cluster.web().metadata.labels = {{kMode, "disabled"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(web.state, PodState::kSkipped);
  EXPECT_EQ(web.mode_origin.object, "Pod/shop/web");
}

TEST(PolicyMode, pod_label_enrols_in_a_disabled_namespace) {
  Cluster cluster(Text{{kMode, "disabled"}});
  cluster.web().metadata.labels = {{kMode, "redirect"}};
  EXPECT_EQ(cluster.resolve_web().mode, ST_MODE_REDIRECT);
}

TEST(PolicyMode, mode_as_annotation_is_no_switch) {
  Cluster cluster(Text{});
  cluster.web().metadata.annotations = {{kMode, "redirect"}};
  EXPECT_EQ(cluster.resolve_web().state, PodState::kSkipped);
}

TEST(PolicyToggle, defaults_are_auto_and_open) {
  const PodIntent web = Cluster().resolve_web();
  EXPECT_EQ(web.fast_path, ST_FAST_PATH_AUTO);
  EXPECT_EQ(web.on_engine_loss, ST_ON_ENGINE_LOSS_OPEN);
  EXPECT_EQ(web.fast_path_origin.object, "default");
}

TEST(PolicyToggle, nearest_level_wins) {
  Cluster cluster(Text{{kMode, "redirect"},
                       {"sidetrack.io/fast-path", "off"},
                       {"sidetrack.io/on-engine-loss", "closed"}});
  EXPECT_EQ(cluster.resolve_web().fast_path, ST_FAST_PATH_OFF);
  EXPECT_EQ(cluster.resolve_web().on_engine_loss, ST_ON_ENGINE_LOSS_CLOSED);
  cluster.web().metadata.labels = {{"sidetrack.io/fast-path", "node"},
                                   {"sidetrack.io/on-engine-loss", "open"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(web.fast_path, ST_FAST_PATH_NODE);
  EXPECT_EQ(web.on_engine_loss, ST_ON_ENGINE_LOSS_OPEN);
  EXPECT_EQ(web.on_engine_loss_origin.object, "Pod/shop/web");
}

TEST(PolicyMerge, excludes_of_node_namespace_and_pod_add_up) {
  Cluster cluster;
  std::vector<std::string> warnings;
  cluster.node.rules = parse_node_rules({"22", "10.1.0.0/16", {}, {}}, warnings).value();
  cluster.shop().metadata.annotations = {{kExcludePorts, "8500"}, {kExcludeCidrs, "10.2.0.0/16"}};
  cluster.web().metadata.annotations = {{kExcludePorts, "8600-8700"},
                                        {kExcludeCidrs, "10.3.0.0/16"}};
  const PodIntent web = cluster.resolve_web();
  for (const std::uint16_t port : std::vector<std::uint16_t>{22, 8500, 8650}) {
    EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", port), ST_REASON_EXCLUDED_PORT) << port;
  }
  for (const char* const host : {"10.1.0.1", "10.2.0.1", "10.3.0.1"}) {
    EXPECT_EQ(verdict(*web.compiled, host, 80), ST_REASON_EXCLUDED_CIDR) << host;
  }
  EXPECT_EQ(verdict(*web.compiled, "10.4.0.1", 80), ST_REASON_REDIRECTED);
  EXPECT_THAT(web.rules.exclude_ports, SizeIs(3));
}

TEST(PolicyMerge, include_of_the_pod_replaces_the_namespaces_per_list) {
  Cluster cluster;
  cluster.shop().metadata.annotations = {{kIncludePorts, "80"}, {kIncludeCidrs, "10.2.0.0/16"}};
  cluster.web().metadata.annotations = {{kIncludePorts, "443"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 443), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 80), ST_REASON_NOT_INCLUDED);
  EXPECT_EQ(verdict(*web.compiled, "10.2.0.1", 80), ST_REASON_REDIRECTED);
}

TEST(PolicyMerge, include_of_the_node_counts_when_no_other_level_sets_it) {
  Cluster cluster;
  std::vector<std::string> warnings;
  cluster.node.rules = parse_node_rules({{}, {}, "80", {}}, warnings).value();
  EXPECT_EQ(verdict(*cluster.resolve_web().compiled, "1.1.1.1", 81), ST_REASON_NOT_INCLUDED);
  cluster.shop().metadata.annotations = {{kIncludePorts, "81"}};
  EXPECT_EQ(verdict(*cluster.resolve_web().compiled, "1.1.1.1", 81), ST_REASON_REDIRECTED);
}

TEST(PolicyMerge, either_include_list_is_enough) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kIncludePorts, "80"}, {kIncludeCidrs, "10.2.0.0/16"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 80), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(*web.compiled, "10.2.0.1", 443), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(*web.compiled, "1.1.1.1", 443), ST_REASON_NOT_INCLUDED);
}

TEST(PolicyMerge, exclude_beats_include) {
  Cluster cluster;
  cluster.web().metadata.annotations = {
      {kIncludeCidrs, "10.2.0.0/16"}, {kExcludeCidrs, "10.2.3.0/24"}, {kExcludePorts, "22"}};
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(verdict(*web.compiled, "10.2.3.1", 80), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(*web.compiled, "10.2.4.1", 22), ST_REASON_EXCLUDED_PORT);
  EXPECT_EQ(verdict(*web.compiled, "10.2.4.1", 80), ST_REASON_REDIRECTED);
}

TEST(PolicyMerge, empty_include_redirects_nothing_and_empty_exclude_excludes_nothing) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, ""}};
  EXPECT_TRUE(cluster.resolve_web().compiled->empty());
  cluster.web().metadata.annotations = {{kIncludeCidrs, ""}};
  EXPECT_EQ(verdict(*cluster.resolve_web().compiled, "1.1.1.1", 80), ST_REASON_NOT_INCLUDED);
}

TEST(PolicyMerge, pods_with_the_same_lists_share_one_compiled_policy) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{kExcludePorts, "80"}};
  cluster.add_pod("shop", "web2").metadata.annotations = {{kExcludePorts, "80"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].compiled, resolution.pods[1].compiled);
  EXPECT_EQ(resolution.pods[1].rules.exclude_ports[0].origin.object, "Pod/shop/web2");
}

struct VetoRow {
  const char* name;
  void (*change)(Cluster&);
  const char* reason;
};

class VetoTest : public ::testing::TestWithParam<VetoRow> {};

TEST_P(VetoTest, skips_with_the_reason_shown) {
  Cluster cluster;
  cluster.web().metadata.labels = {{kMode, "redirect"}};
  GetParam().change(cluster);
  const PodIntent web = cluster.resolve_web();
  EXPECT_EQ(web.state, PodState::kSkipped);
  EXPECT_EQ(web.mode, ST_MODE_DISABLED);
  EXPECT_EQ(web.reason, GetParam().reason);
  EXPECT_NE(web.reason_detail, "");
}

TEST(OtherMesh, of_the_namespace_does_not_hold_for_a_pod_that_opted_out) {
  Cluster cluster;
  cluster.shop().metadata.labels["istio.io/dataplane-mode"] = "ambient";
  cluster.web().metadata.labels = {{kMode, "redirect"}, {"istio.io/dataplane-mode", "none"}};
  EXPECT_EQ(cluster.resolve_web().state, PodState::kEnrol);
}

constexpr const char* kIstioStatus = "sidecar.istio.io/status";

INSTANTIATE_TEST_SUITE_P(
    PolicyVeto, VetoTest,
    ::testing::Values(
        VetoRow{"host_network", [](Cluster& c) { c.web().host_network = true; }, "host_network"},
        VetoRow{"own_namespace", [](Cluster& c) { c.node.own_namespace = "shop"; },
                "own_namespace"},
        VetoRow{"istio", [](Cluster& c) { c.web().metadata.annotations[kIstioStatus] = "{}"; },
                "has_sidecar"},
        VetoRow{
            "linkerd",
            [](Cluster& c) { c.web().metadata.annotations["linkerd.io/proxy-version"] = "2.14"; },
            "has_sidecar"},
        VetoRow{
            "kuma",
            [](Cluster& c) { c.web().metadata.annotations["kuma.io/sidecar-injected"] = "true"; },
            "has_sidecar"},
        VetoRow{"consul",
                [](Cluster& c) {
                  c.web().metadata.annotations["consul.hashicorp.com/connect-inject-status"] =
                      "injected";
                },
                "has_sidecar"},
        VetoRow{"proxy_container", [](Cluster& c) { c.web().mesh_container = "istio-proxy"; },
                "has_sidecar"},
        VetoRow{"ambient_status",
                [](Cluster& c) {
                  c.web().metadata.annotations["ambient.istio.io/redirection"] = "enabled";
                },
                "other_mesh"},
        VetoRow{"ambient_pod",
                [](Cluster& c) { c.web().metadata.labels["istio.io/dataplane-mode"] = "ambient"; },
                "other_mesh"},
        VetoRow{"ambient_namespace",
                [](Cluster& c) { c.shop().metadata.labels["istio.io/dataplane-mode"] = "ambient"; },
                "other_mesh"},
        VetoRow{"succeeded", [](Cluster& c) { c.web().phase = "Succeeded"; }, "finished"},
        VetoRow{"failed", [](Cluster& c) { c.web().phase = "Failed"; }, "finished"},
        VetoRow{"mode", [](Cluster& c) { c.web().metadata.labels[kMode] = "disabled"; },
                "mode_disabled"},
        VetoRow{"host_network_first",
                [](Cluster& c) {
                  c.web().host_network = true;
                  c.node.own_namespace = "shop";
                },
                "host_network"},
        VetoRow{"own_namespace_before_sidecar",
                [](Cluster& c) {
                  c.node.own_namespace = "shop";
                  c.web().metadata.annotations[kIstioStatus] = "{}";
                },
                "own_namespace"},
        VetoRow{"sidecar_before_finished",
                [](Cluster& c) {
                  c.web().metadata.annotations[kIstioStatus] = "{}";
                  c.web().phase = "Failed";
                },
                "has_sidecar"},
        VetoRow{"finished_before_mode",
                [](Cluster& c) {
                  c.web().phase = "Failed";
                  c.web().metadata.labels[kMode] = "disabled";
                },
                "finished"}),
    [](const auto& row) { return row.param.name; });

TEST(PolicyNode, only_pods_of_this_node_sorted) {
  Cluster cluster;
  cluster.add_pod("shop", "elsewhere").node_name = "n2";
  cluster.add_pod("shop", "unscheduled").node_name = "";
  cluster.add_pod("bank", "ledger");
  cluster.add_pod("shop", "api");
  std::vector<std::string> names;
  for (const PodIntent& pod : cluster.resolve().pods) {
    names.push_back(pod.namespace_name + "/" + pod.name);
  }
  EXPECT_THAT(names, ElementsAre("bank/ledger", "shop/api", "shop/web"));
}

TEST(PolicyNode, any_node_takes_pods_without_a_node_and_their_netns) {
  Cluster cluster;
  cluster.node.any_node = true;
  cluster.web().node_name = "";
  cluster.web().metadata.annotations = {{"sidetrack.io/netns", "/run/netns/web"}};
  cluster.add_pod("shop", "elsewhere").node_name = "n2";
  const Resolution resolution = cluster.resolve();
  ASSERT_THAT(resolution.pods, SizeIs(1));
  EXPECT_EQ(resolution.pods[0].netns_path, "/run/netns/web");
}

TEST(PolicyNode, a_cluster_pod_cannot_choose_its_netns) {
  Cluster cluster;
  cluster.web().metadata.annotations = {{"sidetrack.io/netns", "/proc/1/ns/net"}};
  EXPECT_EQ(cluster.resolve_web().netns_path, "");
}

TEST(PolicyNode, addresses_are_parsed_and_bad_ones_reported) {
  Cluster cluster;
  cluster.web().addresses = {"10.0.0.7", "fd00::7", "nonsense"};
  cluster.web().container_ports = {8080};
  const Resolution resolution = cluster.resolve();
  ASSERT_THAT(resolution.pods[0].addresses, SizeIs(2));
  EXPECT_EQ(format_address(resolution.pods[0].addresses[1]), "fd00::7");
  EXPECT_THAT(resolution.pods[0].container_ports, ElementsAre(8080));
  ASSERT_THAT(resolution.problems, SizeIs(1));
  EXPECT_EQ(resolution.problems[0].value, "nonsense");
}

TEST(PolicyNamespace, missing_object_means_disabled_with_one_problem) {
  Cluster cluster;
  cluster.objects.namespaces.clear();
  cluster.add_pod("shop", "web2");
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].reason, "mode_disabled");
  ASSERT_THAT(resolution.problems, SizeIs(1));
  EXPECT_EQ(resolution.problems[0].object, "Namespace/shop");
}

TEST(PolicyNamespace, pod_label_enrols_without_a_namespace_object) {
  Cluster cluster;
  cluster.objects.namespaces.clear();
  cluster.web().metadata.labels = {{kMode, "redirect"}};
  const Resolution resolution = cluster.resolve();
  EXPECT_EQ(resolution.pods[0].mode, ST_MODE_REDIRECT);
  EXPECT_THAT(resolution.problems, SizeIs(1));
}

TEST(PolicyLive, an_edit_gives_a_new_policy_and_leaves_the_old_one_as_it_was) {
  Cluster cluster;
  cluster.shop().metadata.annotations = {{kExcludePorts, "80"}, {kExcludeCidrs, "10.1.0.0/16"}};
  const PodIntent before = cluster.resolve_web();
  cluster.shop().metadata.annotations = {{kExcludePorts, "81"}, {kExcludeCidrs, "10.2.0.0/16"}};
  const PodIntent after = cluster.resolve_web();
  EXPECT_NE(before.compiled->fingerprint(), after.compiled->fingerprint());
  EXPECT_EQ(verdict(*before.compiled, "10.1.0.1", 443), ST_REASON_EXCLUDED_CIDR);
  EXPECT_EQ(verdict(*after.compiled, "10.1.0.1", 80), ST_REASON_REDIRECTED);
  EXPECT_EQ(verdict(*after.compiled, "10.2.0.1", 443), ST_REASON_EXCLUDED_CIDR);
}

TEST(PolicyLive, resolving_twice_gives_the_same) {
  Cluster cluster;
  cluster.shop().metadata.annotations = {{kExcludePorts, "80"},
                                         {kExcludeCidrs, "10.1.0.0/16:9,fd00::/8"}};
  EXPECT_EQ(cluster.resolve_web().compiled->fingerprint(),
            cluster.resolve_web().compiled->fingerprint());
}

TEST(PolicyNode, option_that_does_not_parse_is_an_error_with_its_name) {
  std::vector<std::string> warnings;
  const auto rules = parse_node_rules({{}, "10.0.0.0/99", {}, {}}, warnings);
  ASSERT_FALSE(rules);
  EXPECT_THAT(rules.error().message, HasSubstr("exclude-outbound-cidrs"));
  EXPECT_THAT(rules.error().message, HasSubstr("10.0.0.0/99"));
}

TEST(PolicyNode, host_bits_of_an_option_are_a_warning) {
  std::vector<std::string> warnings;
  ASSERT_TRUE(parse_node_rules({{}, {}, {}, "10.0.0.1/8"}, warnings));
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("include-outbound-cidrs")));
}

}  // namespace
}  // namespace sidetrack::policy
