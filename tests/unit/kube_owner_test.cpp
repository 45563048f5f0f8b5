// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "agent/kube/daemonset.h"
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

struct Answer {
  const char* name;
  int status;
  std::string error;  // of the connection
  std::string body;
  Existence existence;
};

class DaemonSetAnswer : public testing::TestWithParam<Answer> {};

TEST_P(DaemonSetAnswer, says) {
  const Answer& answer = GetParam();
  const bool is_ok = answer.status == 200;
  EXPECT_EQ(daemonset_existence({.status = answer.status,
                                 .error = answer.error,
                                 .body = is_ok ? "" : answer.body,
                                 .retry_after = {}},
                                is_ok ? answer.body : ""),
            answer.existence);
}

std::string refusal(const std::string& reason) {
  return R"({"kind":"Status","apiVersion":"v1","status":"Failure","reason":")" + reason + "\"}";
}

INSTANTIATE_TEST_SUITE_P(
    All, DaemonSetAnswer,
    testing::Values(
        Answer{"there", 200, "", R"({"metadata":{"name":"a"}})", Existence::kExists},
        Answer{"being_deleted", 200, "",
               R"({"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}})", Existence::kGone},
        Answer{"not_there", 404, "", refusal("NotFound"), Existence::kGone},
        Answer{"no_account", 401, "", refusal("Unauthorized"), Existence::kNoAccount},
        Answer{"no_right", 403, "", refusal("Forbidden"), Existence::kNoRight},
        Answer{"a_403_of_something_else", 403, "", "<html>", Existence::kUnknown},
        Answer{"a_404_of_something_else", 404, "", "<html>", Existence::kUnknown},
        Answer{"a_401_of_something_else", 401, "", "<html>", Existence::kUnknown},
        Answer{"no_object", 200, "", "hello", Existence::kUnknown},
        Answer{"an_object_without_metadata", 200, "", "{}", Existence::kUnknown},
        Answer{"a_server_in_trouble", 503, "", refusal("ServiceUnavailable"), Existence::kUnknown},
        Answer{"cut", 200, "connection reset", R"({"metadata":{"name":"a"}})", Existence::kUnknown},
        Answer{"nobody", 0, "connection refused", "", Existence::kUnknown}),
    [](const auto& named) { return named.param.name; });

}  // namespace
}  // namespace sidetrack::kube
