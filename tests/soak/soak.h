// SPDX-License-Identifier: Apache-2.0
// Soak: a lab node with pods that talk all the time, by fast path, handoff and plain TCP, while
// programs are killed and policy changes. Draws everything from one seed. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/lab/cgroup.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"
#include "tests/soak/actor.h"
#include "tests/soak/judge.h"
#include "tests/soak/script.h"

namespace sidetrack::soak {

// What is sent there is plain TCP, whatever happens: excluded by policy.
inline constexpr std::uint16_t kControlPort = 9100;

// After the start of its programs a world begins to ask with FIONREAD: its first sockets are on the
// fast path by then. (A first splice there would end them, or worse: docs/deviations.md, 24.)
constexpr std::int64_t kAsksLateMs = 6000;

struct SoakOptions {
  std::int64_t seconds = 60;
  std::uint64_t seed = 0;
};

class Soak {
 public:
  explicit Soak(SoakOptions options) : options_(options), random_(options.seed) {}

  // Everything; an error: it could not be run. What it found: findings().
  Result<void> run();
  [[nodiscard]] const std::vector<std::string>& findings() const { return judge_.findings(); }
  [[nodiscard]] std::string summary() const;
  // Of agent and engine, for failures.
  [[nodiscard]] std::string logs() const;
  // When what was done.
  [[nodiscard]] const std::string& trace() const { return trace_; }

 private:
  // A namespace with a client and a server.
  struct World {
    std::string name;
    std::string home_mode;
    std::vector<std::string> other_modes;
    std::vector<std::string> targets;
    Habit habit = Habit::kPlain;
    std::size_t connections = 8;      // that its client keeps open
    std::vector<std::string> pods{};  // "NAMESPACE/POD"
    std::string client_place{};       // netns paths
    std::string server_place{};
    std::unique_ptr<Actor> client{};
    std::unique_ptr<Actor> server{};
  };
  // Something that is down, and when it comes back.
  struct Down {
    Actor* actor = nullptr;
    std::int64_t start_at_ms = 0;
    std::optional<std::size_t> incident{};
  };
  struct Held {
    std::uint64_t resident = 0;
    std::int64_t files = 0;
  };

  Result<void> set_up_node();
  Result<void> add_two_pods(World world);
  Result<void> add_world(World world, const lab::Pod& client, const lab::Pod& server);
  void make_actors(World& world);
  // Labels and annotations as they were at first.
  Result<void> go_home(const World& world);
  Result<void> start_all();
  Result<void> wait_until_up();
  Result<void> run_for(std::int64_t until_ms, bool calm);
  Result<void> start_due();
  void kill_one(bool calm);
  void flip_one();
  void note(const std::string& what);
  void take_lines();
  void take_line(const World& world, const Actor& actor, const std::string& line);
  void look_after_actors();
  Result<void> wind_down();
  void check_growth();
  // Whom the sentinel saw stays on TCP.
  void check_demoted();
  void check_shares();
  [[nodiscard]] Held held_by(Actor& actor) const;
  [[nodiscard]] std::map<std::string, std::int64_t> map_entries() const;
  void count_fast_messages();

  SoakOptions options_;
  std::mt19937_64 random_;
  Judge judge_;
  // Members are destroyed from the last to the first.
  std::unique_ptr<lab::TestCgroup> cgroup_;
  std::unique_ptr<lab::TempDir> folder_;
  std::unique_ptr<lab::Objects> objects_;
  std::unique_ptr<lab::Lab> lab_;
  std::unique_ptr<lab::Sidetrack> sidetrack_;
  std::unique_ptr<Actor> agent_;
  std::unique_ptr<Actor> engine_;
  std::vector<World> worlds_;
  const World* away_ = nullptr;  // whose policy is not what it was at first
  std::vector<Down> down_;
  std::map<const Actor*, std::size_t> open_incidents_;  // the latest of each
  std::map<std::string, std::int64_t> maps_before_;
  std::map<std::string, Held> held_idle_;    // before there was any traffic
  std::map<std::string, Held> held_before_;  // in the middle of it
  std::map<std::string, std::uint64_t> kills_;
  std::map<std::string, std::uint64_t> flips_;
  std::int64_t asks_begun_ms_ = 0;  // by then those sockets are out
  std::int64_t next_kill_ms_ = 0;
  std::int64_t next_flip_ms_ = 0;
  std::map<std::string, std::uint64_t> refused_;
  std::uint64_t fast_messages_ = 0;
  std::uint64_t handoff_messages_ = 0;
  std::string growth_;
  std::string trace_;
};

}  // namespace sidetrack::soak
