// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/sys/unix_server.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::sys {
namespace {

UniqueFd connect_to(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fd.reset();
  }
  return fd;
}

// No descriptor more for this process, while it lives.
class NoFilesLeft {
 public:
  NoFilesLeft() {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    const UniqueFd next(::open("/", O_RDONLY | O_CLOEXEC));
    const rlimit none{.rlim_cur = static_cast<rlim_t>(next.get()), .rlim_max = before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  ~NoFilesLeft() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoFilesLeft(const NoFilesLeft&) = delete;
  NoFilesLeft& operator=(const NoFilesLeft&) = delete;

 private:
  rlimit before_{};
};

class UnixServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = lab::TempDir::create("sys");
    ASSERT_TRUE(made) << made.error().message;
    folder_.emplace(std::move(*made));
    path_ = folder_->file("a.sock");
    ST_ASSERT_OK(server_.listen(path_));
  }

  void until(const char* what, const std::function<bool()>& condition) {
    const auto deadline = lab::Clock::now() + lab::kPatience;
    while (!condition()) {
      ASSERT_LT(lab::Clock::now(), deadline) << "waited in vain: " << what;
      run();
    }
  }
  void run() {
    context_.restart();
    context_.run_for(std::chrono::milliseconds(5));
  }

  std::optional<lab::TempDir> folder_;
  std::string path_;
  boost::asio::io_context context_;
  Accepting answer_ = Accepting::kMore;
  std::vector<UniqueFd> accepted_;
  std::vector<PeerCredentials> peers_;
  UnixServer server_{context_, "test", [this](UniqueFd socket, const PeerCredentials& peer) {
                       accepted_.push_back(std::move(socket));
                       peers_.push_back(peer);
                       return answer_;
                     }};
};

TEST_F(UnixServerTest, connections_are_private_to_this_process_and_do_not_block) {
  const UniqueFd client = connect_to(path_);
  until("it is accepted", [&] { return accepted_.size() == 1; });
  EXPECT_EQ(::fcntl(accepted_[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  EXPECT_EQ(::fcntl(accepted_[0].get(), F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  EXPECT_EQ(peers_[0].pid, ::getpid());
  EXPECT_EQ(peers_[0].uid, ::geteuid());
}

TEST_F(UnixServerTest, held_connections_wait_until_it_resumes) {
  answer_ = Accepting::kHold;
  const UniqueFd first = connect_to(path_);
  const UniqueFd second = connect_to(path_);
  const UniqueFd third = connect_to(path_);
  until("the first is accepted", [&] { return accepted_.size() == 1; });
  run();
  EXPECT_EQ(accepted_.size(), 1U);
  server_.resume();
  EXPECT_EQ(accepted_.size(), 2U);
  answer_ = Accepting::kMore;
  server_.resume();
  EXPECT_EQ(accepted_.size(), 3U);
  server_.resume();  // not held: nothing to do, and nothing is waited for twice
  const UniqueFd fourth = connect_to(path_);
  until("the fourth is accepted", [&] { return accepted_.size() == 4; });
}

TEST_F(UnixServerTest, out_of_files_a_connection_waits_for_one) {
  const UniqueFd client = connect_to(path_);
  {
    const NoFilesLeft none;
    run();
    EXPECT_TRUE(accepted_.empty());
  }
  until("it is accepted", [&] { return accepted_.size() == 1; });
}

TEST_F(UnixServerTest, stop_takes_the_file_away_and_gives_out_nothing) {
  answer_ = Accepting::kHold;
  const UniqueFd first = connect_to(path_);
  const UniqueFd second = connect_to(path_);
  until("the first is accepted", [&] { return accepted_.size() == 1; });
  server_.stop();
  server_.resume();
  run();
  EXPECT_EQ(accepted_.size(), 1U);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixServerTest, stop_leaves_the_file_of_a_newer_agent_alone) {
  const std::string ours = folder_->file("kept");
  std::filesystem::rename(path_, ours);  // so that its inode is not used again
  std::ofstream(path_) << "a newer agent's";
  server_.stop();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace sidetrack::sys
