// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/scale_objects.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include <nlohmann/json.hpp>

namespace sidetrack::tests {

using nlohmann::json;

namespace {

constexpr int kPods = 5000;
constexpr int kNodePods = 250;
constexpr int kServices = 2000;
constexpr int kNamespaces = 100;

}  // namespace

int scale_divisor() {
  const char* text = std::getenv("ST_SCALE_CLUSTER");
  return text == nullptr ? 10 : std::max(1, std::atoi(text));
}

int scale_node_pods() {
  return kNodePods / scale_divisor();
}

int scale_services() {
  return kServices / scale_divisor();
}

std::string scale_namespace(int i) {
  return fmt::format("ns-{}", i % kNamespaces);
}

Objects scale_namespaces() {
  Objects objects;
  for (int i = 0; i < kNamespaces; ++i) {
    objects.emplace_back(
        "/api/v1/namespaces",
        fmt::format(R"({{"metadata":{{"name":"{}","labels":{{"sidetrack.io/mode":"redirect"}}}}}})",
                    scale_namespace(i)));
  }
  return objects;
}

Objects scale_pods(const std::string& node) {
  Objects objects;
  for (int i = 0; i < kPods / scale_divisor(); ++i) {
    const bool ours = i < scale_node_pods();
    objects.emplace_back(
        fmt::format("/api/v1/namespaces/{}/pods", scale_namespace(i)),
        fmt::format(
            R"({{"metadata":{{"name":"web-{}","labels":{{"app":"web-{}",)"
            R"("pod-template-hash":"6d5f7b9c8d"}}}},"spec":{{"nodeName":"{}",)"
            R"("containers":[{{"name":"c","image":"registry.example/shop/web:1.2.3",)"
            R"("ports":[{{"containerPort":8080}}],"env":[{{"name":"A","value":"b"}}]}}]}}}})",
            i, i, ours ? node : fmt::format("other-{}", i % 20)));
  }
  return objects;
}

Objects scale_service_objects() {
  Objects objects;
  for (int i = 0; i < scale_services(); ++i) {
    objects.emplace_back(fmt::format("/api/v1/namespaces/{}/services", scale_namespace(i)),
                         fmt::format(R"({{"metadata":{{"name":"svc-{}","labels":{{"app":"a"}}}},)"
                                     R"("spec":{{"selector":{{"app":"a"}},"ports":)"
                                     R"([{{"name":"http","port":80}}]}}}})",
                                     i));
  }
  return objects;
}

Objects scale_slices() {
  Objects objects;
  for (int i = 0; i < scale_services(); ++i) {
    json slice = json::parse(fmt::format(
        R"({{"metadata":{{"name":"svc-{}-abcde","labels":{{"kubernetes.io/service-name":)"
        R"("svc-{}"}}}},"addressType":"IPv4","ports":[{{"name":"http","port":8080}}]}})",
        i, i));
    for (int j = 0; j < kScaleEndpointsEach; ++j) {
      const int n = i * kScaleEndpointsEach + j;
      slice["endpoints"].push_back(
          {{"addresses", {fmt::format("10.{}.{}.{}", 1 + n / 65536, n / 256 % 256, n % 256)}},
           {"conditions", {{"ready", true}, {"serving", true}, {"terminating", false}}},
           {"nodeName", fmt::format("ip-10-0-{}-12.eu-central-1.compute.internal", n % 20)},
           {"zone", "eu-central-1a"},
           {"targetRef", {{"kind", "Pod"}, {"name", fmt::format("web-{}", n)}}}});
    }
    objects.emplace_back(
        fmt::format("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", scale_namespace(i)),
        slice.dump());
  }
  return objects;
}

}  // namespace sidetrack::tests
