// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/source_faults_fixture.h"

#include <fmt/format.h>

#include <fstream>
#include <utility>

namespace sidetrack::tests {

using namespace std::chrono_literals;

void FaultsTest::SetUpTestSuite() {
  auto api = RealApi::start();
  if (!api && api.error().code == ErrorCode::kNotFound) {
    GTEST_SKIP() << api.error().message;
  }
  ASSERT_TRUE(api) << api.error().message;
  api_ = std::move(*api);
  ST_ASSERT_OK(api_->make_account("sidetrack"));
  ST_ASSERT_VALUE(token_, api_->make_token("sidetrack"));
  ST_ASSERT_OK(api_->create("/api/v1/namespaces", R"({"metadata":{"name":"shop"}})"));
}

void FaultsTest::TearDownTestSuite() {
  api_.reset();
}

void FaultsTest::SetUp() {
  if (!api_) {
    GTEST_SKIP() << "there is no API server: see above";
  }
  auto folder = lab::TempDir::create("faults");
  ASSERT_TRUE(folder);
  folder_.emplace(std::move(*folder));
  ST_ASSERT_VALUE(proxy_, FaultProxy::start(api_->pki(), api_->port()));
  node_ = lab::unique_name("node");
  write_token(token_);
  write_kubeconfig(proxy_->server().url());
}

void FaultsTest::write_kubeconfig(const std::string& server) const {
  std::ofstream(folder_->file("kubeconfig")) << fmt::format(
      "current-context: a\ncontexts:\n- name: a\n  context: {{cluster: a, user: a}}\n"
      "clusters:\n- name: a\n  cluster: {{server: \"{}\", certificate-authority: \"{}\"}}\n"
      "users:\n- name: a\n  user: {{tokenFile: token}}\n",
      server, api_->pki().authority());
}

kube::KubernetesSettings FaultsTest::settings() const {
  auto settings = quick_settings(folder_->file("kubeconfig"));
  settings.node_name = node_;
  settings.cache_dir = folder_->path() / "cache";
  return settings;
}

kube::KubernetesSettings FaultsTest::listing() const {
  auto plain = settings();
  plain.times.reflector.try_watch_list = false;
  return plain;
}

void FaultsTest::write_token(const std::string& token) const {
  ASSERT_TRUE(lab::write_atomically(folder_->file("token"), token));
}

void FaultsTest::add_pod(const std::string& name) const {
  ST_ASSERT_OK(api_->create(
      "/api/v1/namespaces/shop/pods",
      fmt::format(R"({{"metadata":{{"name":"{}-{}"}},"spec":{{"nodeName":"{}","containers":)"
                  R"([{{"name":"c","image":"i","ports":[{{"containerPort":8080}}]}}]}}}})",
                  name, node_, node_)));
}

void FaultsTest::remove_pod(const std::string& name) const {
  const auto outcome = api_->call(
      "DELETE",
      fmt::format("/api/v1/namespaces/shop/pods/{}-{}?gracePeriodSeconds=0", name, node_));
  ASSERT_TRUE(outcome.ok()) << outcome.status << outcome.body;
}

bool FaultsTest::sees(SourceLoop& loop, const std::string& name) {
  return loop.run_until([&] {
    if (!loop.delivered() || !loop.last().complete) {
      return false;
    }
    for (const auto& [key, pod] : loop.last().objects.pods) {
      if (key.starts_with("shop/" + name + "-")) {
        return true;
      }
    }
    return false;
  });
}

void FaultsTest::expect_unshaken(SourceLoop& loop, const std::string& pod, FaultProxy::Rule rule,
                                 std::chrono::milliseconds time) {
  const auto before = loop.last().objects;
  proxy_->reset();
  proxy_->set_rule(std::move(rule));
  proxy_->server().drop_all();
  const bool changed =
      loop.run_until([&] { return !loop.last().complete || loop.last().objects != before; }, time);
  EXPECT_FALSE(changed) << "what was known must stay as it was";
  EXPECT_TRUE(loop.has_pod(fmt::format("shop/{}-{}", pod, node_)));
}

void FaultsTest::expect_recovery(SourceLoop& loop, const std::string& new_pod) {
  proxy_->set_rule(nullptr);
  add_pod(new_pod);
  EXPECT_TRUE(sees(loop, new_pod));
  EXPECT_TRUE(loop.run_until([&] { return loop.problems().empty(); })) << loop.problems();
}

FaultProxy::Rule for_pods(FaultProxy::Rule rule) {
  return [rule = std::move(rule)](const HttpRequest& request, Answer& answer) {
    return request.target.find("/pods?") != std::string::npos && rule(request, answer);
  };
}

FaultProxy::Rule for_watches(FaultProxy::Rule rule) {
  return [rule = std::move(rule)](const HttpRequest& request, Answer& answer) {
    const bool watch = request.target.find("watch=1") != std::string::npos &&
                       request.target.find("sendInitialEvents") == std::string::npos;
    return watch && rule(request, answer);
  };
}

FaultProxy::Rule byte_by_byte(const FaultProxy& proxy) {
  return [&proxy](const HttpRequest& request, Answer& answer) {
    proxy.pass(request, answer, [](std::string_view bytes, Answer& slow) {
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (!slow.write(bytes.substr(i, 1)) || (i % 64 == 0 && !slow.pause(1ms))) {
          return false;
        }
      }
      return true;
    });
    return true;
  };
}

FaultProxy::Rule no_answer() {
  return [](const HttpRequest&, Answer& answer) {
    answer.hang();
    return true;
  };
}

FaultProxy::Rule answer_with(int status, std::string reason, std::string headers) {
  return [=](const HttpRequest&, Answer& answer) {
    answer.respond(status,
                   fmt::format(R"({{"kind":"Status","status":"Failure","reason":"{}","code":{}}})",
                               reason, status),
                   headers);
    return true;
  };
}

}  // namespace sidetrack::tests
