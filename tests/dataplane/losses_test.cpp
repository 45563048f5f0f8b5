// SPDX-License-Identifier: Apache-2.0
// What does not fit into the kernel's maps: that it is counted, and what becomes of the connection.
#include <fmt/format.h>
#include <sched.h>

#include <cerrno>
#include <thread>

#include "tests/dataplane/mesh.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

class LossesTest : public Mesh {
 protected:
  // Of namespace shop ("records_full").
  [[nodiscard]] std::uint64_t lost(const char* what) const {
    const auto answer = sidetrack_->get("/v1/counters");
    for (const json& row : answer ? (*answer)["counters"] : json::array()) {
      if (row["namespace"] == "shop") {
        return row[what];
      }
    }
    return 0;
  }
  void echoes(int id) const {
    ST_ASSERT_VALUE(const auto done, shell_->exchange(id, 50'000));
    EXPECT_EQ(done.error_number, 0) << sidetrack_->logs();
    EXPECT_EQ(done.length, 50'000U);
    EXPECT_EQ(done.digest, done.expected_digest);
  }
  void works(const std::string& address) {
    ST_ASSERT_VALUE(const auto socket, shell_->connect(address, kEcho));
    EXPECT_EQ(socket.errno_name, "");
    echoes(socket.id);
  }
  // An LRU map keeps the newest rows of each CPU apart: they go when that CPU makes new ones.
  void evict(const std::string& map, std::uint32_t rows) const {
    cpu_set_t allowed;
    ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) {
        continue;
      }
      std::thread([&, this] {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
        ST_ASSERT_OK(kernel().add_odd_rows(map, rows));
      }).join();
    }
  }
  void nft(const std::string& commands) const {
    ST_ASSERT_VALUE(const auto done, run_command({.arguments = {"nft", commands},
                                                  .netns_path = web_->netns.path()}));
    EXPECT_EQ(done.exit_status, 0) << done.output;
  }
};

// connect() looks for room by the kernel's own count, which knows nothing of these rows.
TEST_F(LossesTest, without_room_for_its_record_a_connection_ends_and_is_counted) {
  works(api_->v4);
  ST_ASSERT_OK(kernel().add_odd_rows("st_records", ST_MAX_RECORDS));
  const Counts before = counts();
  for (const std::string& address : {api_->v4, api_->v6}) {
    ST_ASSERT_VALUE(const auto socket, shell_->connect(address, kEcho));
    // The engine may be faster than the return of connect().
    if (socket.error_number == 0) {
      ST_ASSERT_VALUE(const auto end, shell_->receive_to_end(socket.id));
      EXPECT_EQ(end.length, 0U);
    } else {
      EXPECT_EQ(socket.errno_name, "ECONNRESET");
    }
  }
  EXPECT_EQ(lost("records_full"), 2U);
  Counts more = counts();
  EXPECT_EQ(more["redirected"], before.at("redirected") + 2);
  EXPECT_EQ(more["no_original_destination"], 2U);
  ST_ASSERT_OK(kernel().remove_odd_rows("st_records"));
  works(api_->v4);
  works(api_->v6);
  EXPECT_EQ(lost("records_full"), 2U);
}

TEST_F(LossesTest, without_its_row_an_open_connection_works_and_is_not_shown) {
  ST_ASSERT_VALUE(const auto socket, shell_->connect(api_->v4, kEcho));
  ST_ASSERT_VALUE(const std::uint64_t cookie, cookie(*shell_, socket.id));
  const std::string source = source_of(*shell_, socket.id);
  EXPECT_EQ(flows_from(source).size(), 1U);
  ASSERT_NO_FATAL_FAILURE(evict("st_redirected", 2 * ST_MAX_REDIRECTED));
  ST_ASSERT_VALUE(const bool is_shown, is_listed(cookie));
  EXPECT_FALSE(is_shown);
  EXPECT_TRUE(flows_from(source).empty());
  ST_ASSERT_VALUE(const auto next, shell_->connect(api_->v6, kEcho));
  EXPECT_EQ(flows_from(source_of(*shell_, next.id)).size(), 1U);
  echoes(socket.id);
  echoes(next.id);
  ST_ASSERT_OK(shell_->close(socket.id));
  const json flow = closed_flow(source);
  EXPECT_EQ(flow["path"], "engine") << flow;
  EXPECT_EQ(flow["reason"], "redirected") << flow;
  EXPECT_EQ(flow["bytes_out"], 50'000) << flow;
}

// What the kernel counts of a pod stands before its row, so there is none of that either.
TEST_F(LossesTest, without_room_for_its_state_a_pod_is_left_alone_and_shown) {
  ST_ASSERT_OK(kernel().add_odd_rows("st_pod_state", ST_MAX_PODS));
  ST_ASSERT_VALUE(const Pod* late, lab_->add_pod("late"));
  ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = "shop",
                                     .name = "late",
                                     .netns_path = late->netns.path(),
                                     .addresses = {late->v4, late->v6}}));
  const auto shown = [this] {
    const auto pod = sidetrack_->pod("shop/late");
    return pod ? pod->value("state", "") + " " + pod->value("reason", "") : pod.error().message;
  };
  EXPECT_TRUE(eventually(kPatience, [&] { return shown() == "drift map_full"; })) << shown();
  ST_ASSERT_VALUE(const std::uint64_t netns, late->netns.cookie());
  EXPECT_FALSE(kernel().pod(netns));
  ST_ASSERT_VALUE(shell_, PodShell::start(place(*late)));
  const Counts before = counts("");
  works(api_->v4);
  EXPECT_EQ(counts(""), plus_one(before, "unknown_netns"));
  ST_ASSERT_OK(kernel().remove_odd_rows("st_pod_state"));
  EXPECT_TRUE(eventually(kPatience, [&] { return shown() == "enrolled "; })) << shown();
  const std::uint64_t redirected = counts()["redirected"];
  works(api_->v6);
  EXPECT_EQ(counts()["redirected"], redirected + 1);
}

// Needs a namespace's own limit of socket memory, which kernels before 6.8 do not have.
class FallbackTest : public LossesTest {};

// The handshake's last ACK is lost: the client is connected and has left its record, the engine's
// socket does not exist yet. When it does, with the client's first bytes, there is no memory for
// what sockops would keep in it.
TEST_F(FallbackTest, an_engine_finds_the_record_of_a_socket_that_keeps_nothing) {
  if (!web_->netns.write_sysctl("core/optmem_max", "131072")) {
    GTEST_SKIP() << "this kernel has one net.core.optmem_max for all namespaces";
  }
  works(api_->v4);
  EXPECT_EQ(lost("record_fallback"), 0U);
  std::uint64_t expected = 0;
  for (const std::string& address : {api_->v4, api_->v6}) {
    SCOPED_TRACE(address);
    nft("add table inet cut; add chain inet cut in { type filter hook input priority 0; }; "
        "add rule inet cut in iif lo tcp flags & (fin|syn|psh|ack) == ack drop");
    ST_ASSERT_VALUE(const auto socket, shell_->connect(address, kEcho));
    EXPECT_EQ(socket.errno_name, "");
    ST_ASSERT_OK(web_->netns.write_sysctl("core/optmem_max", "1"));
    nft("delete table inet cut");
    echoes(socket.id);
    EXPECT_EQ(lost("record_fallback"), ++expected);
    ST_ASSERT_OK(web_->netns.write_sysctl("core/optmem_max", "131072"));
  }
  works(api_->v4);
  EXPECT_EQ(lost("record_fallback"), expected);
  EXPECT_EQ(lost("storage_full"), 0U);
}

}  // namespace
}  // namespace sidetrack::lab
