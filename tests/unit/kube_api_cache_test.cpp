// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "agent/kube/object_cache.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::kube {
namespace {

const CacheOwner kOwner{.server = "https://api", .node = "node-1"};

std::set<std::string> files_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST(ObjectCache, keeps_the_latest_list_for_its_owner_alone) {
  ST_ASSERT_VALUE(const lab::TempDir parent, lab::TempDir::create("cache"));
  const std::filesystem::path folder = parent.path() / "kubernetes";
  {
    ObjectCache cache(folder, kOwner);
    const auto list = [&cache](const char* version) {
      return cache.head(Resource::kNodes, version, 7) + ObjectCache::kTail;
    };
    cache.save(Resource::kNodes, list("1"));
    cache.save(Resource::kNodes, list("2"));
  }
  struct stat status {};
  ASSERT_EQ(::stat((folder / "nodes.json").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
  const auto ignore = [](const std::string& /*key*/, const Object& /*object*/) {};
  const ObjectCache again(folder, kOwner);
  ST_ASSERT_VALUE(const auto read, again.load(Resource::kNodes, ignore));
  EXPECT_EQ(read.value_or(CachedList{}).version, "2");
  EXPECT_EQ(read.value_or(CachedList{}).saved, 7);
  const ObjectCache others(folder, {.server = "https://api", .node = "node-2"});
  EXPECT_EQ(others.load(Resource::kNodes, ignore).error().code, ErrorCode::kInvalid);
}

TEST(ObjectCache, takes_away_what_a_killed_writer_left) {
  ST_ASSERT_VALUE(const lab::TempDir folder, lab::TempDir::create("cache"));
  std::ofstream(folder.file(".sidetrack-aB3dEf.tmp")) << "half of a list";
  {
    ObjectCache cache(folder.path(), kOwner);
    cache.save(Resource::kPods, "text");
  }
  EXPECT_EQ(files_in(folder.path()), std::set<std::string>{"pods.json"});
}

}  // namespace
}  // namespace sidetrack::kube
