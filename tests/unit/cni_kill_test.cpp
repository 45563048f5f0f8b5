// SPDX-License-Identifier: Apache-2.0
// kill -9 at any moment of 1,000 rewrites: what a runtime finds is whole, and it is either of the
// two texts. The same with the program: no configuration names one that is not there.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <iostream>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "cni/install/folder.h"
#include "cni/install/installer.h"
#include "tests/unit/cni_folder_fixture.h"

namespace sidetrack::cni::install {
namespace {

constexpr unsigned kRewrites = 1000;

class CniKill : public CniFolderTest {
 protected:
  void SetUp() override {
    void* const page = ::mmap(nullptr, sizeof(std::atomic<unsigned>), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(page, MAP_FAILED);
    done = new (page) std::atomic<unsigned>(0);
    // Where syncing costs nothing: a killed process is no power failure.
    std::string memory = "/dev/shm/st-cnikill-XXXXXX";
    if (::mkdtemp(memory.data()) != nullptr) {
      in_memory = memory;
      settings.conf_dir = in_memory / "net.d";
      settings.bin_dir = in_memory / "bin";
      settings.cache_dir = in_memory / "cache";
      for (const auto& made : {settings.conf_dir, settings.bin_dir, settings.cache_dir}) {
        std::filesystem::create_directory(made);
      }
    }
  }
  void TearDown() override {
    kill_writer();  // a failed test has left it
    ::munmap(done, sizeof *done);
    if (!in_memory.empty()) {
      std::filesystem::remove_all(in_memory);
    }
  }

  // Puts the entry in and takes it out, until it is killed.
  [[noreturn]] void rewrite_forever() const {
    for (;;) {
      if (!apply(settings) || !retract(settings)) {
        ::_exit(3);
      }
      done->fetch_add(2);
    }
  }
  // Installs plugin and entry and takes both away, until it is killed. `done` is odd between the
  // two.
  [[noreturn]] void install_forever() const {
    boost::asio::io_context context;
    std::deque<Installer> installers;  // kept: to close what one watches takes longer than the rest
    for (;;) {
      Installer& installer = installers.emplace_back(context, settings, Callbacks{});
      installer.start();
      done->fetch_add(1);
      if (!installer.status().problem.empty() ||
          !uninstall(settings, std::chrono::milliseconds(0)).left.empty()) {
        ::_exit(3);
      }
      done->fetch_add(1);
    }
  }
  [[nodiscard]] pid_t start_writer() {
    writer = ::fork();
    if (writer == 0) {
      rewrite_forever();
    }
    return writer;
  }
  [[nodiscard]] pid_t start_installer() {
    writer = ::fork();
    if (writer == 0) {
      install_forever();
    }
    return writer;
  }
  [[nodiscard]] bool writer_runs() const {
    siginfo_t ended{};
    return ::waitid(P_PID, static_cast<id_t>(writer), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           ended.si_pid == 0;
  }
  void kill_writer() {
    if (writer > 0) {
      ::kill(writer, SIGKILL);
      ::waitpid(std::exchange(writer, -1), nullptr, 0);
    }
  }

  std::atomic<unsigned>* done = nullptr;  // shared with the child
  std::filesystem::path in_memory;
  pid_t writer = -1;
};

TEST_F(CniKill, never_leaves_half_a_configuration) {
  const std::string theirs = list("bridge");
  const std::string ours = with_entry(theirs, settings.entry).value_or("?");
  put("10-a.conflist", theirs);
  std::mt19937 random(20241129);
  unsigned kills = 0;
  unsigned looks = 0;
  const auto look = [&] {
    ++looks;
    const std::string now = get("10-a.conflist");
    ASSERT_TRUE(now == theirs || now == ours) << "after " << *done << " rewrites: " << now;
  };
  while (*done < kRewrites || kills < 50) {
    ASSERT_GT(start_writer(), 0);
    const auto until = *done + 2 + static_cast<unsigned>(random() % 30);
    while (*done < until) {
      look();
      ASSERT_TRUE(writer_runs()) << "it ended by itself";
      ASSERT_FALSE(HasFatalFailure());
    }
    // Somewhere within the next rewrite.
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
    kill_writer();
    ++kills;
    look();
    ASSERT_FALSE(HasFatalFailure());
  }
  RecordProperty("rewrites", static_cast<int>(*done));
  RecordProperty("kills", static_cast<int>(kills));
  std::cout << *done << " rewrites, " << kills << " kills, " << looks << " looks, "
            << names().size() - 1 << " files left over\n";
  files::remove_leftovers(settings.conf_dir);
  EXPECT_EQ(names(), std::set<std::string>{"10-a.conflist"});
}

TEST_F(CniKill, never_leaves_a_configuration_that_names_a_missing_program) {
  const std::string program(std::size_t{256} << 10, 'x');  // large enough to be caught half written
  std::ofstream(settings.binary) << program;
  const std::string theirs = list("bridge");
  put("10-a.conflist", theirs);
  std::mt19937 random(20241130);
  unsigned named = 0;
  unsigned unnamed_with_program = 0;
  constexpr unsigned kKills = 120;
  for (unsigned kills = 0; kills < kKills; ++kills) {
    ASSERT_GT(start_installer(), 0);
    *done += *done % 2;  // the one before was killed in between
    const auto until = *done + 2 + kills % 2;
    while (*done < until) {
      ASSERT_TRUE(writer_runs()) << "it ended by itself";
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 1000));
    kill_writer();
    const std::string now = get("10-a.conflist");
    const auto copy = files::read_file(settings.bin_dir / "sidetrack-cni");
    if (mentions(now, settings.entry.type)) {
      ++named;
      ASSERT_TRUE(copy) << "kill " << kills << ": it names a program that is not there";
      ASSERT_TRUE(copy->text == program && copy->mode == 0755U) << "kill " << kills;
    } else {
      ASSERT_EQ(now, theirs);
      unnamed_with_program += copy ? 1 : 0;
    }
  }
  std::cout << *done / 2 << " times installed and removed, " << kKills << " kills: " << named
            << " with the entry, " << unnamed_with_program << " with the program alone\n";
  // Else the moments that matter were not met.
  EXPECT_GT(named, 0U);
  EXPECT_GT(unnamed_with_program, 0U);
}

}  // namespace
}  // namespace sidetrack::cni::install
