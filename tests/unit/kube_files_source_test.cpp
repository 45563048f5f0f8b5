// SPDX-License-Identifier: Apache-2.0
// A real folder, real inotify, a real event loop; no sleeps: the loop runs until what is expected
// is there or a deadline.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "agent/kube/files_source.h"

namespace sidetrack::kube {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string node(const std::string& name, const std::string& uid = "1") {
  return "apiVersion: v1\nkind: Node\nmetadata: {name: " + name + ", uid: \"" + uid + "\"}\n";
}

class FilesSourceTest : public testing::Test {
 protected:
  FilesSourceTest() {
    std::string pattern = (fs::temp_directory_path() / "st-files-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    folder_ = root_ / "objects";
    fs::create_directory(folder_);
  }
  ~FilesSourceTest() override {
    source_.reset();
    fs::remove_all(root_);
  }

  void start() {
    source_ = std::make_unique<FilesSource>(io_, io_, folder_);
    source_->start([this](const Snapshot& snapshot) { snapshots_.push_back(snapshot); });
    ASSERT_TRUE(run_until([&] { return !snapshots_.empty(); }));
  }

  // `path` is absolute or one in the folder.
  void write(const fs::path& path, const std::string& text) {
    std::ofstream(folder_ / path, std::ios::binary) << text;
  }

  bool run_until(const std::function<bool()>& done, milliseconds limit = milliseconds(5000)) {
    const auto end = steady_clock::now() + limit;
    while (!done() && steady_clock::now() < end) {
      io_.restart();
      io_.run_one_until(end);
    }
    return done();
  }
  // Lets everything happen that is to happen.
  void run_for(milliseconds time) {
    io_.restart();
    io_.run_for(time);
  }

  const Snapshot& last() const { return snapshots_.back(); }
  bool has_node(const std::string& name, const std::string& uid = "1") const {
    const auto found = last().objects.nodes.find(name);
    return found != last().objects.nodes.end() && found->second.metadata.uid == uid;
  }

  fs::path root_;
  fs::path folder_;
  boost::asio::io_context io_;
  std::unique_ptr<FilesSource> source_;
  std::vector<Snapshot> snapshots_;
};

TEST_F(FilesSourceTest, delivers_an_empty_folder) {
  start();
  EXPECT_TRUE(last().objects == ObjectSet{});
  EXPECT_TRUE(last().problems.empty());
}

// In MiB.
std::size_t resident() {
  std::size_t size = 0;
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> size >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / (1024 * 1024);
}

TEST_F(FilesSourceTest, gives_back_what_reading_a_large_file_took) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer has memory of its own";
#endif
  constexpr std::size_t kNodes = 60'000;
  const std::size_t before = resident();
  {
    std::ofstream file(folder_ / "large.yaml");
    for (std::size_t i = 0; i < kNodes; ++i) {
      file << "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: n" << i
           << "\n  uid: \"1\"\nspec:\n  taints:\n"
              "  - {key: a.example.com/key, value: some-value, effect: NoSchedule}\n"
              "  - {key: b.example.com/key, value: some-value, effect: NoSchedule}\n";
    }
  }
  source_ = std::make_unique<FilesSource>(io_, io_, folder_);
  std::size_t nodes = 0;
  source_->start([&nodes](const Snapshot& snapshot) { nodes = snapshot.objects.nodes.size(); });
  ASSERT_TRUE(run_until([&] { return nodes == kNodes; }, milliseconds(60'000)));
  // 46 MiB are the objects; the tree took 200.
  EXPECT_LT(resident(), before + 100);
}

TEST_F(FilesSourceTest, never_calls_from_within_start) {
  source_ = std::make_unique<FilesSource>(io_, io_, folder_);
  source_->start([this](const Snapshot& snapshot) { snapshots_.push_back(snapshot); });
  EXPECT_TRUE(snapshots_.empty());
}

TEST_F(FilesSourceTest, reads_object_files_and_no_others) {
  write("a.yaml", node("a"));
  write("b.yml", node("b"));
  write("c.json", R"({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c", "uid": "1"}})");
  write(".hidden.yaml", node("d"));
  write("e.yaml~", node("e"));
  fs::create_directory(folder_ / "sub.yaml");
  write(folder_ / "sub.yaml" / "f.yaml", node("f"));
  start();
  EXPECT_EQ(last().objects.nodes.size(), 3U);
  EXPECT_TRUE(has_node("a") && has_node("b") && has_node("c"));
  EXPECT_TRUE(last().problems.empty());
}

TEST_F(FilesSourceTest, delivers_an_edit_within_50_ms) {
  write("a.yaml", node("a"));
  start();
  const auto before = steady_clock::now();
  write("a.yaml", node("a", "2"));
  ASSERT_TRUE(run_until([&] { return has_node("a", "2"); }));
  EXPECT_LT(steady_clock::now() - before, milliseconds(50));
}

TEST_F(FilesSourceTest, sees_new_and_deleted_files) {
  start();
  write("a.yaml", node("a"));
  EXPECT_TRUE(run_until([&] { return has_node("a"); }));
  fs::remove(folder_ / "a.yaml");
  EXPECT_TRUE(run_until([&] { return last().objects.nodes.empty(); }));
}

TEST_F(FilesSourceTest, says_which_objects_are_others_than_before) {
  const auto changed = [&] { return last().changes.nodes; };
  using Keys = std::set<std::string>;
  write("a.yaml", node("a") + "---\n" + node("b") + "---\n" + node("c"));
  start();
  EXPECT_EQ(changed(), (Keys{"a", "b", "c"}));
  write("a.yaml", node("a") + "---\n" + node("b", "2") + "---\n" + node("d"));
  ASSERT_TRUE(run_until([&] { return has_node("d"); }));
  EXPECT_EQ(changed(), (Keys{"b", "c", "d"}));
}

TEST_F(FilesSourceTest, takes_the_rename_of_an_editor_as_one_change) {
  write("a.yaml", node("a"));
  start();
  fs::rename(folder_ / "a.yaml", folder_ / "a.yaml~");
  write("a.yaml", node("a", "2"));
  fs::remove(folder_ / "a.yaml~");
  ASSERT_TRUE(run_until([&] { return snapshots_.size() == 2; }));
  EXPECT_TRUE(has_node("a", "2"));
  write(".a.yaml.tmp", node("a", "3"));
  fs::rename(folder_ / ".a.yaml.tmp", folder_ / "a.yaml");
  ASSERT_TRUE(run_until([&] { return snapshots_.size() == 3; }));
  EXPECT_TRUE(has_node("a", "3"));
}

TEST_F(FilesSourceTest, does_not_read_a_file_that_is_being_written) {
  write("a.yaml", node("a"));
  start();
  std::ofstream old_file(folder_ / "a.yaml", std::ios::trunc);
  std::ofstream new_file(folder_ / "b.yaml");
  old_file << "apiVersion: v1\nkind: [" << std::flush;
  new_file << "apiVersion: v1\nkind: [" << std::flush;
  run_for(milliseconds(100));
  EXPECT_EQ(snapshots_.size(), 1U);
  old_file.close();
  new_file.close();
  ASSERT_TRUE(run_until([&] { return snapshots_.size() == 2; }));
  EXPECT_EQ(last().problems.size(), 2U);
  EXPECT_TRUE(has_node("a"));
}

TEST_F(FilesSourceTest, a_broken_file_keeps_its_last_good_objects) {
  write("a.yaml", node("a"));
  write("b.yaml", node("b"));
  start();
  write("a.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: [\n");
  write("b.yaml", node("b", "2"));
  ASSERT_TRUE(run_until([&] { return !last().problems.empty() && has_node("b", "2"); }));
  EXPECT_TRUE(has_node("a"));
  ASSERT_EQ(last().problems.size(), 1U);
  EXPECT_EQ(last().problems[0].object, "file " + (folder_ / "a.yaml").string());
  EXPECT_EQ(last().problems[0].key, "line 4");
  EXPECT_NE(last().problems[0].reason.find("last good"), std::string::npos);
  write("a.yaml", node("a", "2"));
  ASSERT_TRUE(run_until([&] { return last().problems.empty(); }));
  EXPECT_TRUE(has_node("a", "2"));
}

TEST_F(FilesSourceTest, one_bad_object_keeps_its_last_good_self) {
  write("a.yaml", node("a") + "---\n" + node("b"));
  start();
  write("a.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {x: 1}}\n---\n" + node("b", "2"));
  ASSERT_TRUE(run_until([&] { return !last().problems.empty(); }));
  EXPECT_TRUE(has_node("a", "1"));
  EXPECT_TRUE(has_node("b", "2"));
  EXPECT_EQ(last().problems[0].key, "line 3");
}

TEST_F(FilesSourceTest, the_later_file_wins_and_both_are_named) {
  write("a.yaml", node("x", "from-a"));
  write("b.yaml", node("x", "from-b"));
  start();
  EXPECT_TRUE(has_node("x", "from-b"));
  ASSERT_EQ(last().problems.size(), 1U);
  EXPECT_TRUE(last().problems[0].warning);
  EXPECT_EQ(last().problems[0].object, "Node/x");
  EXPECT_EQ(last().problems[0].value, "a.yaml");
  EXPECT_NE(last().problems[0].reason.find("b.yaml"), std::string::npos);
  fs::remove(folder_ / "b.yaml");
  EXPECT_TRUE(run_until([&] { return has_node("x", "from-a") && last().problems.empty(); }));
}

TEST_F(FilesSourceTest, follows_the_swap_of_a_config_map_volume) {
  fs::create_directory(folder_ / "..1");
  write(folder_ / "..1" / "a.yaml", node("a", "1"));
  fs::create_directory_symlink("..1", folder_ / "..data");
  fs::create_symlink("..data/a.yaml", folder_ / "a.yaml");
  start();
  EXPECT_TRUE(has_node("a", "1"));
  fs::create_directory(folder_ / "..2");
  write(folder_ / "..2" / "a.yaml", node("a", "2"));
  fs::create_directory_symlink("..2", folder_ / "..data_tmp");
  const auto before = steady_clock::now();
  fs::rename(folder_ / "..data_tmp", folder_ / "..data");
  ASSERT_TRUE(run_until([&] { return has_node("a", "2"); }));
  EXPECT_LT(steady_clock::now() - before, milliseconds(50));
  EXPECT_EQ(snapshots_.size(), 2U);
}

TEST_F(FilesSourceTest, sees_a_change_behind_a_link_within_some_seconds) {
  write(root_ / "target.yaml", node("a", "1"));
  fs::create_symlink(root_ / "target.yaml", folder_ / "a.yaml");
  start();
  write(root_ / "target.yaml", node("a", "22"));
  EXPECT_TRUE(run_until([&] { return has_node("a", "22"); }));
}

TEST_F(FilesSourceTest, a_removed_folder_keeps_the_last_good_and_is_picked_up_again) {
  write("a.yaml", node("a"));
  start();
  fs::remove_all(folder_);
  ASSERT_TRUE(run_until([&] { return !last().problems.empty(); }));
  EXPECT_TRUE(has_node("a"));
  EXPECT_EQ(last().problems[0].object, "folder " + folder_.string());
  fs::create_directory(folder_);
  write("b.yaml", node("b"));
  ASSERT_TRUE(run_until([&] { return has_node("b") && last().problems.empty(); }));
  EXPECT_FALSE(has_node("a"));
  write("b.yaml", node("b", "2"));
  EXPECT_TRUE(run_until([&] { return has_node("b", "2"); }, milliseconds(500))) << "watched again";
}

TEST_F(FilesSourceTest, a_folder_that_is_missing_at_the_start_is_a_problem_and_picked_up_later) {
  fs::remove(folder_);
  start();
  ASSERT_EQ(last().problems.size(), 1U);
  EXPECT_EQ(last().problems[0].object, "folder " + folder_.string());
  EXPECT_EQ(last().problems[0].key + last().problems[0].value, "");
  fs::create_directory(folder_);
  write("a.yaml", node("a"));
  EXPECT_TRUE(run_until([&] { return has_node("a") && last().problems.empty(); }));
}

TEST_F(FilesSourceTest, follows_a_folder_that_is_swapped_for_another) {
  fs::create_directory(root_ / "one");
  fs::create_directory(root_ / "two");
  write(root_ / "one" / "a.yaml", node("a"));
  write(root_ / "two" / "b.yaml", node("b"));
  fs::remove(folder_);
  fs::create_directory_symlink("one", folder_);
  start();
  EXPECT_TRUE(has_node("a"));
  fs::create_directory_symlink("two", root_ / "next");
  fs::rename(root_ / "next", folder_);
  EXPECT_TRUE(run_until([&] { return has_node("b") && !has_node("a"); }));
}

TEST_F(FilesSourceTest, what_is_no_readable_file_is_a_problem_and_nothing_hangs) {
  write("a.yaml", node("a"));
  ASSERT_EQ(::mkfifo((folder_ / "fifo.yaml").c_str(), 0600), 0);
  fs::create_symlink("nowhere", folder_ / "link.yaml");
  write("large.yaml", std::string((16U << 20U) + 1, '#'));
  start();
  EXPECT_TRUE(has_node("a"));
  EXPECT_EQ(last().problems.size(), 3U);
  fs::remove(folder_ / "fifo.yaml");
  fs::remove(folder_ / "link.yaml");
  fs::remove(folder_ / "large.yaml");
  EXPECT_TRUE(run_until([&] { return last().problems.empty(); }));
}

TEST_F(FilesSourceTest, a_problem_of_a_whole_file_names_it_once) {
  fs::create_symlink("nowhere", folder_ / "a.yaml");
  write("b.yaml", "");
  start();
  ASSERT_EQ(last().problems.size(), 2U);
  for (const auto& [problem, name] :
       {std::pair{last().problems[0], "a.yaml"}, {last().problems[1], "b.yaml"}}) {
    EXPECT_EQ(problem.object, "file " + (folder_ / name).string());
    EXPECT_EQ(problem.key + problem.value, "") << name;
  }
}

TEST_F(FilesSourceTest, an_empty_file_keeps_its_last_good_objects_and_is_a_problem) {
  write("a.yaml", node("a"));
  start();
  write("a.yaml", " \n");
  ASSERT_TRUE(run_until([&] { return !last().problems.empty(); }));
  EXPECT_TRUE(has_node("a"));
  EXPECT_FALSE(last().complete);
  EXPECT_EQ(last().problems[0].object, "file " + (folder_ / "a.yaml").string());
  EXPECT_EQ(last().problems[0].reason,
            "is empty; remove it if no objects are meant; its 1 last good objects stay in use");
  write("a.yaml", node("a", "2"));
  EXPECT_TRUE(run_until([&] { return has_node("a", "2") && last().problems.empty(); }));
}

TEST_F(FilesSourceTest, an_empty_file_at_the_start_is_not_complete) {
  write("a.yaml", "");
  start();
  EXPECT_FALSE(last().complete);
  fs::remove(folder_ / "a.yaml");
  EXPECT_TRUE(run_until([&] { return last().complete && last().problems.empty(); }));
}

TEST_F(FilesSourceTest, a_file_that_says_it_has_no_objects_removes_them) {
  write("a.yaml", node("a"));
  start();
  write("a.yaml", "# none at present\n");
  ASSERT_TRUE(run_until([&] { return !has_node("a"); }));
  EXPECT_TRUE(last().problems.empty());
}

TEST_F(FilesSourceTest, a_file_that_is_cut_and_written_again_is_read_when_it_is_closed) {
  write("a.yaml", node("a"));
  start();
  std::ofstream file(folder_ / "a.yaml", std::ios::trunc);  // as an editor does
  file << "# " << std::flush;
  run_for(milliseconds(1200));  // longer than the look at what inotify cannot tell
  EXPECT_TRUE(has_node("a") && last().problems.empty());
  file << "\n" << node("a", "2");
  file.close();
  EXPECT_TRUE(run_until([&] { return has_node("a", "2"); }));
}

TEST_F(FilesSourceTest, equal_content_is_not_delivered_again) {
  write("a.yaml", node("a"));
  start();
  write("a.yaml", node("a"));
  source_->refresh();
  run_for(milliseconds(100));
  EXPECT_EQ(snapshots_.size(), 1U);
}

TEST_F(FilesSourceTest, refresh_reads_what_inotify_did_not_tell) {
  write(root_ / "target.yaml", node("a", "1"));
  fs::create_symlink(root_ / "target.yaml", folder_ / "a.yaml");
  start();
  write(root_ / "target.yaml", node("a", "2"));
  source_->refresh();
  EXPECT_TRUE(run_until([&] { return has_node("a", "2"); }, milliseconds(500)));
}

TEST_F(FilesSourceTest, nothing_comes_after_stop) {
  start();
  write("a.yaml", node("a"));
  source_->stop();
  run_for(milliseconds(100));
  EXPECT_EQ(snapshots_.size(), 1U);
  EXPECT_TRUE(io_.stopped()) << "no handler is left";
}

TEST_F(FilesSourceTest, the_listener_may_stop_the_source) {
  source_ = std::make_unique<FilesSource>(io_, io_, folder_);
  int calls = 0;
  source_->start([&](const Snapshot&) {
    ++calls;
    source_->stop();
  });
  run_for(milliseconds(50));
  EXPECT_EQ(calls, 1);
}

TEST_F(FilesSourceTest, reads_everything_again_when_the_kernel_drops_events) {
  write("a.yaml", node("a"));
  write(".other", "");
  start();
  // Two names in turn, or the kernel merges the events; its queue holds
  // fs.inotify.max_queued_events.
  std::size_t limit = 0;
  std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> limit;
  for (std::size_t i = 0; i <= limit; ++i) {
    ::close(::open((folder_ / (i % 2 == 0 ? "a.yaml" : ".other")).c_str(), O_WRONLY | O_CLOEXEC));
  }
  write("late.yaml", node("late"));
  EXPECT_TRUE(run_until([&] { return has_node("late"); }));
}

TEST_F(FilesSourceTest, reads_a_thousand_pods_in_a_second) {
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = std::to_string(i);
    text +=
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: web-" + id +
        "\n  namespace: shop\n  labels: {app: web, sidetrack.io/mode: redirect}\n  annotations:\n"
        "    sidetrack.io/netns: /run/netns/web-" +
        id +
        "\n    sidetrack.io/exclude-outbound-ports: \"8500,8600-8700\"\nspec:\n  nodeName: "
        "worker-1\n  containers:\n"
        "  - name: web\n    image: example/web:1\n    ports:\n    - {name: http, containerPort: "
        "8080}\n"
        "status:\n  phase: Running\n  podIPs:\n  - ip: 10.0.0.1\n";
  }
  write("pods.yaml", text);
  const auto before = steady_clock::now();
  start();
  const auto took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - before);
  RecordProperty("milliseconds", static_cast<int>(took.count()));
  EXPECT_EQ(last().objects.pods.size(), 1000U);
#ifdef __OPTIMIZE__
  EXPECT_LT(took, milliseconds(1000));
#endif  // with sanitizers it takes what it takes
}

TEST_F(FilesSourceTest, a_large_file_holds_up_nobody_else) {
  std::string services;
  for (int i = 0; i < 20'000; ++i) {
    services += "---\n" + node("node-" + std::to_string(i));
  }
  write("large.yaml", services);
  boost::asio::io_context reading;
  source_ = std::make_unique<FilesSource>(io_, reading, folder_);
  source_->start([this](const Snapshot& snapshot) { snapshots_.push_back(snapshot); });
  std::jthread reader([&reading] { reading.run(); });
  // The loop's other work goes on while the file is read.
  int turns = 0;
  std::function<void()> turn = [&] {
    ++turns;
    if (snapshots_.empty()) {
      boost::asio::post(io_, turn);
    }
  };
  boost::asio::post(io_, turn);
  const bool came = run_until([&] { return !snapshots_.empty(); }, milliseconds(60'000));
  source_->stop();
  ASSERT_TRUE(came);
  EXPECT_EQ(last().objects.nodes.size(), 20'000U);
  EXPECT_GT(turns, 1000);
}

}  // namespace
}  // namespace sidetrack::kube
