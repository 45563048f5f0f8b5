// SPDX-License-Identifier: Apache-2.0
// Somebody writes the configuration between our reading it and our replacing it. The program that
// applies runs under ptrace and is held at the moment when it makes its temporary file.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>

#include "cni/install/folder.h"
#include "sidetrack/unique_fd.h"
#include "tests/unit/cni_folder_fixture.h"

namespace sidetrack::cni::install {
namespace {

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

  // Whether the child is about to make a file in the folder of configurations.
  [[nodiscard]] bool makes_temporary_file() const {
    user_regs_struct registers{};
    if (::ptrace(PTRACE_GETREGS, child_, nullptr, &registers) != 0 ||
        registers.orig_rax != SYS_openat || (registers.rdx & O_CREAT) == 0) {
      return false;
    }
    const UniqueFd memory(
        ::open(("/proc/" + std::to_string(child_) + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 256> path{};
    return ::pread(memory.get(), path.data(), path.size() - 1, static_cast<off_t>(registers.rsi)) >
               0 &&
           std::string(path.data()).starts_with(settings.conf_dir.string() + "/");
  }

  // Lets the child run until that moment; false: it ended without it.
  [[nodiscard]] bool hold_before_the_temporary_file() {
    child_ = ::fork();
    if (child_ == 0) {
      apply_traced();
    }
    int status = 0;
    while (::waitpid(child_, &status, 0) == child_ && WIFSTOPPED(status)) {
      if (makes_temporary_file()) {
        return true;
      }
      if (::ptrace(PTRACE_SYSCALL, child_, nullptr, nullptr) != 0) {
        break;
      }
    }
    child_ = -1;
    return false;
  }

  [[nodiscard]] int go_on() {
    int status = 0;
    ::ptrace(PTRACE_CONT, child_, nullptr, nullptr);
    ::waitpid(std::exchange(child_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t child_ = -1;
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

TEST_F(CniRace, writes_where_nobody_did) {
  put("10-a.conflist", list("bridge"));
  ASSERT_TRUE(hold_before_the_temporary_file());
  EXPECT_EQ(go_on(), kWritten);
  EXPECT_EQ(get("10-a.conflist"), with_entry(list("bridge"), settings.entry).value_or("?"));
}

}  // namespace
}  // namespace sidetrack::cni::install
