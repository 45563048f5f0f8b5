// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/source_cluster.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <utility>

#include <nlohmann/json.hpp>

#include "sidetrack/unique_fd.h"
#include "tests/lab/wait.h"

namespace sidetrack::tests {

using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr std::size_t kAtOnce = 32;

std::filesystem::path cluster_home() {
  if (const char* home = std::getenv("ST_K8S_HOME"); home != nullptr && *home != '\0') {
    return home;
  }
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home == nullptr ? "/root" : home) / ".cache/sidetrack-k8s";
}

Result<std::uint16_t> free_port() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{
      .sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (fd.get() < 0 || bind(fd.get(), generic, size) != 0 ||
      getsockname(fd.get(), generic, &size) != 0) {
    return errno_error("a free port", errno);
  }
  return ntohs(address.sin_port);
}

struct Single : kube::ApiCall {
  bool on_data(std::string_view bytes) override {
    body += bytes;
    return true;
  }
  void on_end(const kube::ApiOutcome& ended) override { outcome = ended; }
  std::string body;
  std::optional<kube::ApiOutcome> outcome;
};

json rule(const std::string& group, const std::vector<std::string>& resources,
          const std::vector<std::string>& verbs) {
  return {{"apiGroups", {group}}, {"resources", resources}, {"verbs", verbs}};
}

}  // namespace

Result<std::string> find_program(const std::string& name) {
  std::string path = (cluster_home() / "bin").string() + ":/usr/local/bin:/usr/bin:/usr/sbin";
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    const std::string file = path.substr(at, end - at) + "/" + name;
    if (access(file.c_str(), X_OK) == 0) {
      return file;
    }
    at = end + 1;
  }
  return make_error(ErrorCode::kNotFound,
                    fmt::format("{} is not in {}/bin nor installed: make test-kubernetes builds "
                                "the programs of a cluster",
                                name, cluster_home().string()));
}

Result<std::unique_ptr<RealApi>> RealApi::start(const std::vector<std::string>& more_arguments) {
  const auto etcd = find_program("etcd");
  ST_TRY(etcd);
  const auto program = find_program("kube-apiserver");
  ST_TRY(program);
  std::unique_ptr<RealApi> api(new RealApi());
  auto folder = lab::TempDir::create("kube");
  ST_TRY(folder);
  api->folder_.emplace(std::move(*folder));
  ST_TRY(api->make_certificates());
  ST_TRY(api->start_etcd(*etcd));
  ST_TRY(api->start_server(*program, more_arguments));
  return api;
}

Result<void> RealApi::make_certificates() {
  auto pki = Pki::create(folder());
  ST_TRY(pki);
  pki_.emplace(std::move(*pki));
  ST_TRY(pki_->issue("apiserver", "/CN=kube-apiserver"));
  ST_TRY(pki_->issue("admin", "/O=system:masters/CN=admin"));
  return pki_->make_signing_pair("sa");
}

