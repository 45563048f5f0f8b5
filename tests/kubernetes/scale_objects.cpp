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

constexpr int kNone = -1;

std::string pods_of(int i) {
  return fmt::format("/api/v1/namespaces/{}/pods", scale_namespace(i));
}

std::string slices_of(int i) {
  return fmt::format("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", scale_namespace(i));
}

// Of the i-th service; `unready` of them is not ready.
json endpoints(int i, int unready) {
  json all = json::array();
  for (int j = 0; j < kScaleEndpointsEach; ++j) {
    const int n = i * kScaleEndpointsEach + j;
    const bool ready = j != unready;
    all.push_back(
        {{"addresses", {fmt::format("10.{}.{}.{}", 1 + n / 65536, n / 256 % 256, n % 256)}},
         {"conditions", {{"ready", ready}, {"serving", ready}, {"terminating", false}}},
         {"nodeName", fmt::format("ip-10-0-{}-12.eu-central-1.compute.internal", n % 20)},
         {"zone", "eu-central-1a"},
         {"targetRef", {{"kind", "Pod"}, {"name", fmt::format("web-{}", n)}}}});
  }
  return all;
}

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
        pods_of(i),
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
    slice["endpoints"] = endpoints(i, kNone);
    objects.emplace_back(slices_of(i), slice.dump());
  }
  return objects;
}

std::pair<std::string, std::string> scale_change(int n) {
  const int turn = n / 2;
  if (n % 2 == 0) {
    const int i = turn % scale_services();
    return {fmt::format("{}/svc-{}-abcde", slices_of(i), i),
            json{{"endpoints", endpoints(i, turn % kScaleEndpointsEach)}}.dump()};
  }
  const int i = turn % scale_node_pods();
  const int port = turn / scale_node_pods() % 2 == 0 ? 7 : 9;
  return {fmt::format("{}/web-{}", pods_of(i), i),
          json{{"metadata",
                {{"annotations", {{"sidetrack.io/exclude-outbound-ports", std::to_string(port)}}}}}}
              .dump()};
}

}  // namespace sidetrack::tests
