// SPDX-License-Identifier: Apache-2.0
// ObjectFolder: the Kubernetes objects in the *.yaml, *.yml and *.json files of one folder, with
// the last good objects of each file. It reads when told to and waits for nothing: FilesSource
// decides when. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/kube/decode.h"
#include "agent/kube/source.h"
#include "agent/kube/text.h"
#include "sidetrack/result.h"

struct stat;

namespace sidetrack::kube {

class ObjectFolder {
 public:
  explicit ObjectFolder(std::filesystem::path path);

  // Whether files of this name are read.
  [[nodiscard]] static bool is_object_file(std::string_view name);

  // Lists the folder and reads what is new or changed (by device, inode, size and times), or all of
  // it. A folder that cannot be listed keeps all objects and becomes a problem.
  void rescan();
  void reread_everything();
  // Reads one file again, whatever its times say; forgets it if it is gone.
  void reread(const std::string& name);
  // Looks at the files that are symbolic links: the folder's events say nothing of what they point
  // to.
  void rescan_links();

  // The objects of all files by name order, so that the later name wins, and what is wrong.
  [[nodiscard]] Snapshot snapshot() const;

 private:
  struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t modified_ns = 0;
    std::int64_t changed_ns = 0;
    bool operator==(const Identity&) const = default;
  };
  struct File {
    std::optional<Identity> identity;  // none: could not be read, look again
    bool is_link = false;
    bool whole = false;           // its last read was without errors
    std::vector<Object> objects;  // last good
    std::vector<Problem> problems;
  };
  struct Content {
    Identity identity;
    std::string text;
  };

  static Identity identity_of(const struct stat& status);
  [[nodiscard]] std::string source_name(const std::string& name) const;
  [[nodiscard]] Result<Content> read(const std::string& name) const;
  [[nodiscard]] bool changed(const std::string& name, const File& file) const;
  void scan(bool everything);
  void load(const std::string& name, File& file) const;

  std::filesystem::path path_;
  std::map<std::string, File> files_;
  std::optional<Problem> folder_problem_;
};

}  // namespace sidetrack::kube
