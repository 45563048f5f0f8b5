// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/source_canned.h"

#include <fmt/format.h>

#include <fstream>
#include <utility>

namespace sidetrack::tests {

using namespace std::chrono_literals;

namespace {

const std::map<std::string, std::string> kKinds = {{"namespaces", "Namespace"},
                                                   {"pods", "Pod"},
                                                   {"services", "Service"},
                                                   {"endpointslices", "EndpointSlice"},
                                                   {"nodes", "Node"}};

}  // namespace

std::string resource_of(const HttpRequest& request) {
  const std::string path = request.target.substr(0, request.target.find('?'));
  return path.substr(path.rfind('/') + 1);
}

std::string verb_of(const HttpRequest& request) {
  if (request.method != "GET") {
    return request.method;
  }
  if (!is_watch(request)) {
    return "list";
  }
  return parameter(request, "sendInitialEvents").empty() ? "watch" : "stream";
}

bool is_watch(const HttpRequest& request) {
  return parameter(request, "watch") == "1";
}

std::string parameter(const HttpRequest& request, const std::string& name) {
  for (const char separator : {'?', '&'}) {
    const std::string key = separator + name + "=";
    if (const std::size_t at = request.target.find(key); at != std::string::npos) {
      const std::size_t from = at + key.size();
      return request.target.substr(from, request.target.find('&', from) - from);
    }
  }
  return {};
}

Result<std::unique_ptr<CannedApi>> CannedApi::start(const std::filesystem::path& folder) {
  auto pki = Pki::create(folder);
  ST_TRY(pki);
  ST_TRY(pki->issue("server", "/CN=server"));
  std::unique_ptr<CannedApi> api(new CannedApi());
  api->folder_ = folder;
  api->set("namespaces", {R"({"metadata":{"name":"default","resourceVersion":"1"}})"});
  auto server = TlsServer::start(pki->file("server.crt"), pki->file("server.key"),
                                 [raw = api.get()](const HttpRequest& request, Answer& answer) {
                                   raw->handle(request, answer);
                                 });
  ST_TRY(server);
  api->server_ = std::move(*server);
  api->write_kubeconfig();
  return api;
}

CannedApi::~CannedApi() {
  server_.reset();
}

void CannedApi::write_kubeconfig() const {
  std::ofstream(kubeconfig()) << fmt::format(
      "current-context: a\ncontexts:\n- name: a\n  context: {{cluster: a, user: a}}\n"
      "clusters:\n- name: a\n  cluster: {{server: \"{}\", certificate-authority: ca.crt}}\n"
      "users:\n- name: a\n  user: {{token: t}}\n",
      server_->url());
}

void CannedApi::set(const std::string& resource, const std::vector<std::string>& objects) {
  const std::lock_guard lock(mutex_);
  objects_[resource] = objects;
}

void CannedApi::send(const std::string& resource, const std::string& type,
                     const std::string& object) {
  const std::lock_guard lock(mutex_);
  events_[resource].push_back(fmt::format("{{\"type\":\"{}\",\"object\":{}}}\n", type, object));
}

void CannedApi::set_override(Override decide) {
  const std::lock_guard lock(mutex_);
  override_ = std::move(decide);
}

void CannedApi::set_version(int version) {
  const std::lock_guard lock(mutex_);
  version_ = version;
}

std::map<std::string, int> CannedApi::requests() {
  std::map<std::string, int> counts;
  for (const HttpRequest& request : log()) {
    ++counts[fmt::format("{} {}", verb_of(request), resource_of(request))];
  }
  return counts;
}

std::vector<HttpRequest> CannedApi::log() {
  const std::lock_guard lock(mutex_);
  return log_;
}

void CannedApi::handle(const HttpRequest& request, Answer& answer) {
  Override decide;
  std::string items;
  int version = 0;
  const std::string resource = resource_of(request);
  {
    const std::lock_guard lock(mutex_);
    log_.push_back(request);
    decide = override_;
    version = version_;
    items = fmt::format("{}", fmt::join(objects_[resource], ","));
  }
  if (decide && decide(request, answer)) {
    return;
  }
  if (verb_of(request) == "stream") {
    answer.respond(422, R"({"kind":"Status","reason":"Invalid","code":422})");
  } else if (is_watch(request)) {
    watch(resource, answer);
  } else if (kKinds.contains(resource)) {
    answer.respond(200, fmt::format(R"({{"kind":"{}List","apiVersion":"v1","metadata":)"
                                    R"({{"resourceVersion":"{}"}},"items":[{}]}})",
                                    kKinds.at(resource), version, items));
  } else {
    answer.respond(404, R"({"kind":"Status","reason":"NotFound","code":404})");
  }
}

void CannedApi::watch(const std::string& resource, Answer& answer) {
  std::size_t sent = 0;
  {
    const std::lock_guard lock(mutex_);
    sent = events_[resource].size();
  }
  bool alive = answer.begin_chunks();
  while (alive) {
    std::string text;
    {
      const std::lock_guard lock(mutex_);
      const auto& events = events_[resource];
      for (; sent < events.size(); ++sent) {
        text += events[sent];
      }
    }
    alive = text.empty() || answer.write_chunk(text);
    alive = alive && answer.pause(5ms);
  }
}

}  // namespace sidetrack::tests
