// SPDX-License-Identifier: Apache-2.0
// PolicyStore on real maps: sharing, full maps, collecting with a grace, and what an earlier agent
// left. The clock is passed in.
#include <gtest/gtest.h>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/policies.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::dataplane {
namespace {

using namespace std::chrono_literals;

PortPages pages(std::uint32_t first, std::uint32_t count) {
  PortPages set;
  for (std::uint32_t i = 0; i < count; ++i) {
    set.push_back({.number = first + i, .bits = {.bits = {1}}});
  }
  return set;
}

PolicyCidr cidr(std::uint8_t last_byte) {
  PolicyCidr row{.prefix = 128, .exclude_set = 1};
  row.address.bytes[0] = 0xfd;
  row.address.bytes[15] = last_byte;
  return row;
}

// One set of `page_count` pages, excluded for `cidr_count` addresses.
PolicyContent content(std::uint32_t page_count, std::uint8_t cidr_count) {
  PolicyContent policy{.sets = {pages(0, page_count)}, .exclude_set = 1};
  for (std::uint8_t i = 0; i < cidr_count; ++i) {
    policy.cidrs.push_back(cidr(i));
  }
  return policy;
}

class PolicyStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    bpf_map_create_opts options{};
    options.sz = sizeof(options);
    options.map_flags = BPF_F_NO_PREALLOC;
    policies_ = UniqueFd(
        bpf_map_create(BPF_MAP_TYPE_HASH, "st_t_policies", 4, sizeof(st_policy), 4, &options));
    cidrs_ = UniqueFd(bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "st_t_cidrs", sizeof(st_cidr_key),
                                     sizeof(st_cidr), 8, &options));
    pages_ = UniqueFd(bpf_map_create(BPF_MAP_TYPE_HASH, "st_t_pages", sizeof(st_port_page_key),
                                     sizeof(st_port_page), 8, &options));
    ASSERT_TRUE(policies_.valid() && cidrs_.valid() && pages_.valid()) << "needs root and BPF";
    ASSERT_TRUE(store_.open(maps()));
  }
  [[nodiscard]] PolicyStore::Maps maps() const {
    return {.policies = policies_.get(), .cidrs = cidrs_.get(), .port_pages = pages_.get()};
  }
  [[nodiscard]] std::size_t policies() const {
    return map_keys<std::uint32_t>(policies_.get(), "policies").value().size();
  }
  [[nodiscard]] std::size_t cidrs() const {
    return map_keys<st_cidr_key>(cidrs_.get(), "cidrs").value().size();
  }
  [[nodiscard]] std::size_t port_pages() const {
    return map_keys<st_port_page_key>(pages_.get(), "pages").value().size();
  }
  [[nodiscard]] std::uint32_t acquire(const std::string& fingerprint, const PolicyContent& policy) {
    const auto id = store_.acquire(fingerprint, policy, now_);
    EXPECT_TRUE(id) << (id ? "" : id.error().message);
    return id ? *id : 0;
  }

  UniqueFd policies_, cidrs_, pages_;
  PolicyStore store_;
  PolicyStore::Clock::time_point now_ = PolicyStore::Clock::time_point() + 1h;
};

TEST_F(PolicyStoreTest, writes_a_policy_again_that_somebody_changed) {
  const std::uint32_t id = acquire("a", content(1, 1));
  EXPECT_TRUE(store_.holds(id).value());
  ASSERT_TRUE(map_update(policies_.get(), "policies", id, st_policy{}));
  EXPECT_FALSE(store_.holds(id).value());
  const std::uint32_t again = acquire("a", content(1, 1));
  EXPECT_NE(again, id);
  EXPECT_TRUE(store_.holds(again).value());
  store_.collect({again}, now_);
  store_.collect({again}, now_ + 5s);
  EXPECT_EQ(policies(), 1U);
  EXPECT_EQ(acquire("a", content(1, 1)), again);
  ASSERT_TRUE(map_delete(policies_.get(), "policies", again));
  EXPECT_FALSE(store_.holds(again).value());
}

