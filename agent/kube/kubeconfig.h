// SPDX-License-Identifier: Apache-2.0
// ApiConfig: where the API server is and how we prove who we are, from a pod's service account or
// from a kubeconfig file. Secrets never appear in error messages. What a file refers to is read
// later, at each use, because it rotates.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "sidetrack/result.h"

namespace sidetrack::kube {

// PEM text: in place, or in a file that is read at each use. Both empty: none.
struct Pem {
  std::string file;
  std::string text;
  [[nodiscard]] bool empty() const { return file.empty() && text.empty(); }
};

struct ApiConfig {
  std::string server;  // "https://10.96.0.1:443", may have a path, no "/" at its end
  Pem authority;       // empty: the system's authorities
  Pem client_certificate;
  Pem client_key;
  std::string token;       // at most one of these two
  std::string token_file;  // read before each request
};

inline constexpr const char* kServiceAccountFolder =
    "/var/run/secrets/kubernetes.io/serviceaccount";

// The current context of a kubeconfig file. kNotFound, kPermission, kIo: the file cannot be read;
// kInvalid: it does not parse, misses something, or uses what is not supported (exec, proxies,
// passwords, http://); the message names the key.
[[nodiscard]] Result<ApiConfig> load_kubeconfig(const std::filesystem::path& file);
// The same of its text; relative paths in it start from `folder`. Pure.
[[nodiscard]] Result<ApiConfig> parse_kubeconfig(std::string_view text,
                                                 const std::filesystem::path& folder);

// A pod's configuration: KUBERNETES_SERVICE_HOST and _PORT (null: not set), and the folder with
// `token` and `ca.crt`. kNotFound: not in a pod. Pure.
[[nodiscard]] Result<ApiConfig> in_cluster_config(const char* host, const char* port,
                                                  const std::filesystem::path& folder);

// How to reach the API server: by that file, or, if none is named, as this process's pod.
[[nodiscard]] Result<ApiConfig> load_config(
    const std::filesystem::path& kubeconfig,
    const std::filesystem::path& service_account_dir = kServiceAccountFolder);

// The token to send now, "" for none. kNotFound, kPermission, kIo, kInvalid (empty, not one line).
[[nodiscard]] Result<std::string> read_token(const ApiConfig& config);

// nullopt: not base64.
[[nodiscard]] std::optional<std::string> decode_base64(std::string_view text);

}  // namespace sidetrack::kube
