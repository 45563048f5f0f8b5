// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/pod_cgroup.h"

#include <algorithm>
#include <vector>

namespace sidetrack::pods {
namespace {

// UUIDs with dashes; static pods have an MD5 without.
constexpr std::size_t kUuidLength = 36;
constexpr std::size_t kHashLength = 32;

bool is_uid(std::string_view text) {
  const bool hexadecimal = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-';
  });
  return hexadecimal && (text.size() == kUuidLength || text.size() == kHashLength);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (end != 0) {
      parts.push_back(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// "pod1f2e-.." or "kubepods-burstable-pod1f2e_...slice".
std::string uid_of_folder(std::string_view folder) {
  constexpr std::string_view kSlice = ".slice";
  constexpr std::string_view kPod = "pod";
  const bool systemd = folder.ends_with(kSlice);
  if (systemd) {
    folder.remove_suffix(kSlice.size());
    const std::size_t at = folder.rfind("-pod");
    if (!folder.starts_with("kubepods") || at == std::string_view::npos) {
      return "";
    }
    folder.remove_prefix(at + 1);
  }
  if (!folder.starts_with(kPod)) {
    return "";
  }
  std::string uid(folder.substr(kPod.size()));
  if (systemd) {
    std::replace(uid.begin(), uid.end(), '_', '-');
  }
  return is_uid(uid) ? uid : "";
}

// "4c1d..", "cri-containerd-4c1d...scope", "crio-4c1d...scope".
std::string container_of_folder(std::string_view folder) {
  constexpr std::string_view kScope = ".scope";
  if (folder.ends_with(kScope)) {
    folder.remove_suffix(kScope.size());
    folder.remove_prefix(folder.rfind('-') + 1);  // npos + 1 is 0
  }
  return std::string(folder);
}

}  // namespace

std::optional<PodCgroup> parse_pod_cgroup(std::string_view path) {
  const auto folders = split(path, '/');
  for (std::size_t i = 0; i < folders.size(); ++i) {
    // A runtime that is told systemd names and makes plain folders: "SLICE:cri-containerd:ID".
    const auto parts = split(folders[i], ':');
    const std::string uid = parts.empty() ? "" : uid_of_folder(parts.front());
    if (uid.empty()) {
      continue;
    }
    PodCgroup found{.pod_uid = uid, .container_id = ""};
    if (parts.size() > 1) {
      found.container_id = std::string(parts.back());
    } else if (i + 1 < folders.size()) {
      found.container_id = container_of_folder(folders[i + 1]);
    }
    return found;
  }
  return std::nullopt;
}

std::optional<PodCgroup> parse_process_cgroups(std::string_view text) {
  for (const std::string_view line : split(text, '\n')) {
    // "0::/kubepods/..", "5:memory:/kubepods/..": the path begins after the second colon.
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) {
      continue;
    }
    if (auto found = parse_pod_cgroup(line.substr(second + 1))) {
      return found;
    }
  }
  return std::nullopt;
}

}  // namespace sidetrack::pods
