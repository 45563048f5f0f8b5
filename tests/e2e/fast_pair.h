// SPDX-License-Identifier: Apache-2.0
// FastPair: the same client and servers three times at once, in pods of their own: in a namespace
// without mesh, in one of mode passthrough and in one of mode redirect, both with the fast path.
// What the client says must be the same; whether its sockets were adopted, and why not, is seen
// from the agent meanwhile. Thread rule: a world's servers and client are run by a thread of it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
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

// Not in the mesh; application to application; through the embedded engine, which steps out.
enum class Way { kOff, kDirect, kEngine };

// Of the address that a client is given.
enum class Ip { kV4, kV6 };

// What was seen of one run.
struct FastRun {
  int exit_status = -1;
  std::string standard_output;
  std::string output;
  // The most pairs that were adopted at one moment, by the pod that they are counted for.
  std::uint64_t client_adopted = 0;
  std::uint64_t relay_adopted = 0;
  std::uint64_t server_adopted = 0;
  std::string reasons = " ";        // every reason that was seen of a pod, " fp_x fp_y "
  std::uint64_t fast_bytes = 0;     // past TCP to the other end, of closed connections
  std::uint64_t handoff_bytes = 0;  // past the engine
};

// The pods of one run, all of namespace `name`.
struct World {
  Way way = Way::kOff;
  std::string name;
  Pod* client = nullptr;
  Pod* relay = nullptr;
  Pod* server = nullptr;
  std::vector<std::unique_ptr<Process>> servers;
  FastRun run;
};

class FastPair : public testing::Test {
 protected:
  using Serve = std::function<void(World&)>;
  using Command = std::function<std::vector<std::string>(const World&)>;
  // kRelay: the client talks to a program in the relay's pod, both of whose connections count.
  enum class Through { kNothing, kRelay };

  static void TearDownTestSuite();
  void SetUp() override;
  // Of the node, which all tests of a suite share.
  [[nodiscard]] virtual std::vector<std::string> agent_arguments() const;

  // Runs it in all worlds; all must end well and say the same, and nothing may be adopted where
  // there is no mesh. Gives what was seen in the other two: kDirect, kEngine.
  std::vector<FastRun> run_all(const Serve& serve, const Command& client);
  // run_all, and bytes must have skipped TCP, and the engine. Gives what run_all() does.
  std::vector<FastRun> expect_adopted(const Serve& serve, const Command& client,
                                      Through through = Through::kNothing);
  // run_all, and none may have gone from application to application; one of `reasons` must have
  // been given.
  void expect_refused(const Serve& serve, const Command& client,
                      std::initializer_list<std::string_view> reasons);

  // A program in one of the world's pods; the test fails unless it says `ready`, if that is not
  // empty.
  void serve(World& world, const Pod& pod, std::vector<std::string> arguments,
             const std::string& ready);
  // Waits until something listens on a TCP port of the pod.
  static void wait_for_listener(const World& world, const Pod& pod, std::uint16_t port);

  // programs/fast_go.go: HTTP on port 8080 of the world's server.
  void serve_go(World& world);
  static std::string go();
  static bool no_go();
  static std::string host(const Pod& pod, Ip ip) { return ip == Ip::kV6 ? pod.v6 : pod.v4; }
  // ADDRESS:PORT, in brackets if it must be.
  static std::string endpoint(const Pod& pod, Ip ip, std::uint16_t port);
  static std::string url(const Pod& pod, Ip ip = Ip::kV4);  // http://ADDRESS:8080

  // A script of bash that fails if one program of a pipe does.
  static std::vector<std::string> shell(const std::string& script);

  // programs/NAME.
  static std::string program_file(const std::string& name);
  // A file of the world's own folder.
  [[nodiscard]] std::string write_file(const World& world, const std::string& name,
                                       const std::string& text) const;
  [[nodiscard]] std::string folder_of(const World& world) const;
  static bool installed(const std::string& program);

  static inline std::unique_ptr<TestCgroup> cgroup_;
  static inline std::unique_ptr<TempDir> objects_folder_;
  static inline std::unique_ptr<Objects> objects_;
  static inline std::unique_ptr<Lab> lab_;
  static inline std::unique_ptr<Sidetrack> sidetrack_;
  std::unique_ptr<TempDir> folder_;  // of the test; others may read it

 private:
  void set_up_node() const;
  void make_world(World& world);
  void run_in(World& world, const Serve& serve, const Command& client);
  static void watch(World& world);
  static void count_bytes(World& world);
  static void report(const World& world);

  static inline bool ready_ = false;
  static inline int worlds_ = 0;
};

}  // namespace sidetrack::lab
