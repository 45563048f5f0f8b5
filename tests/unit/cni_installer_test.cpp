// SPDX-License-Identifier: Apache-2.0
// The installer that follows what other programs do to the folder.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/fanotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <boost/asio/steady_timer.hpp>

#include "cni/install/installer.h"
#include "sidetrack/unique_fd.h"
#include "tests/unit/cni_folder_fixture.h"

namespace sidetrack::cni::install {
namespace {

using std::chrono::milliseconds;

double cpu_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

// Another process, of this name, that runs as long as this object and writes when told to.
class Rewriter {
 public:
  Rewriter(const char* name, const std::function<void()>& write) {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
    child_ = ::fork();
    socket_.reset(pair[child_ == 0 ? 1 : 0]);
    ::close(pair[child_ == 0 ? 0 : 1]);
    if (child_ == 0) {
      ::prctl(PR_SET_NAME, name);
      char word = 0;
      while (::read(socket_.get(), &word, 1) == 1) {
        write();
        if (::write(socket_.get(), &word, 1) != 1) {
          break;
        }
      }
      ::_exit(0);
    }
  }
  Rewriter(const Rewriter&) = delete;
  Rewriter& operator=(const Rewriter&) = delete;
  ~Rewriter() {
    socket_.reset();
    ::waitpid(child_, nullptr, 0);
  }
  // Returns when it has.
  void write() const {
    char word = 'w';
    EXPECT_EQ(::write(socket_.get(), &word, 1), 1);
    EXPECT_EQ(::read(socket_.get(), &word, 1), 1);
  }
  [[nodiscard]] pid_t pid() const { return child_; }

 private:
  UniqueFd socket_;
  pid_t child_ = -1;
};

#define ST_NEEDS_FANOTIFY()                                                        \
  if (!UniqueFd(::fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY)).valid()) \
  GTEST_SKIP() << "the kernel does not tell who writes a file: " << std::strerror(errno)

class CniInstaller : public CniFolderTest {
 protected:
  // A tenth of the real pace.
  CniInstaller() {
    pace = {.debounce = milliseconds(10),
            .slowest = milliseconds(1000),
            .look_again = milliseconds(1000),
            .window = milliseconds(6000)};
  }
  void start() {
    installer = std::make_unique<Installer>(
        context, settings,
        Callbacks{.on_conflict = [this](const std::string& text) { conflicts.push_back(text); },
                  .on_change = [this](const Status& status) { changes.push_back(status); }},
        pace);
    installer->start();
  }
  void until(const char* what, const std::function<bool()>& condition) {
    const auto deadline = lab::Clock::now() + lab::kPatience;
    while (!condition()) {
      ASSERT_LT(lab::Clock::now(), deadline) << "waited in vain: " << what;
      run_for(milliseconds(5));
    }
  }
  void run_for(milliseconds time) {
    context.restart();
    context.run_for(time);
  }
  // Until it is reported.
  void fight(const std::string& file, const Rewriter& rewriter, const Rewriter& bystander) {
    pace.window = milliseconds(60'000);
    pace.fight = 2;
    put(file, list("calico"));
    start();
    for (unsigned i = 0; i < pace.fight; ++i) {
      rewriter.write();
      bystander.write();
      until("ours is back", [&] { return has_entry(file); });
    }
  }
  [[nodiscard]] bool has_entry(const std::string& name) const {
    return mentions(get(name), "sidetrack-cni");
  }
  [[nodiscard]] std::uint64_t rewrites() const {
    const auto& all = installer->status().rewrites;
    return std::accumulate(all.begin(), all.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const auto& one) { return sum + one.second; });
  }

