// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/kubeconfig.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/kube/yaml.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxTokenBytes = 64UL * 1024;
constexpr std::size_t kMaxConfigBytes = 1024UL * 1024;

Error invalid(std::string message) {
  return make_error(ErrorCode::kInvalid, std::move(message));
}

bool is_set(const json& value) {
  return !value.is_null() && !(value.is_string() && value.get_ref<const std::string&>().empty()) &&
         !(value.is_boolean() && !value.get<bool>());
}

// `where` is "users[dev].user"; a key that is not in `known` and says something is refused.
Result<void> check_keys(const json& object, const std::string& where,
                        std::initializer_list<std::string_view> known) {
  if (!object.is_object()) {
    return invalid(where + " is not an object");
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end() && is_set(value)) {
      return invalid(fmt::format("{}.{} is not supported (supported: {})", where, key,
                                 fmt::join(known, ", ")));
    }
  }
  return {};
}

Result<std::string> text_of(const json& object, const std::string& where, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) {
    return std::string();
  }
  if (!found->is_string()) {
    return invalid(fmt::format("{}.{} is not a string", where, key));
  }
  return found->get<std::string>();
}

// The entry of `list` that is named `name`: its member `member`.
Result<json> find_entry(const json& root, const char* list, const std::string& name,
                        const char* member) {
  const auto entries = root.find(list);
  if (entries != root.end() && entries->is_array()) {
    for (const json& entry : *entries) {
      if (entry.is_object() && entry.value("name", json()) == json(name) &&
          entry.contains(member)) {
        return entry[member];
      }
    }
  }
  return invalid(fmt::format("there is no {} named \"{}\"", list, name));
}

class Reader {
 public:
  explicit Reader(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // The pair KEY (a path) and KEY-data (base64), of which the data wins, as with kubectl.
  Result<Pem> pem(const json& object, const std::string& where, const std::string& key) const {
    auto data = text_of(object, where, (key + "-data").c_str());
    ST_TRY(data);
    auto file = text_of(object, where, key.c_str());
    ST_TRY(file);
    if (data->empty()) {
      return Pem{.file = absolute(*file), .text = {}};
    }
    auto text = decode_base64(*data);
    if (!text) {
      return invalid(fmt::format("{}.{}-data is not base64", where, key));
    }
    return Pem{.file = {}, .text = std::move(*text)};
  }

  [[nodiscard]] std::string absolute(const std::string& path) const {
    return path.empty() ? path : (folder_ / path).string();
  }

 private:
  std::filesystem::path folder_;
};

Result<void> read_cluster(const json& cluster, const std::string& where, const Reader& reader,
                          ApiConfig& config) {
  ST_TRY(check_keys(cluster, where,
                    {"server", "certificate-authority", "certificate-authority-data", "extensions",
                     "disable-compression"}));
  auto server = text_of(cluster, where, "server");
  ST_TRY(server);
  while (server->ends_with('/')) {
    server->pop_back();
  }
  const bool printable =
      std::all_of(server->begin(), server->end(), [](char c) { return c > ' ' && c < '\x7f'; });
  if (!server->starts_with("https://") || server->size() <= 8 || !printable) {
    return invalid(where + ".server must be https://HOST[:PORT]");
  }
  config.server = std::move(*server);
  auto authority = reader.pem(cluster, where, "certificate-authority");
  ST_TRY(authority);
  config.authority = std::move(*authority);
  return {};
}

Result<void> read_user(const json& user, const std::string& where, const Reader& reader,
                       ApiConfig& config) {
  ST_TRY(check_keys(user, where,
                    {"client-certificate", "client-certificate-data", "client-key",
                     "client-key-data", "token", "tokenFile", "extensions"}));
  auto certificate = reader.pem(user, where, "client-certificate");
  ST_TRY(certificate);
  config.client_certificate = std::move(*certificate);
  auto key = reader.pem(user, where, "client-key");
  ST_TRY(key);
  config.client_key = std::move(*key);
  if (config.client_certificate.empty() != config.client_key.empty()) {
    return invalid(where + ": client-certificate and client-key belong together");
  }
  auto token = text_of(user, where, "token");
  ST_TRY(token);
  auto token_file = text_of(user, where, "tokenFile");
  ST_TRY(token_file);
  config.token_file = reader.absolute(*token_file);
  if (config.token_file.empty()) {  // of the two the file wins, as with kubectl
    config.token = std::move(*token);
  }
  return {};
}

Result<std::string> read_file(const std::filesystem::path& file, std::size_t limit) {
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    return errno_error("read " + file.string(), errno == 0 ? EIO : errno);
  }
  std::string text(limit + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad() || (stream.fail() && !stream.eof())) {
    return errno_error("read " + file.string(), errno == 0 ? EIO : errno);
  }
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > limit) {
    return invalid(fmt::format("{} is larger than {} bytes", file.string(), limit));
  }
  return text;
}

// Visible ASCII only: it becomes a line of the request's head.
Result<std::string> check_token(std::string token, const std::string& source) {
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' ')) {
    token.pop_back();
  }
  const bool fine = !token.empty() && std::all_of(token.begin(), token.end(),
                                                  [](char c) { return c > ' ' && c < '\x7f'; });
  if (!fine) {
    return invalid(source + " does not hold a token: one line of visible characters is expected");
  }
  return token;
}

}  // namespace

