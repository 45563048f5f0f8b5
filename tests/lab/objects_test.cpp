// SPDX-License-Identifier: Apache-2.0
// What Objects writes is what the agent's own reader finds.
#include "tests/lab/objects.h"

#include <gtest/gtest.h>

#include "agent/kube/folder.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {
namespace {

class ObjectsTest : public testing::Test {
 protected:
  void SetUp() override {
    ST_ASSERT_VALUE(auto folder, TempDir::create("objects"));
    folder_ = std::make_unique<TempDir>(std::move(folder));
    objects_ = std::make_unique<Objects>(folder_->path() / "objects");
  }

  kube::Snapshot read() const {
    kube::ObjectFolder reader(objects_->folder());
    reader.rescan();
    return reader.snapshot();
  }

  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<Objects> objects_;
};

TEST_F(ObjectsTest, namespaces_and_pods_are_read_back) {
  ST_ASSERT_OK(
      objects_->put(NamespaceSpec{.name = "shop", .labels = {{"sidetrack.io/mode", "redirect"}}}));
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "web",
                                     .netns_path = "/run/netns/x",
                                     .addresses = {"10.244.0.2", "fd00:10:244::2"},
                                     .container_ports = {8080}}));
  const kube::Snapshot snapshot = read();
  EXPECT_TRUE(snapshot.problems.empty());
  EXPECT_EQ(snapshot.objects.namespaces.at("shop").metadata.labels.at("sidetrack.io/mode"),
            "redirect");
  const kube::Pod& pod = snapshot.objects.pods.at("shop/web");
  EXPECT_EQ(pod.metadata.annotations.at("sidetrack.io/netns"), "/run/netns/x");
  EXPECT_EQ(pod.addresses, (std::vector<std::string>{"10.244.0.2", "fd00:10:244::2"}));
  EXPECT_EQ(pod.node_name, "node-1");
  EXPECT_EQ(pod.container_ports, std::vector<std::uint16_t>{8080});
}

TEST_F(ObjectsTest, services_have_a_slice_per_family) {
  ST_ASSERT_OK(
      objects_->put(ServiceSpec{.namespace_name = "shop",
                                .name = "api",
                                .cluster_addresses = {"10.96.0.10", "fd00:10:96::a"},
                                .port = 80,
                                .target_port = 8080,
                                .backends = {{.addresses = {"10.244.0.3", "fd00:10:244::3"}},
                                             {.addresses = {"10.244.0.4"}, .ready = false}}}));
  const kube::Snapshot snapshot = read();
  EXPECT_TRUE(snapshot.problems.empty());
  EXPECT_EQ(snapshot.objects.services.at("shop/api").cluster_addresses.size(), 2U);
  EXPECT_EQ(snapshot.objects.services.at("shop/api").ports.at(0).port, 80);
  const kube::EndpointSlice& v4 = snapshot.objects.endpoint_slices.at("shop/api-v4");
  EXPECT_EQ(v4.service_name, "api");
  ASSERT_EQ(v4.endpoints.size(), 2U);
  EXPECT_FALSE(v4.endpoints[1].ready);
  EXPECT_EQ(v4.ports.at(0).port, 8080);
  EXPECT_EQ(snapshot.objects.endpoint_slices.at("shop/api-v6").endpoints.size(), 1U);
}

TEST_F(ObjectsTest, edits_and_removals_show) {
  ST_ASSERT_OK(objects_->put(NamespaceSpec{.name = "shop", .labels = {{"a", "b"}}}));
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop", .name = "web"}));
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "a", std::nullopt));
  ST_ASSERT_OK(objects_->set_annotation(Kind::kPod, "shop/web", "c", "d"));
  kube::Snapshot snapshot = read();
  EXPECT_TRUE(snapshot.objects.namespaces.at("shop").metadata.labels.empty());
  EXPECT_EQ(snapshot.objects.pods.at("shop/web").metadata.annotations.at("c"), "d");
  ST_ASSERT_OK(objects_->remove(Kind::kPod, "shop/web"));
  snapshot = read();
  EXPECT_TRUE(snapshot.objects.pods.empty());
  EXPECT_EQ(objects_->set_label(Kind::kPod, "shop/web", "a", "b").error().code,
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace sidetrack::lab