  boost::asio::io_context context;
  Pace pace;
  std::vector<std::string> conflicts;
  std::vector<Status> changes;
  std::unique_ptr<Installer> installer;
};

TEST_F(CniInstaller, installs_program_and_entry_and_then_rests) {
  put("10-a.conflist", list("a"));
  std::ofstream(settings.conf_dir / ".sidetrack-aB3dEf.tmp") << "of a killed agent";
  start();
  EXPECT_TRUE(has_entry("10-a.conflist")) << "at once";
  EXPECT_EQ(files::read_file(settings.bin_dir / "sidetrack-cni")->text, "the program");
  EXPECT_EQ(files::read_file(settings.bin_dir / "sidetrack-cni")->mode, 0755U);
  run_for(milliseconds(200));
  EXPECT_EQ(rewrites(), 1U) << "our own writes are no reason to write";
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].file, (settings.conf_dir / "10-a.conflist").string());
  EXPECT_EQ(changes[0].network, "net");
  EXPECT_EQ(names(), std::set<std::string>{"10-a.conflist"});
  EXPECT_TRUE(conflicts.empty());
}

TEST_F(CniInstaller, waits_for_a_network_plugin_and_for_its_folder) {
  std::filesystem::remove(settings.conf_dir);
  pace.look_again = milliseconds(20);
  start();
  EXPECT_NE(installer->status().problem, "");
  std::filesystem::create_directory(settings.conf_dir);
  until("the folder is seen", [this] {
    return installer->status().problem.find("no network configuration") != std::string::npos;
  });
  put("10-a.conflist", list("a"));
  until("the entry", [this] { return has_entry("10-a.conflist"); });
  until("all is well", [this] { return installer->status().problem.empty(); });
  EXPECT_TRUE(conflicts.empty());
}

