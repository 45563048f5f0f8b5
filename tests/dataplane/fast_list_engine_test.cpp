// SPDX-License-Identifier: Apache-2.0
// Connections that an engine relays, embedded or external, with the fast path on.
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_list.h"
#include "tests/dataplane/proxies.h"
#include "tests/lab/pattern.h"

namespace sidetrack::lab {
namespace {

std::string close_after_last_words(Ends& ends) {
  std::string bytes(20'000, '\0');
  Pattern(kStreamSeed).fill(bytes);
  EXPECT_EQ(send_text(ends.client, bytes), "sent");
  ends.client.reset();
  return read_to_end(ends.server);
}

std::string answer_after_half_close(Ends& ends) {
  EXPECT_EQ(send_text(ends.client, "question"), "sent");
  EXPECT_EQ(::shutdown(ends.client.get(), SHUT_WR), 0);
  const std::string asked = words({receive_text(ends.server, 9), receive_text(ends.server, 9)});
  EXPECT_EQ(send_text(ends.server, "answer"), "sent");
  ends.server.reset();
  return words({asked, receive_text(ends.client, 9), receive_text(ends.client, 9)});
}

class FastListEngine : public FastList {};

TEST_F(FastListEngine, the_embedded_one_is_as_plain_tcp) {
  ST_ASSERT_OK(sidetrack_->start_engine());
  ASSERT_NO_FATAL_FAILURE(redirect("shop"));
  expect_all(
      {{"stream", streams({}), both(Pace{}.length)},
       {"a byte at a time", streams({.length = 3000, .write_bytes = 1, .writes = 64}), both(3000)},
       {"flaps around the window",
        streams({.length = 3'000'000, .write_bytes = 16384, .writes = 1000}), both(3'000'000)},
       {"close after last words", close_after_last_words, whole(20'000) + " EOF"},
       {"half-close", answer_after_half_close, "'question' EOF 'answer' EOF"}},
      {{Where::kVeth, Ip::kV4},
       {Where::kVeth, Ip::kV6},
       {Where::kVeth, Ip::kMapped},
       {Where::kService, Ip::kV4}});
}

// HAProxy on the node.
class FastListExternal : public FastListEngine {
 protected:
  void SetUp() override {
    set_up_pods();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    ST_ASSERT_VALUE(engine_cgroup_, cgroup_->child("engine"));
    ST_ASSERT_VALUE(
        sidetrack_,
        Sidetrack::create(
            *cgroup_, {.objects_folder = objects_->folder().string(),
                       .engine = fmt::format("external={}:{}", lab_->node_v4(), kProxyPort),
                       .netns_path = lab_->node().path(),
                       .fast_path = true,
                       .agent_arguments = {"--fast-path-probation", "0s", "--fast-path-round-trips",
                                           "4", "--engine-cgroup", engine_cgroup_}}));
    ST_ASSERT_OK(sidetrack_->start_agent());
    ST_ASSERT_OK(cgroup_->add(::getpid()));
    ASSERT_NO_FATAL_FAILURE(redirect("shop"));
  }
  void start(HaproxyKind kind) {
    proxy_.reset();
    ST_ASSERT_VALUE(proxy_, start_haproxy({lab_->node().path(), engine_cgroup_}, *folder_,
                                          {lab_->node_v4()}, kind));
    ASSERT_TRUE(eventually(kPatience, [&] {
      const auto verdict = sidetrack_->get(
          "/v1/explain?namespace=shop&pod=client&destination=" + shop_.server->v4 + ":80");
      return verdict && (*verdict)["verdict"] == "redirected";
    })) << proxy_->output();
  }
  // Talks until the client's bytes skip TCP on their way to the proxy, or are refused for splice.
  std::string find_out(const Ends& ends) const {
    std::string said;
    EXPECT_TRUE(eventually(kPatience, [&] {
      const std::uint64_t before = sent_by_tcp(ends.client);
      pass(ends.client, ends.server, "question");
      pass(ends.server, ends.client, "answer");
      said = sent_by_tcp(ends.client) == before ? "fast"
             : refused("fp_splice") > 0         ? "fp_splice"
                                                : "";
      return !said.empty();
    }));
    return said;
  }

  std::string engine_cgroup_;
  std::unique_ptr<Process> proxy_;
};

TEST_F(FastListExternal, haproxy_is_sent_to_past_tcp_unless_it_splices) {
  for (const auto& [kind, expected] :
       {std::pair{HaproxyKind::kPlain, "fast"}, std::pair{HaproxyKind::kSplicing, "fp_splice"}}) {
    ASSERT_NO_FATAL_FAILURE(start(kind));
    Ends ends = open_on(shop_, {});
    EXPECT_EQ(find_out(ends), expected);
    EXPECT_EQ(streams({})(ends), both(Pace{}.length));
    EXPECT_EQ(past_tcp().applications > 0, kind == HaproxyKind::kPlain);
    EXPECT_EQ(past_tcp().engines, 0U);
    EXPECT_EQ(close_after_last_words(ends), whole(20'000) + " EOF");
  }
}

}  // namespace
}  // namespace sidetrack::lab
