// SPDX-License-Identifier: Apache-2.0
// The words of the API. They are an interface: a change here is a change for scripts.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "agent/main/names.h"

namespace sidetrack::agent {
namespace {

struct Word {
  unsigned reason;
  const char* name;
  const char* verdict;
};

TEST(NoEndpointSentence, says_who_refuses_and_why) {
  EXPECT_EQ(no_endpoint_sentence("shop/api:http", ST_REASON_REDIRECTED),
            "Service shop/api:http has no endpoint that is ready for this node: the connection is "
            "refused, by the engine; the application sees a reset after connect().");
  EXPECT_NE(no_endpoint_sentence("shop/api:http", ST_REASON_EXCLUDED_PORT).find("kube-proxy"),
            std::string::npos);
}

policy::PodIntent passthrough_by(const char* reason, const policy::Origin& cause) {
  policy::PodIntent intent;
  intent.state = policy::PodState::kEnrol;
  intent.mode = ST_MODE_PASSTHROUGH;
  intent.reason = reason;
  intent.mode_origin = cause;
  return intent;
}

TEST(MistakeSentence, names_object_key_value_and_what_is_wrong) {
  const auto intent = passthrough_by("invalid_annotation", {"Pod/shop/web", "k", "80,http"});
  const kube::Problem other{.object = "Pod/shop/api", .key = "k", .value = "x", .reason = "no"};
  const kube::Problem warning{
      .object = "Pod/shop/web", .key = "k", .value = "80", .reason = "host bits", .warning = true};
  const kube::Problem mistake{
      .object = "Pod/shop/web", .key = "k", .value = "80,http", .reason = "\"http\": not a port"};
  EXPECT_EQ(
      mistake_sentence(intent, {other, warning, mistake}),
      "A mistake makes the mode passthrough: Pod/shop/web k = 80,http: \"http\": not a port.");
}

TEST(MistakeSentence, of_lists_that_are_too_long_has_no_value) {
  const auto intent = passthrough_by("policy_too_large", {"Pod/shop/web", "k; l", ""});
  EXPECT_EQ(
      mistake_sentence(
          intent,
          {{.object = "Pod/shop/web", .key = "k; l", .value = "", .reason = "too many CIDRs"}}),
      "A mistake makes the mode passthrough: Pod/shop/web k; l: too many CIDRs.");
}

TEST(MistakeSentence, is_empty_of_a_mode_that_was_asked_for) {
  const kube::Problem of_its_mode{.object = "Namespace/shop", .key = "sidetrack.io/mode"};
  EXPECT_EQ(mistake_sentence(passthrough_by("", {"Namespace/shop", "sidetrack.io/mode", "x"}),
                             {of_its_mode}),
            "");
}

class ReasonNames : public ::testing::TestWithParam<Word> {};

TEST_P(ReasonNames, are_as_documented) {
  EXPECT_EQ(reason_name(GetParam().reason), GetParam().name);
  EXPECT_EQ(verdict_name(GetParam().reason), GetParam().verdict);
  EXPECT_NE(reason_sentence(GetParam().reason), "");
}

INSTANTIATE_TEST_SUITE_P(
    All, ReasonNames,
    ::testing::Values(Word{0, "redirected", "redirected"}, Word{1, "not_tcp", "direct"},
                      Word{2, "not_enrolled", "direct"}, Word{3, "unknown_netns", "direct"},
                      Word{4, "engine_socket", "direct"}, Word{5, "passthrough", "direct"},
                      Word{6, "local_destination", "direct"}, Word{7, "bound_device", "direct"},
                      Word{8, "transparent", "direct"}, Word{9, "mptcp", "direct"},
                      Word{10, "excluded_port", "direct"}, Word{11, "excluded_cidr", "direct"},
                      Word{12, "not_included", "direct"}, Word{13, "engine_down", "direct"},
                      Word{14, "engine_full", "direct"}, Word{15, "port_budget", "direct"},
                      Word{16, "bypass", "direct"}, Word{17, "internal_error", "direct"},
                      Word{18, "engine_down_closed", "refused"},
                      Word{19, "no_original_destination", "refused"},
                      Word{20, "bound_port", "direct"}),
    [](const auto& row) { return std::string(row.param.name); });

TEST(Names, of_all_reasons_are_in_the_table_above) {
  EXPECT_EQ(ST_REASON_COUNT, 21) << "a new reason needs a row and a sentence";
}

TEST(Names, of_all_reasons_have_a_sentence_of_their_own) {
  std::set<std::string> sentences;
  for (unsigned reason = 0; reason < ST_REASON_COUNT; ++reason) {
    sentences.insert(reason_sentence(reason));
  }
  EXPECT_EQ(sentences.size(), std::size_t{ST_REASON_COUNT});
}

TEST(Names, of_a_later_version_are_unknown) {
  EXPECT_EQ(reason_name(200), "unknown");
  EXPECT_EQ(verdict_name(200), "direct");
  EXPECT_EQ(reason_sentence(200), "");
  EXPECT_EQ(path_name(ST_PATH_COUNT), "unknown");
  EXPECT_EQ(close_name(ST_CLOSE_COUNT), "unknown");
  EXPECT_EQ(mode_name(9), "unknown");
}

TEST(Names, of_modes_paths_and_closes_are_as_documented) {
  EXPECT_EQ(mode_name(ST_MODE_DISABLED), "disabled");
  EXPECT_EQ(mode_name(ST_MODE_PASSTHROUGH), "passthrough");
  EXPECT_EQ(mode_name(ST_MODE_REDIRECT), "redirect");
  EXPECT_EQ(path_name(ST_PATH_DIRECT), "direct");
  EXPECT_EQ(path_name(ST_PATH_ENGINE), "engine");
  EXPECT_EQ(path_name(ST_PATH_FAST), "fast");
  EXPECT_EQ(path_name(ST_PATH_HANDOFF), "handoff");
  EXPECT_EQ(close_name(ST_CLOSE_OPEN), "");
  EXPECT_EQ(close_name(ST_CLOSE_FIN), "fin");
  EXPECT_EQ(close_name(ST_CLOSE_RST_LOCAL), "rst_local");
  EXPECT_EQ(close_name(ST_CLOSE_RST_REMOTE), "rst_remote");
  EXPECT_EQ(close_name(ST_CLOSE_REFUSED), "refused");
  EXPECT_EQ(close_name(ST_CLOSE_TIMEOUT), "timeout");
  EXPECT_EQ(close_name(ST_CLOSE_KILLED), "killed");
  EXPECT_EQ(fast_path_name(ST_FAST_PATH_OFF), "off");
  EXPECT_EQ(fast_path_name(ST_FAST_PATH_AUTO), "auto");
  EXPECT_EQ(fast_path_name(ST_FAST_PATH_NODE), "node");
  EXPECT_EQ(on_engine_loss_name(ST_ON_ENGINE_LOSS_OPEN), "open");
  EXPECT_EQ(on_engine_loss_name(ST_ON_ENGINE_LOSS_CLOSED), "closed");
}

}  // namespace
}  // namespace sidetrack::agent
