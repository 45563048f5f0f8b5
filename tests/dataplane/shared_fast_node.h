// SPDX-License-Identifier: Apache-2.0
// SharedFastNode: one FastNode for all tests of a suite, which cost a second each then instead of
// four. A test leaves it as it found it, or says spoil(). Thread rule: one owner.
#pragma once

#include "tests/dataplane/fast_node.h"

namespace sidetrack::lab {

class SharedFastNode : public FastNode {
 protected:
  static void TearDownTestSuite();
  void SetUp() override;
  void TearDown() override;

  // The next test gets a node of its own.
  void spoil() { spoiled_ = true; }

  // The agent does nothing until it is woken. What the kernel's programs do, they do.
  void stop_agent();
  void wake_agent();
  // Waits until the agent shows `count` connections of shop/client on the fast path.
  void wait_until_adopted(std::uint64_t count);
  // Waits until both ends are on the fast path, which they may not use yet.
  void wait_until_put_in(const Ends& ends);
  // Label of namespace shop; waits until the kernel has it.
  void set_fast_path(const std::string& value);

 private:
  // Members are destroyed from the last to the first.
  struct Kept {
    std::unique_ptr<TestCgroup> cgroup;
    std::unique_ptr<TempDir> folder;
    std::unique_ptr<Objects> objects;
    std::unique_ptr<Lab> lab;
    std::unique_ptr<Sidetrack> sidetrack;
    World shop;
    World plain;
  };
  static inline std::unique_ptr<Kept> kept_;
  bool spoiled_ = false;
};

}  // namespace sidetrack::lab
