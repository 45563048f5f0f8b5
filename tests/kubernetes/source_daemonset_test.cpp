// SPDX-License-Identifier: Apache-2.0
// How long an agent that is ended asks for its DaemonSet, by what the API server says.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>

#include "agent/kube/daemonset.h"
#include "tests/kubernetes/source_canned.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using kube::Existence;
using std::chrono::steady_clock;

class AskDaemonset : public testing::Test {
 protected:
  void SetUp() override {
    ST_ASSERT_VALUE(auto folder, lab::TempDir::create("daemonset"));
    folder_.emplace(std::move(folder));
    auto api = CannedApi::start(folder_->path());
    if (!api && api.error().code == ErrorCode::kNotFound) {
      GTEST_SKIP() << api.error().message;
    }
    ASSERT_TRUE(api) << api.error().message;
    api_ = std::move(*api);
  }

  // The first `refusals` of our questions get 403, the others `status`.
  void refuse(int refusals, int status, const std::string& reason) {
    api_->set_override([=, this](const HttpRequest&, Answer& answer) {
      const bool is_refused = asked_++ < refusals;
      return answer.respond(is_refused ? 403 : status,
                            R"({"kind":"Status","reason":")" +
                                (is_refused ? std::string("Forbidden") : reason) + "\"}");
    });
  }
  std::optional<Existence> ask(kube::Patience patience) {
    const auto config = kube::load_config(api_->kubeconfig());
    EXPECT_TRUE(config) << config.error().message;
    const auto start = steady_clock::now();
    const auto existence = kube::ask_daemonset(*config, "sidetrack", "sidetrack", patience);
    took_ = steady_clock::now() - start;
    EXPECT_TRUE(existence) << existence.error().message;
    return existence ? std::optional(*existence) : std::nullopt;
  }

  std::optional<lab::TempDir> folder_;
  std::unique_ptr<CannedApi> api_;
  std::atomic<int> asked_ = 0;
  steady_clock::duration took_{};
};

// At `helm uninstall` our rights go first, and for ten seconds our account is still believed in.
TEST_F(AskDaemonset, goes_on_while_it_is_refused_until_the_account_is_gone) {
  refuse(5, 401, "Unauthorized");
  EXPECT_EQ(ask({.answer = 2s, .refusal = 60s}), Existence::kNoAccount);
}

TEST_F(AskDaemonset, keeps_what_it_heard_where_the_last_question_is_not_answered) {
  api_->set_override([this](const HttpRequest&, Answer& answer) {
    const bool is_first = asked_++ == 0;
    return answer.respond(is_first ? 401 : 503,
                          is_first ? R"({"kind":"Status","reason":"Unauthorized"})" : "");
  });
  EXPECT_EQ(ask({.answer = 2s, .refusal = 60s}), Existence::kNoAccount);
  EXPECT_GT(asked_, 1);
}

TEST_F(AskDaemonset, hears_after_refusals_that_it_is_gone) {
  refuse(5, 404, "NotFound");
  EXPECT_EQ(ask({.answer = 5s, .refusal = 60s}), Existence::kGone);
}

TEST_F(AskDaemonset, gives_up_where_it_is_refused_for_good) {
  refuse(1'000'000, 0, "");
  EXPECT_EQ(ask({.answer = 2s, .refusal = 1s}), Existence::kNoRight);
  EXPECT_GE(took_, 1s);
  EXPECT_LT(took_, 20s);
}

TEST_F(AskDaemonset, waits_for_one_that_does_not_answer_no_longer_than_before) {
  api_->server().go_away();
  EXPECT_EQ(ask({.answer = 500ms, .refusal = 60s}), Existence::kUnknown);
  EXPECT_LT(took_, 20s);
}

TEST_F(AskDaemonset, waits_for_one_that_is_in_trouble_no_longer_than_before) {
  refuse(0, 503, "ServiceUnavailable");
  EXPECT_EQ(ask({.answer = 500ms, .refusal = 60s}), Existence::kUnknown);
  EXPECT_LT(took_, 20s);
}

}  // namespace
}  // namespace sidetrack::tests
