// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>

#include "agent/cni/enrolled_namespaces.h"
#include "sidetrack/files/whole_file.h"
#include "sidetrack/unique_fd.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::cni {
namespace {

TEST(EnrolledNamespaces, are_written_only_when_they_change) {
  ST_ASSERT_VALUE(const auto folder, lab::TempDir::create("enrolled"));
  const std::filesystem::path file = folder.path() / "enrolled-namespaces";
  const auto text = [&file] { return files::read_file(file).value_or({}).text; };

  EnrolledNamespaces list(file);
  ST_ASSERT_OK(list.write({"shop", "bank"}));
  EXPECT_EQ(text(), "bank\nshop\n");
  EXPECT_EQ(files::read_file(file)->mode, 0644U);
  struct stat before {};
  ASSERT_EQ(::stat(file.c_str(), &before), 0);
  ST_ASSERT_OK(list.write({"bank", "shop"}));
  ST_ASSERT_OK(EnrolledNamespaces(file).write({"bank", "shop"}));
  struct stat after {};
  ASSERT_EQ(::stat(file.c_str(), &after), 0);
  EXPECT_EQ(EnrolledNamespaces(file).read(), (std::set<std::string>{"bank", "shop"}));
  EXPECT_TRUE(EnrolledNamespaces(file.string() + "-none").read().empty());
  EXPECT_EQ(before.st_ino, after.st_ino) << "equal content is not written";
  ST_ASSERT_OK(list.write({}));
  EXPECT_EQ(text(), "");
}

TEST(EnrolledNamespaces, are_kept_fresh) {
  ST_ASSERT_VALUE(const auto folder, lab::TempDir::create("enrolled"));
  const std::filesystem::path file = folder.path() / "enrolled-namespaces";
  EnrolledNamespaces list(file);
  ST_ASSERT_OK(list.write({"shop"}));
  const auto old = std::filesystem::last_write_time(file) - std::chrono::hours(1);
  const auto touched_at = [&](std::chrono::milliseconds time) {
    std::filesystem::last_write_time(file, old);
    EXPECT_TRUE(list.keep_fresh(EnrolledNamespaces::Clock::time_point(time)));
    return std::filesystem::last_write_time(file) != old;
  };
  EXPECT_TRUE(touched_at(std::chrono::seconds(100))) << "the list may be of an agent before";
  EXPECT_FALSE(touched_at(std::chrono::milliseconds(129'750)));
  EXPECT_TRUE(touched_at(std::chrono::seconds(130)));
  EXPECT_FALSE(touched_at(std::chrono::milliseconds(130'250)));
  EXPECT_TRUE(touched_at(std::chrono::seconds(160)));
  EXPECT_EQ(files::read_file(file)->text, "shop\n");
}

TEST(EnrolledNamespaces, tell_once_that_they_cannot_be_kept_fresh) {
  ST_ASSERT_VALUE(const auto folder, lab::TempDir::create("enrolled"));
  const std::filesystem::path file = folder.path() / "enrolled-namespaces";
  EnrolledNamespaces list(file);
  std::chrono::seconds time(0);
  const auto next = [&] {
    time += std::chrono::seconds(30);
    return list.keep_fresh(EnrolledNamespaces::Clock::time_point(time));
  };
  const auto first = next();
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, ErrorCode::kNotFound);
  EXPECT_NE(first.error().message.find(file.string()), std::string::npos);
  EXPECT_TRUE(next());
  EXPECT_TRUE(next());
  ST_ASSERT_OK(list.write({"shop"}));
  EXPECT_TRUE(next());
  std::filesystem::remove(file);
  EXPECT_FALSE(next()) << "it had worked since";
  EXPECT_TRUE(next());
}

// What watches a folder for other texts is not told: it would read them all again.
TEST(EnrolledNamespaces, wake_no_watch_of_texts) {
  ST_ASSERT_VALUE(const auto folder, lab::TempDir::create("enrolled"));
  EnrolledNamespaces list(folder.path() / "enrolled-namespaces");
  ST_ASSERT_OK(list.write({"shop"}));
  const UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  ASSERT_GE(::inotify_add_watch(watch.get(), folder.path().c_str(), IN_ALL_EVENTS), 0);
  ASSERT_TRUE(list.keep_fresh({}));
  alignas(inotify_event) std::array<char, 4096> events{};
  const ssize_t got = ::read(watch.get(), events.data(), events.size());
  ASSERT_GE(got, static_cast<ssize_t>(sizeof(inotify_event)));
  const auto* const event = reinterpret_cast<const inotify_event*>(events.data());
  EXPECT_EQ(static_cast<std::size_t>(got), sizeof(inotify_event) + event->len) << "one event";
  EXPECT_EQ(event->mask, IN_ATTRIB);
}

}  // namespace
}  // namespace sidetrack::cni
