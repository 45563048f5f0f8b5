// SPDX-License-Identifier: Apache-2.0
// FastPair: the same client and servers, run first in a namespace whose fast path is off and then
// in one where it is on, in pods of their own. What the client says must be the same; whether its
// sockets were adopted, and why not, is seen from the agent meanwhile. Thread rule: one owner.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/lab/cgroup.h"
#include "tests/lab/lab.h"
#include "tests/lab/objects.h"
#include "tests/lab/process.h"
#include "tests/lab/sidetrack.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::lab {

inline const milliseconds kProgramPatience = scaled(milliseconds(50'000));

// The pods of one run, all of namespace `name`.
struct World {
  std::string name;
  Pod* client = nullptr;
  Pod* relay = nullptr;
  Pod* server = nullptr;
  std::vector<std::unique_ptr<Process>> servers;
};

// What was seen of one run.
struct FastRun {
  int exit_status = -1;
  std::string standard_output;
  std::string output;
  // The most pairs that were adopted at one moment, by the pod that they are counted for.
  std::uint64_t client_adopted = 0;
  std::uint64_t relay_adopted = 0;
  std::uint64_t server_adopted = 0;
  std::string reasons;           // every reason that was seen of a pod, " fp_x fp_y "
  std::uint64_t fast_bytes = 0;  // of closed connections, both directions
};

class FastPair : public testing::Test {
 protected:
  using Serve = std::function<void(World&)>;
  using Command = std::function<std::vector<std::string>(const World&)>;

  static void TearDownTestSuite();
  void SetUp() override;

  // Runs it in both worlds; both must end well and say the same, and nothing may be adopted where
  // it is off. Gives what was seen where it is on.
  FastRun run_both(const Serve& serve, const Command& client);
  // run_both, and bytes must have skipped TCP.
  void expect_adopted(const Serve& serve, const Command& client);
  // run_both, and none may have; `reason` must have been given.
  void expect_refused(const Serve& serve, const Command& client, const std::string& reason);

  // A program in one of the world's pods; the test fails unless it says `ready`, if that is not
  // empty.
  void serve(World& world, const Pod& pod, std::vector<std::string> arguments,
             const std::string& ready);
  // Waits until something listens on a TCP port of the pod.
  static void wait_for_listener(const World& world, const Pod& pod, std::uint16_t port);

  // programs/NAME.
  static std::string program_file(const std::string& name);
  [[nodiscard]] std::string write_file(const std::string& name, const std::string& text) const;
  static bool installed(const std::string& program);

  static inline std::unique_ptr<TestCgroup> cgroup_;
  static inline std::unique_ptr<TempDir> objects_folder_;
  static inline std::unique_ptr<Objects> objects_;
  static inline std::unique_ptr<Lab> lab_;
  static inline std::unique_ptr<Sidetrack> sidetrack_;
  std::unique_ptr<TempDir> folder_;  // of the test; others may read it

 private:
  static void set_up_node();
  World make_world(bool fast);
  FastRun run_in(World& world, const Serve& serve, const Command& client);
  void watch(const World& world, FastRun& run) const;
  [[nodiscard]] static std::uint64_t fast_bytes(const World& world);

  static inline bool ready_ = false;
  static inline int worlds_ = 0;
};

}  // namespace sidetrack::lab
