// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/shared_fast_node.h"

#include <csignal>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/kernel_view.h"

namespace sidetrack::lab {

void SharedFastNode::TearDownTestSuite() {
  kept_.reset();
}

void SharedFastNode::SetUp() {
  if (!kept_) {
    FastNode::SetUp();
    return;
  }
  cgroup_ = std::move(kept_->cgroup);
  folder_ = std::move(kept_->folder);
  objects_ = std::move(kept_->objects);
  lab_ = std::move(kept_->lab);
  sidetrack_ = std::move(kept_->sidetrack);
  shop_ = std::move(kept_->shop);
  plain_ = std::move(kept_->plain);
  kept_.reset();
}

void SharedFastNode::TearDown() {
  if (IsSkipped() || HasFailure() || spoiled_) {
    return;
  }
  kept_ = std::make_unique<Kept>(Kept{.cgroup = std::move(cgroup_),
                                      .folder = std::move(folder_),
                                      .objects = std::move(objects_),
                                      .lab = std::move(lab_),
                                      .sidetrack = std::move(sidetrack_),
                                      .shop = std::move(shop_),
                                      .plain = std::move(plain_)});
}

void SharedFastNode::stop_agent() {
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGSTOP));
}

void SharedFastNode::wake_agent() {
  ST_ASSERT_OK(sidetrack_->agent().signal(SIGCONT));
}

void SharedFastNode::wait_until_adopted(std::uint64_t count) {
  nlohmann::json last;
  EXPECT_TRUE(eventually(kPatience,
                         [&] {
                           const auto pod = sidetrack_->pod("shop/client");
                           last = pod ? *pod : nlohmann::json(pod.error().message);
                           return pod &&
                                  pod->value("fast_path_connections", std::uint64_t{0}) == count;
                         }))
      << last << sidetrack_->logs();
}

void SharedFastNode::wait_until_put_in(const Ends& ends) {
  for (const UniqueFd* end : {&ends.client, &ends.server}) {
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto state = adopted(*end);
      return state && state->arm_ns != 0;
    })) << sidetrack_->logs();
  }
}

void SharedFastNode::set_fast_path(const std::string& value) {
  const bool off = value == "off";
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/fast-path", value));
  for (const Pod* pod : {shop_.client, shop_.server}) {
    ST_ASSERT_VALUE(const auto cookie, pod->netns.cookie());
    EXPECT_TRUE(eventually(kPatience, [&] {
      const auto row = KernelView(sidetrack_->pin_dir()).pod(cookie);
      return row && (row->fast_path == ST_FAST_PATH_OFF) == off;
    })) << value;
  }
}

}  // namespace sidetrack::lab
