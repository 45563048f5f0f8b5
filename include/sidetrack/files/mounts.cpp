// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/files/mounts.h"

#include <sstream>
#include <utility>

namespace sidetrack::files {
namespace {

// The kernel writes a space, tab, line end or backslash in a path as \040 (fs/seq_file.c,
// mangle_path).
std::string unescape(const std::string& word) {
  std::string path;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const bool escaped = word[i] == '\\' && word.find_first_not_of("01234567", i + 1) >= i + 4 &&
                         i + 3 < word.size();
    if (escaped) {
      path += static_cast<char>(std::stoi(word.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      path += word[i];
    }
  }
  return path;
}

}  // namespace

// "41 31 0:38 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw"
std::vector<Mount> parse_mountinfo(const std::string& text) {
  std::vector<Mount> mounts;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Mount mount;
    std::string skipped;
    words >> skipped >> skipped >> skipped >> mount.root >> mount.point;
    while (words >> skipped && skipped != "-") {
    }
    if (words >> mount.type) {
      mount.root = unescape(mount.root);
      mount.point = unescape(mount.point);
      mounts.push_back(std::move(mount));
    }
  }
  return mounts;
}

}  // namespace sidetrack::files