// An open() that conflicts with a lease may wait for its holder for most of a minute.
TEST_F(CniInstaller, does_not_wait_for_the_holder_of_a_lease) {
  ST_NEEDS_FANOTIFY();
  put("10-a.conflist", list("a"));
  start();
  put("token", "x");
  const UniqueFd holder(::open((settings.conf_dir / "token").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::fcntl(holder.get(), F_SETSIG, SIGURG), 0) << "which ends nobody";
  ASSERT_EQ(::fcntl(holder.get(), F_SETLEASE, F_WRLCK), 0);
  put("10-a.conflist", list("rewritten"));
  until("the rewritten file", [this] { return has_entry("10-a.conflist"); });
}

TEST_F(CniInstaller, follows_every_way_to_change_the_folder) {
  put("10-a.conflist", list("a"));
  pace.look_again = milliseconds(60'000);  // events only
  start();
  put("10-a.conflist", list("rewritten"));
  until("a rewritten file", [this] { return has_entry("10-a.conflist"); });
  put("x.tmp", list("renamed"));
  std::filesystem::rename(settings.conf_dir / "x.tmp", settings.conf_dir / "10-a.conflist");
  until("a renamed file", [this] { return has_entry("10-a.conflist"); });
  put("05-b.conflist", list("b", "other"));
  until("one before it", [this] { return has_entry("05-b.conflist"); });
  until("the other network", [this] { return installer->status().network == "other"; });
  std::filesystem::remove(settings.conf_dir / "05-b.conflist");
  until("the old network", [this] { return installer->status().network == "net"; });
}

TEST_F(CniInstaller, never_names_a_program_that_is_not_there) {
  put("10-a.conflist", with_entry(list("a"), settings.entry).value_or("?"));
  std::filesystem::remove(settings.binary);
  pace.look_again = milliseconds(20);
  start();
  EXPECT_EQ(get("10-a.conflist"), list("a")) << "an entry of an earlier agent is taken out";
  EXPECT_NE(installer->status().problem.find("plugin"), std::string::npos);
  std::ofstream(settings.binary) << "second build";
  until("the entry", [this] { return has_entry("10-a.conflist"); });
  EXPECT_EQ(files::read_file(settings.bin_dir / "sidetrack-cni")->text, "second build");
  std::filesystem::remove(settings.bin_dir / "sidetrack-cni");
  until("a new copy", [this] { return has_program(); });
}

// The network plugin writes its own again and again, ten times as often as once a second.
TEST_F(CniInstaller, a_fight_costs_little_and_is_reported_once) {
  put("10-cilium.conflist", list("cilium-cni", "cilium"));
  start();
  boost::asio::steady_timer rewriter(context);
  unsigned written = 0;
  std::function<void()> rewrite = [&] {
    put("10-cilium.conflist", list("cilium-cni", "cilium"));
    ++written;
    rewriter.expires_after(milliseconds(100));
    rewriter.async_wait([&](const boost::system::error_code& error) {
      if (!error) {
        rewrite();
      }
    });
  };
  rewrite();
  const double cpu_before = cpu_seconds();
  run_for(milliseconds(4000));
  const double cpu = cpu_seconds() - cpu_before;
  rewriter.cancel();

  EXPECT_GT(written, 20U);
  EXPECT_GE(rewrites(), 5U) << "it does not give up";
  EXPECT_LE(rewrites(), 12U) << "it slows down";
  std::cout << written << " foreign writes, " << rewrites() << " of ours, " << cpu * 1000
            << " ms of CPU in 4 s\n";
  EXPECT_LT(cpu, 0.4) << "of 4 s, the rewriter's own included";
  ASSERT_EQ(conflicts.size(), 1U);
  EXPECT_TRUE(conflicts[0].starts_with("another program keeps ")) << "nobody blames itself";
  EXPECT_NE(conflicts[0].find("10-cilium.conflist"), std::string::npos) << conflicts[0];
  EXPECT_NE(conflicts[0].find("main plugin cilium-cni"), std::string::npos) << conflicts[0];
  EXPECT_NE(conflicts[0].find("takes our entry out"), std::string::npos) << conflicts[0];
  until("the last word is ours", [this] { return has_entry("10-cilium.conflist"); });
}

TEST_F(CniInstaller, names_the_program_that_takes_our_entry_out) {
  ST_NEEDS_FANOTIFY();
  const std::string config = "10-calico.conflist";
  const Rewriter rewriter("net\tdaemon", [&] { put(config, list("calico")); });
  const Rewriter bystander("token", [&] { put("calico-kubeconfig", "a token"); });
  fight(config, rewriter, bystander);
  ASSERT_EQ(conflicts.size(), 1U);
  EXPECT_EQ(conflicts[0].substr(0, conflicts[0].find(" out of ")),
            "net?daemon (pid " + std::to_string(rewriter.pid()) +
                ") keeps rewriting the network configuration (network net, main plugin calico): it "
                "takes our entry");
}

TEST_F(CniInstaller, names_the_program_that_renames_its_own_over_ours) {
  ST_NEEDS_FANOTIFY();
  const std::string config = "10-calico.conflist";
  const Rewriter rewriter("install-cni", [&] {
    put("calico.tmp", list("calico"));
    std::filesystem::rename(settings.conf_dir / "calico.tmp", settings.conf_dir / config);
  });
  const Rewriter bystander("token", [&] { put("calico-kubeconfig", "a token"); });
  fight(config, rewriter, bystander);
  ASSERT_EQ(conflicts.size(), 1U);
  EXPECT_TRUE(conflicts[0].starts_with("install-cni (pid " + std::to_string(rewriter.pid()) + ") "))
      << conflicts[0];
}

TEST_F(CniInstaller, names_who_puts_itself_behind_us) {
  pace.window = milliseconds(60'000);
  pace.fight = 2;
  put("10-a.conflist", list("a"));
  start();
  for (std::uint64_t i = 1; i <= 4; ++i) {
    std::string text = get("10-a.conflist");
    text.insert(text.rfind(']'), ", {\"type\": \"istio-" + std::to_string(i) + "\"}");
    put("10-a.conflist", text);
    until("ours is last again", [&] { return rewrites() == 1 + i; });
  }
  ASSERT_EQ(conflicts.size(), 1U);
  EXPECT_NE(conflicts[0].find("it puts istio-2 last into"), std::string::npos) << conflicts[0];
  EXPECT_NE(conflicts[0].find("written anew 2 times in 60 s"), std::string::npos) << conflicts[0];
}

TEST_F(CniInstaller, stop_leaves_everything) {
  put("10-a.conflist", list("a"));
  start();
  installer->stop();
  put("10-a.conflist", list("b"));
  run_for(milliseconds(100));
  EXPECT_EQ(get("10-a.conflist"), list("b"));
  installer.reset();
  run_for(milliseconds(20));
  EXPECT_TRUE(has_program());
}

}  // namespace
}  // namespace sidetrack::cni::install