TEST_F(PolicyStoreTest, writes_a_policy_under_an_id_that_is_not_0) {
  const std::uint32_t id = acquire("a", content(2, 3));
  ASSERT_NE(id, 0U);
  EXPECT_EQ(cidrs(), 3U);
  EXPECT_EQ(port_pages(), 2U);
  const auto row = map_lookup<st_policy>(policies_.get(), "policies", id).value();
  ASSERT_TRUE(row.has_value());
  EXPECT_EQ(row->has_cidrs, 1);
  const st_port_page_key page{.set_id = row->exclude_ports, .page = 1};
  EXPECT_TRUE(map_lookup<st_port_page>(pages_.get(), "pages", page).value().has_value());
}

TEST_F(PolicyStoreTest, stores_equal_content_once) {
  const std::uint32_t id = acquire("a", content(1, 1));
  EXPECT_EQ(acquire("a", content(1, 1)), id);
  EXPECT_NE(acquire("b", content(1, 1)), id);
  EXPECT_EQ(policies(), 2U);
  EXPECT_EQ(port_pages(), 2U);
}

TEST_F(PolicyStoreTest, takes_back_what_it_wrote_when_the_cidrs_are_full) {
  ASSERT_NE(acquire("a", content(1, 5)), 0U);
  const auto full = store_.acquire("b", content(3, 5), now_);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kFull);
  EXPECT_EQ(policies(), 1U);
  EXPECT_EQ(cidrs(), 5U);
  EXPECT_EQ(port_pages(), 1U);
  EXPECT_NE(acquire("c", content(1, 3)), 0U);
}

TEST_F(PolicyStoreTest, takes_back_what_it_wrote_when_the_pages_are_full) {
  ASSERT_NE(acquire("a", content(6, 0)), 0U);
  EXPECT_FALSE(store_.acquire("b", content(3, 0), now_));
  EXPECT_EQ(port_pages(), 6U);
}

TEST_F(PolicyStoreTest, collects_what_no_row_names_after_a_grace) {
  const std::uint32_t id = acquire("a", content(2, 2));
  now_ += 1h;
  store_.collect({id}, now_);
  EXPECT_EQ(policies(), 1U);
  now_ += 3s;  // more than the grace since it was last seen named, but a row may have stopped
               // naming it just now
  store_.collect({}, now_);
  EXPECT_EQ(policies(), 1U) << "a connect() that has read the old row may still look it up";
  now_ += 3s;
  store_.collect({}, now_);
  EXPECT_EQ(policies(), 0U);
  EXPECT_EQ(cidrs(), 0U);
  EXPECT_EQ(port_pages(), 0U);
  EXPECT_NE(acquire("a", content(2, 2)), id);
}

TEST_F(PolicyStoreTest, keeps_what_is_named_again_within_the_grace) {
  const std::uint32_t id = acquire("a", content(1, 1));
  store_.collect({}, now_);
  now_ += 3s;
  EXPECT_EQ(acquire("a", content(1, 1)), id);
  store_.collect({}, now_);
  EXPECT_EQ(policies(), 1U);
}

TEST_F(PolicyStoreTest, goes_on_with_what_an_earlier_agent_left) {
  const std::uint32_t id = acquire("a", content(1, 1));
  PolicyStore next;
  ASSERT_TRUE(next.open(maps()));
  const auto other = next.acquire("b", content(1, 1), now_);
  ASSERT_TRUE(other);
  EXPECT_NE(*other, id);
  EXPECT_EQ(policies(), 2U);
  EXPECT_EQ(port_pages(), 2U) << "no set id is used twice";
  for (int pass = 0; pass < 2; ++pass, now_ += 3s) {
    next.collect({*other}, now_);
  }
  next.collect({*other}, now_);
  EXPECT_EQ(policies(), 1U);
  EXPECT_EQ(port_pages(), 1U);
}

TEST_F(PolicyStoreTest, collects_sets_of_policies_that_an_earlier_agent_did_not_complete) {
  const st_port_page_key orphan{.set_id = 77, .page = 0};
  ASSERT_TRUE(map_update(pages_.get(), "pages", orphan, st_port_page{}));
  PolicyStore next;
  ASSERT_TRUE(next.open(maps()));
  for (int pass = 0; pass < 2; ++pass, now_ += 3s) {
    next.collect({0}, now_);  // pods without rules have policy id 0
  }
  EXPECT_EQ(port_pages(), 0U);
}

}  // namespace
}  // namespace sidetrack::dataplane
