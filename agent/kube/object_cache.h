// SPDX-License-Identifier: Apache-2.0
// The last good state on disk: one list per resource in a folder, as JSON that an API server could
// have sent, written so that a crash leaves the old file or the new one. ObjectCache writes on a
// thread of its own: a slow disk holds up nobody. A broken file is not used and says so.
#pragma once

#include <array>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "agent/kube/object_store.h"
#include "agent/kube/resource.h"
#include "sidetrack/result.h"

namespace sidetrack::kube {

// Whose objects they are: those of another server or node are not used.
struct CacheOwner {
  std::string server;
  std::string node;
};

struct CachedList {
  std::string version;
  double saved = 0;  // Unix time
  std::size_t objects = 0;
};

class ObjectCache {
 public:
  // An empty folder: nothing is kept. The folder is made at the first write.
  ObjectCache(std::filesystem::path folder, CacheOwner owner);
  // What was given to save() is written before this returns.
  ~ObjectCache();
  ObjectCache(const ObjectCache&) = delete;
  ObjectCache& operator=(const ObjectCache&) = delete;

  // Reads the objects of `resource`, each given to `put` with its key. nullopt: there is no file.
  // kInvalid: it is broken, or another owner's; what was put then must not be used.
  using Put = std::function<void(std::string key, Object object)>;
  [[nodiscard]] Result<std::optional<CachedList>> load(Resource resource, const Put& put) const;

  // The text of the file is head() + ObjectStore::append_text() + kTail.
  [[nodiscard]] std::string head(Resource resource, const std::string& version, double now) const;
  static constexpr const char* kTail = "\n]}\n";
  // Writes it soon. Only the latest of a resource counts.
  void save(Resource resource, std::string text);
  // Why the last write did not succeed; "" if it did. Any thread.
  [[nodiscard]] std::string write_error() const;

 private:
  [[nodiscard]] std::filesystem::path file_of(Resource resource) const;
  void work();

  std::filesystem::path folder_;
  CacheOwner owner_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Resource, std::string> waiting_;
  std::string write_error_;
  bool stopping_ = false;
  std::thread writer_;  // started by the first save()
};

}  // namespace sidetrack::kube