std::optional<std::string> decode_base64(std::string_view text) {
  std::string decoded;
  std::uint32_t bits = 0;
  unsigned count = 0;
  unsigned padding = 0;
  for (const char c : text) {
    if (c == '\n' || c == '\r' || c == ' ') {
      continue;
    }
    constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::size_t value = kAlphabet.find(c);
    if (c == '=') {
      ++padding;
      continue;
    }
    if (value == std::string_view::npos || padding != 0) {
      return std::nullopt;
    }
    bits = (bits << 6U) | static_cast<std::uint32_t>(value);
    if (++count % 4 == 0) {
      for (const unsigned shift : {16U, 8U, 0U}) {
        decoded.push_back(static_cast<char>((bits >> shift) & 0xFFU));
      }
      bits = 0;
    }
  }
  const unsigned rest = count % 4;
  if (rest == 1 || (rest == 0 ? padding != 0 : padding > 4 - rest)) {
    return std::nullopt;
  }
  if (rest == 2) {
    decoded.push_back(static_cast<char>((bits >> 4U) & 0xFFU));
  } else if (rest == 3) {
    decoded.push_back(static_cast<char>((bits >> 10U) & 0xFFU));
    decoded.push_back(static_cast<char>((bits >> 2U) & 0xFFU));
  }
  return decoded;
}

Result<ApiConfig> parse_kubeconfig(std::string_view text, const std::filesystem::path& folder) {
  Parsed parsed = parse_yaml(text);
  if (parsed.error) {  // its text may be a secret
    return invalid(fmt::format("line {}: {}", parsed.error->line, parsed.error->reason));
  }
  if (parsed.documents.size() != 1 || !parsed.documents.front().value.is_object()) {
    return invalid("is not one YAML document with an object");
  }
  const json& root = parsed.documents.front().value;
  auto name = text_of(root, "kubeconfig", "current-context");
  ST_TRY(name);
  if (name->empty()) {
    return invalid("current-context is not set: kubectl config use-context NAME");
  }
  auto context = find_entry(root, "contexts", *name, "context");
  ST_TRY(context);
  const std::string where = fmt::format("contexts[{}].context", *name);
  ST_TRY(check_keys(*context, where, {"cluster", "user", "namespace", "extensions"}));
  auto cluster_name = text_of(*context, where, "cluster");
  ST_TRY(cluster_name);
  auto user_name = text_of(*context, where, "user");
  ST_TRY(user_name);
  auto cluster = find_entry(root, "clusters", *cluster_name, "cluster");
  ST_TRY(cluster);
  ApiConfig config;
  const Reader reader(folder);
  ST_TRY(
      read_cluster(*cluster, fmt::format("clusters[{}].cluster", *cluster_name), reader, config));
  if (!user_name->empty()) {
    auto user = find_entry(root, "users", *user_name, "user");
    ST_TRY(user);
    ST_TRY(read_user(*user, fmt::format("users[{}].user", *user_name), reader, config));
  }
  return config;
}

Result<ApiConfig> load_kubeconfig(const std::filesystem::path& file) {
  auto text = read_file(file, kMaxConfigBytes);
  if (!text) {
    return text.error().within("kubeconfig");
  }
  std::error_code error;
  const auto folder = std::filesystem::absolute(file, error).parent_path();
  auto config = parse_kubeconfig(*text, folder);
  if (!config) {
    return config.error().within("kubeconfig " + file.string());
  }
  return config;
}

Result<ApiConfig> in_cluster_config(const char* host, const char* port,
                                    const std::filesystem::path& folder) {
  if (host == nullptr || *host == '\0' || port == nullptr || *port == '\0') {
    return make_error(ErrorCode::kNotFound,
                      "not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not "
                      "set; give --kubeconfig FILE");
  }
  const std::string_view number(port);
  const bool is_number =
      number.size() <= 5 &&
      std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!is_number) {
    return invalid(fmt::format("KUBERNETES_SERVICE_PORT={} is not a port", port));
  }
  std::array<unsigned char, 16> bytes{};
  const bool v6 = inet_pton(AF_INET6, host, bytes.data()) == 1;
  ApiConfig config;
  config.server =
      v6 ? fmt::format("https://[{}]:{}", host, port) : fmt::format("https://{}:{}", host, port);
  config.authority.file = (folder / "ca.crt").string();
  config.token_file = (folder / "token").string();
  return config;
}

Result<ApiConfig> load_config(const std::filesystem::path& kubeconfig,
                              const std::filesystem::path& service_account_dir) {
  return kubeconfig.empty()
             ? in_cluster_config(std::getenv("KUBERNETES_SERVICE_HOST"),
                                 std::getenv("KUBERNETES_SERVICE_PORT"), service_account_dir)
             : load_kubeconfig(kubeconfig);
}

Result<std::string> read_token(const ApiConfig& config) {
  if (config.token_file.empty()) {
    return config.token.empty() ? Result<std::string>(std::string())
                                : check_token(config.token, "the kubeconfig's token");
  }
  auto text = read_file(config.token_file, kMaxTokenBytes);
  if (!text) {
    return text.error().within("token");
  }
  return check_token(std::move(*text), config.token_file);
}

}  // namespace sidetrack::kube