Result<void> RealApi::start_etcd(const std::string& etcd) {
  const auto port = free_port();
  ST_TRY(port);
  const auto peer_port = free_port();
  ST_TRY(peer_port);
  etcd_port_ = *port;
  const std::string url = fmt::format("http://127.0.0.1:{}", *port);
  const std::string peer = fmt::format("http://127.0.0.1:{}", *peer_port);
  auto started = lab::Process::start(
      {.arguments = {etcd, "--data-dir", (folder() / "etcd").string(), "--unsafe-no-fsync",
                     "--listen-client-urls", url, "--advertise-client-urls", url,
                     "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                     "--initial-cluster", "default=" + peer}});
  ST_TRY(started);
  etcd_ = std::move(*started);
  return {};
}

Result<void> RealApi::start_server(const std::string& program,
                                   const std::vector<std::string>& more_arguments) {
  const auto port = free_port();
  ST_TRY(port);
  port_ = *port;
  const auto file = [this](const char* name) { return pki_->file(name); };
  std::vector<std::string> arguments = {program,
                                        "--etcd-servers",
                                        fmt::format("http://127.0.0.1:{}", etcd_port_),
                                        "--secure-port",
                                        std::to_string(port_),
                                        "--bind-address",
                                        "127.0.0.1",
                                        "--advertise-address",
                                        "10.198.0.1",
                                        "--endpoint-reconciler-type",
                                        "none",
                                        "--service-cluster-ip-range",
                                        "10.96.0.0/16",
                                        "--authorization-mode",
                                        "RBAC",
                                        "--disable-admission-plugins",
                                        "ServiceAccount",
                                        "--tls-cert-file",
                                        file("apiserver.crt"),
                                        "--tls-private-key-file",
                                        file("apiserver.key"),
                                        "--client-ca-file",
                                        pki_->authority(),
                                        "--service-account-issuer",
                                        "https://kubernetes.default.svc",
                                        "--service-account-key-file",
                                        file("sa.pub"),
                                        "--service-account-signing-key-file",
                                        file("sa.key"),
                                        "--max-requests-inflight",
                                        "2000",
                                        "--max-mutating-requests-inflight",
                                        "1000"};
  arguments.insert(arguments.end(), more_arguments.begin(), more_arguments.end());
  auto started = lab::Process::start({.arguments = std::move(arguments)});
  ST_TRY(started);
  server_ = std::move(*started);
  auto client = make_client();
  ST_TRY(client);
  client_ = std::move(*client);
  const bool ready = lab::eventually(
      lab::scaled(120s), [this] { return !server_->running() || call("GET", "/readyz").ok(); });
  if (!ready || !server_->running()) {
    return make_error(ErrorCode::kInternal, "kube-apiserver: " + server_->output());
  }
  return {};
}

Result<std::unique_ptr<kube::ApiClient>> RealApi::make_client() const {
  kube::ApiConfig config{.server = url()};
  config.authority.file = pki_->authority();
  config.client_certificate.file = pki_->file("admin.crt");
  config.client_key.file = pki_->file("admin.key");
  return kube::ApiClient::create(std::move(config));
}

kube::ApiOutcome RealApi::call(const std::string& method, const std::string& target,
                               const std::string& object, std::string* body) {
  Single single;
  client_->start(
      {.method = method,
       .target = target,
       .body = object,
       .content_type = method == "PATCH" ? "application/merge-patch+json" : "application/json"},
      single);
  while (!single.outcome) {
    client_->run(std::chrono::steady_clock::now() + 1s);
  }
  if (body != nullptr) {
    *body = single.body;
  }
  return *single.outcome;
}

Result<void> RealApi::create_all(const std::vector<std::pair<std::string, std::string>>& objects) {
  std::deque<Single> open;
  for (std::size_t next = 0; next < objects.size() || !open.empty();) {
    while (next < objects.size() && open.size() < kAtOnce) {
      client_->start({.method = "POST",
                      .target = objects[next].first,
                      .body = objects[next].second,
                      .content_type = "application/json"},
                     open.emplace_back());
      ++next;
    }
    client_->run(std::chrono::steady_clock::now() + 1s);
    while (!open.empty() && open.front().outcome) {
      const kube::ApiOutcome outcome = *open.front().outcome;
      open.pop_front();
      if (!outcome.ok()) {
        return make_error(ErrorCode::kInternal,
                          fmt::format("{} {} {}", outcome.status, outcome.error, outcome.body));
      }
    }
  }
  return {};
}

Result<void> RealApi::create(const std::string& target, const std::string& object) {
  return create_all({{target, object}});
}

std::string RealApi::url() const {
  return fmt::format("https://127.0.0.1:{}", port_);
}

Result<void> RealApi::make_daemonset(const std::string& namespace_name,
                                     const std::string& finalizer) {
  json metadata = {{"name", "sidetrack"}};
  if (!finalizer.empty()) {
    metadata["finalizers"] = {finalizer};
  }
  return create(
      "/apis/apps/v1/namespaces/" + namespace_name + "/daemonsets",
      json{{"metadata", metadata},
           {"spec",
            {{"selector", {{"matchLabels", {{"a", "b"}}}}},
             {"template",
              {{"metadata", {{"labels", {{"a", "b"}}}}},
               {"spec", {{"containers", json::array({{{"name", "c"}, {"image", "i"}}})}}}}}}}}
          .dump());
}

Result<void> RealApi::make_account(const std::string& namespace_name, const std::string& without) {
  const std::string path = "/api/v1/namespaces/" + namespace_name;
  call("POST", "/api/v1/namespaces", json{{"metadata", {{"name", namespace_name}}}}.dump());
  ST_TRY(create(path + "/serviceaccounts", R"({"metadata":{"name":"agent"}})"));
  json rules = json::array();
  for (const char* resource : {"pods", "namespaces", "services", "nodes"}) {
    if (resource != without) {
      rules.push_back(rule("", {resource}, {"list", "watch"}));
    }
  }
  rules.push_back(rule("discovery.k8s.io", {"endpointslices"}, {"list", "watch"}));
  rules.push_back(rule("", {"events"}, {"create"}));
  ST_TRY(grant("", namespace_name, rules));
  json daemonsets = rule("apps", {"daemonsets"}, {"get", "list", "watch"});
  daemonsets["resourceNames"] = {"sidetrack"};
  return grant("namespaces/" + namespace_name + "/", namespace_name, json::array({daemonsets}));
}

// `scope` is "" for the whole cluster.
Result<void> RealApi::grant(const std::string& scope, const std::string& namespace_name,
                            const json& rules) {
  const std::string name = "sidetrack-" + namespace_name;
  const std::string path = "/apis/rbac.authorization.k8s.io/v1/" + scope;
  const bool cluster = scope.empty();
  ST_TRY(create(path + (cluster ? "clusterroles" : "roles"),
                json{{"metadata", {{"name", name}}}, {"rules", rules}}.dump()));
  return create(
      path + (cluster ? "clusterrolebindings" : "rolebindings"),
      json{{"metadata", {{"name", name}}},
           {"roleRef",
            {{"apiGroup", "rbac.authorization.k8s.io"},
             {"kind", cluster ? "ClusterRole" : "Role"},
             {"name", name}}},
           {"subjects",
            {{{"kind", "ServiceAccount"}, {"name", "agent"}, {"namespace", namespace_name}}}}}
          .dump());
}

Result<std::string> RealApi::make_token(const std::string& namespace_name) {
  std::string body;
  const auto outcome = call(
      "POST", fmt::format("/api/v1/namespaces/{}/serviceaccounts/agent/token", namespace_name),
      R"({"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"expirationSeconds":3600}})",
      &body);
  const json value = json::parse(body, nullptr, false);
  if (!outcome.ok() || !value.is_object()) {
    return make_error(ErrorCode::kInternal, "token: " + outcome.body);
  }
  return value["status"]["token"].get<std::string>();
}

}  // namespace sidetrack::tests
