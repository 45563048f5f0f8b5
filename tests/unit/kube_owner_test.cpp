// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "agent/kube/owner_watch.h"

namespace sidetrack::kube {
namespace {

TEST(OwnerWatch, an_object_that_is_deleted_or_being_deleted_is_gone) {
  EXPECT_EQ(is_gone(R"({"type":"DELETED","object":{"metadata":{"name":"a"}}})"), true);
  EXPECT_EQ(
      is_gone(
          R"({"type":"MODIFIED","object":{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}})"),
      true);
}

TEST(OwnerWatch, an_object_that_is_there_is_not) {
  EXPECT_EQ(is_gone(R"({"type":"ADDED","object":{"metadata":{"name":"a"}}})"), false);
  EXPECT_EQ(is_gone(R"({"type":"MODIFIED","object":{"metadata":{"name":"a"}}})"), false);
}

TEST(OwnerWatch, other_lines_say_nothing) {
  for (const char* line :
       {"", "null", "{}", "[1]", "{\"type\":\"ADDED\"}", R"({"type":1,"object":{}})",
        R"({"type":"ADDED","object":[]})", R"({"type":"ADDED","object":{"metadata":7}})",
        R"({"type":"BOOKMARK","object":{"metadata":{"deletionTimestamp":"x"}}})",
        R"({"type":"ERROR","object":{"code":410}})"}) {
    EXPECT_EQ(is_gone(line), std::nullopt) << line;
  }
}

}  // namespace
}  // namespace sidetrack::kube
