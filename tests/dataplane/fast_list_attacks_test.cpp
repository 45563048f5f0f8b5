// SPDX-License-Identifier: Apache-2.0
// What applications set or do late, and label flips, on all roads: fast_attacks_test tries more of
// it on one.
#include <memory>

#include "tests/dataplane/fast_cases.h"
#include "tests/dataplane/talker.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint64_t kSome = 1'000'000;

class FastListAttacks : public FastList {};

TEST_F(FastListAttacks, late_options_and_faulting_readers_are_as_on_tcp) {
  expect_all(late_calls());
  expect_apart(asks_with_fionread(), {{Where::kVeth, Ip::kV6},
                                      {Where::kVeth, Ip::kMapped, Cpu::kOther},
                                      {Where::kLoopback, Ip::kV4},
                                      {Where::kLoopback, Ip::kV6, Cpu::kOther}});
}

// On all at once.
TEST_F(FastListAttacks, label_flips_cost_no_byte) {
  std::vector<Ends> open;
  std::vector<Ends*> all;
  ASSERT_NO_FATAL_FAILURE(set_rps(Cpu::kOther));
  open.reserve(all_roads().size());
  for (const Road& road : all_roads()) {
    open.push_back(open_on(shop_, road));
    all.push_back(&open.back());
  }
  ASSERT_NO_FATAL_FAILURE(make_fast(all));
  std::vector<std::unique_ptr<Talker>> clients, servers;
  for (std::size_t i = 0; i < open.size(); ++i) {
    clients.push_back(std::make_unique<Talker>(open[i].client.get(), 2 * i + 1, 2 * i + 2));
    servers.push_back(std::make_unique<Talker>(open[i].server.get(), 2 * i + 2, 2 * i + 1));
  }
  const KernelView kernel(sidetrack_->pin_dir());
  const auto skip_tcp = [&] {
    const FastCounts before = kernel.fast_counts().value();
    for (std::size_t i = 0; i < open.size(); ++i) {
      EXPECT_TRUE(both_receive(*clients[i], *servers[i], kSome)) << name_of(all_roads()[i]);
    }
    return kernel.fast_counts().value().messages != before.messages;
  };
  for (int round = 0; round < 2; ++round) {
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "off"));
    EXPECT_TRUE(eventually(kPatience, [&] { return !skip_tcp(); })) << round;
    ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", "auto"));
    EXPECT_TRUE(eventually(kPatience, skip_tcp)) << round;
  }
  for (std::size_t i = 0; i < open.size(); ++i) {
    SCOPED_TRACE(name_of(all_roads()[i]));
    clients[i]->finish();
    servers[i]->finish();
    expect_all_arrived(*clients[i], *servers[i]);
  }
}

}  // namespace
}  // namespace sidetrack::lab
