// SPDX-License-Identifier: Apache-2.0
// CannedApi: as much of an API server as the watches ask for, over TLS: lists of given objects, and
// watches that send what the test says. For faults that a real one cannot be made to have; the real
// one is in source_cluster.h.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tests/kubernetes/source_pki.h"
#include "tests/kubernetes/source_tls_server.h"

namespace sidetrack::tests {

// "pods" of "/api/v1/pods?watch=1"; "list", "watch" or "stream" (a watch that begins with a list),
// "POST" and the like as they are; the value of a parameter.
[[nodiscard]] std::string resource_of(const HttpRequest& request);
[[nodiscard]] std::string verb_of(const HttpRequest& request);
[[nodiscard]] bool is_watch(const HttpRequest& request);
[[nodiscard]] std::string parameter(const HttpRequest& request, const std::string& name);

class CannedApi {
 public:
  // True: it has answered, and nothing else is to be done.
  using Override = std::function<bool(const HttpRequest&, Answer&)>;

  // Also writes `kubeconfig` (with token "t") into `folder`.
  [[nodiscard]] static Result<std::unique_ptr<CannedApi>> start(
      const std::filesystem::path& folder);
  ~CannedApi();

  [[nodiscard]] std::filesystem::path kubeconfig() const { return folder_ / "kubeconfig"; }
  [[nodiscard]] TlsServer& server() { return *server_; }
  // The objects of a list, each as JSON.
  void set(const std::string& resource, const std::vector<std::string>& objects);
  // An event on all watches of `resource`, now and in the time to come.
  void send(const std::string& resource, const std::string& type, const std::string& object);
  // Asked first. Null: nobody.
  void set_override(Override decide);
  void set_version(int version);
  // The requests so far: "list pods", "watch pods", "stream pods".
  [[nodiscard]] std::map<std::string, int> requests();
  [[nodiscard]] std::vector<HttpRequest> log();

 private:
  CannedApi() = default;
  void handle(const HttpRequest& request, Answer& answer);
  void watch(const std::string& resource, Answer& answer);
  void write_kubeconfig() const;

  std::filesystem::path folder_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::string>> objects_;
  std::map<std::string, std::vector<std::string>> events_;
  std::vector<HttpRequest> log_;
  Override override_;
  int version_ = 100;
  std::unique_ptr<TlsServer> server_;  // last: its threads use the rest
};

}  // namespace sidetrack::tests
