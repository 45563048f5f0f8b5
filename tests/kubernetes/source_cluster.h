// SPDX-License-Identifier: Apache-2.0
// RealApi: an etcd and a kube-apiserver of a test's own, on free ports of 127.0.0.1, with
// certificates in a temporary folder. The programs come from ${ST_K8S_HOME:-~/.cache/sidetrack-k8s}
// (tests/kubernetes/build.sh makes them) and PATH. One thread uses it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/kube/api_client.h"
#include "tests/kubernetes/source_pki.h"
#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::tests {

// The path of a cluster's program ("kube-apiserver"). kNotFound: says how it is made.
[[nodiscard]] Result<std::string> find_program(const std::string& name);

class RealApi {
 public:
  // kNotFound: a program is not there; says which and how it is made.
  [[nodiscard]] static Result<std::unique_ptr<RealApi>> start(
      const std::vector<std::string>& more_arguments = {});

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string url() const;
  [[nodiscard]] const Pki& pki() const { return *pki_; }
  [[nodiscard]] std::filesystem::path folder() const { return folder_->path(); }
  [[nodiscard]] pid_t pid() const { return server_->pid(); }

  // An administrator's, for a thread of its own.
  [[nodiscard]] Result<std::unique_ptr<kube::ApiClient>> make_client() const;
  // As an administrator; the outcome of the request and, in `body`, the answer.
  kube::ApiOutcome call(const std::string& method, const std::string& target,
                        const std::string& object = "", std::string* body = nullptr);
  // POSTs, which must succeed.
  Result<void> create(const std::string& target, const std::string& object);
  // Many at once, in any order.
  Result<void> create_all(const std::vector<std::pair<std::string, std::string>>& objects);

  // Makes ServiceAccount NAMESPACE/agent (and the namespace) with the rights that
  // docs/kubernetes-source.md names, less `without`.
  Result<void> make_account(const std::string& namespace_name, const std::string& without = "");
  // Makes DaemonSet NAMESPACE/sidetrack, which a finalizer, if there is one, keeps when it is
  // deleted.
  Result<void> make_daemonset(const std::string& namespace_name, const std::string& finalizer = "");
  // A token of that account.
  Result<std::string> make_token(const std::string& namespace_name);

 private:
  RealApi() = default;
  Result<void> make_certificates();
  Result<void> grant(const std::string& scope, const std::string& namespace_name,
                     const nlohmann::json& rules);
  Result<void> start_etcd(const std::string& etcd);
  Result<void> start_server(const std::string& program,
                            const std::vector<std::string>& more_arguments);

  std::optional<lab::TempDir> folder_;
  std::optional<Pki> pki_;
  std::uint16_t etcd_port_ = 0;
  std::uint16_t port_ = 0;
  std::unique_ptr<lab::Process> etcd_;
  std::unique_ptr<lab::Process> server_;
  std::unique_ptr<kube::ApiClient> client_;
};

}  // namespace sidetrack::tests
