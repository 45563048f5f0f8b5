// SPDX-License-Identifier: Apache-2.0
// Somebody writes the configuration between our reading it and our replacing it. The program that
// applies runs under ptrace and is held at the moment when it makes its temporary file. And in what
// order it writes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cni/install/folder.h"
#include "sidetrack/unique_fd.h"
#include "tests/unit/cni_folder_fixture.h"

namespace sidetrack::cni::install {
namespace {

using ::testing::ElementsAre;

// What the child says by its exit status.
constexpr int kWritten = 0;
constexpr int kWasBusy = 10;
constexpr int kOther = 11;

class CniRace : public CniFolderTest {
 protected:
  void TearDown() override {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }

  [[noreturn]] void apply_traced() const {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0 || ::raise(SIGSTOP) != 0) {
      ::_exit(kOther);
    }
    const auto applied = apply(settings);
    ::_exit(applied ? kWritten : applied.error().code == ErrorCode::kBusy ? kWasBusy : kOther);
  }

  // Starts the program that applies, before its first call.
  void begin() {
    child_ = ::fork();
    if (child_ == 0) {
      apply_traced();
    }
    ASSERT_EQ(::waitpid(child_, &status_, 0), child_);
  }

  // Lets the child run until it is about to do something with the folder of configurations or a
  // file in it, and says what; none: it has ended.
  [[nodiscard]] std::optional<std::string> next_act() {
    while (WIFSTOPPED(status_)) {
      if (::ptrace(PTRACE_SYSCALL, child_, nullptr, nullptr) != 0 ||
          ::waitpid(child_, &status_, 0) != child_) {
        break;
      }
      if (auto act = WIFSTOPPED(status_) ? act_of_child() : ""; !act.empty()) {
        return act;
      }
    }
    child_ = -1;
    return std::nullopt;
  }

  // False: it ended without.
  [[nodiscard]] bool hold_before_the_temporary_file() {
    begin();
    for (auto act = next_act(); act; act = next_act()) {
      if (*act == "make TEMPORARY") {
        return true;
      }
    }
    return false;
  }

  [[nodiscard]] int go_on() {
    ::ptrace(PTRACE_CONT, child_, nullptr, nullptr);
    ::waitpid(std::exchange(child_, -1), &status_, 0);
    return exit_status();
  }
  [[nodiscard]] int exit_status() const { return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1; }

 private:
  // At the begin of a call; "" on the way back, and for what is elsewhere.
  [[nodiscard]] std::string act_of_child() const {
    user_regs_struct call{};
    if (::ptrace(PTRACE_GETREGS, child_, nullptr, &call) != 0 ||
        static_cast<long long>(call.rax) != -ENOSYS) {
      return "";
    }
    const auto act = [](const char* verb, const std::string& what, const std::string& rest = "") {
      return what.empty() ? "" : verb + (" " + what) + rest;
    };
    switch (call.orig_rax) {
      case SYS_openat:
        return act((call.rdx & O_CREAT) != 0 ? "make" : "open", name_of(text_at(call.rsi)));
      case SYS_write:
        return act("write", name_of(opened_as(call.rdi)));
      case SYS_fsync:
        return act("sync", name_of(opened_as(call.rdi)));
      case SYS_rename:
        return act("rename", name_of(text_at(call.rsi)), " from " + name_of(text_at(call.rdi)));
      default:
        return "";
    }
  }

  [[nodiscard]] std::string name_of(const std::filesystem::path& path) const {
    if (path == settings.conf_dir) {
      return "FOLDER";
    }
    const std::string name = path.filename().string();
    return path.parent_path() != settings.conf_dir ? ""
           : name.starts_with(".sidetrack-")       ? "TEMPORARY"
                                                   : name;
  }

  [[nodiscard]] std::string text_at(unsigned long long address) const {
    const UniqueFd memory(::open((of_child() + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 256> text{};
    return ::pread(memory.get(), text.data(), text.size() - 1, static_cast<off_t>(address)) > 0
               ? text.data()
               : "";
  }
  [[nodiscard]] std::string opened_as(unsigned long long fd) const {
    std::error_code ignored;
    return std::filesystem::read_symlink(of_child() + "/fd/" + std::to_string(fd), ignored);
  }
  [[nodiscard]] std::string of_child() const { return "/proc/" + std::to_string(child_); }

  pid_t child_ = -1;
  int status_ = 0;
};

TEST_F(CniRace, keeps_what_somebody_wrote_after_we_had_read) {
  put("10-a.conflist", list("bridge"));
  ASSERT_TRUE(hold_before_the_temporary_file());
  put("10-a.conflist", list("ptp"));
  EXPECT_EQ(go_on(), kWasBusy);
  EXPECT_EQ(get("10-a.conflist"), list("ptp"));
  EXPECT_EQ(names(), std::set<std::string>{"10-a.conflist"}) << "nothing is left over";
}

TEST_F(CniRace, does_not_bring_back_what_somebody_removed_after_we_had_read) {
  put("10-a.conflist", list("bridge"));
  ASSERT_TRUE(hold_before_the_temporary_file());
  std::filesystem::remove(settings.conf_dir / "10-a.conflist");
  EXPECT_EQ(go_on(), kWasBusy);
  EXPECT_EQ(names(), std::set<std::string>{});
}

TEST_F(CniRace, keeps_a_list_of_our_name_that_appeared_meanwhile) {
  put("10-a.conf", single("bridge"));
  ASSERT_TRUE(hold_before_the_temporary_file());
  put(kOwnList, list("ptp"));
  EXPECT_EQ(go_on(), kWasBusy);
  EXPECT_EQ(get(kOwnList), list("ptp"));
}

// A runtime finds the old text or the new one after a crash of the machine, too.
TEST_F(CniRace, is_on_disk_before_it_counts) {
  put("10-a.conflist", list("bridge"));
  std::vector<std::string> acts;
  ASSERT_TRUE(hold_before_the_temporary_file());
  for (auto act = next_act(); act; act = next_act()) {
    acts.push_back(*act);
  }
  EXPECT_EQ(exit_status(), kWritten);
  EXPECT_THAT(acts,
              ElementsAre("write TEMPORARY", "sync TEMPORARY", "open 10-a.conflist",
                          "rename 10-a.conflist from TEMPORARY", "open FOLDER", "sync FOLDER"));
}

TEST_F(CniRace, writes_where_nobody_did) {
  put("10-a.conflist", list("bridge"));
  ASSERT_TRUE(hold_before_the_temporary_file());
  EXPECT_EQ(go_on(), kWritten);
  EXPECT_EQ(get("10-a.conflist"), with_entry(list("bridge"), settings.entry).value_or("?"));
}

}  // namespace
}  // namespace sidetrack::cni::install
