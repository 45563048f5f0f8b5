// SPDX-License-Identifier: Apache-2.0
// Which connections are noted as candidates for the fast path: those that no rule excludes.
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "sidetrack/abi/fast.h"
#include "tests/dataplane/fast_list.h"
#include "tests/dataplane/kernel_view.h"

namespace sidetrack::lab {
namespace {

constexpr std::uint16_t kNamed = 7001;  // what the rules are about
constexpr std::uint16_t kOther = 7002;

struct Rule {
  const char* key;
  const char* value;
};
// Each excludes kNamed and nothing else.
constexpr Rule kRules[] = {
    {"exclude-outbound-ports", "7001"},
    {"exclude-outbound-cidrs",
     "127.0.0.0/8:7001,10.0.0.0/8:7001,[::1/128]:7001,[fd00::/8]:7001,[::ffff:0:0/96]:7001"},
    {"include-outbound-ports", "7002"},
};

class FastListPairs : public FastList {
 protected:
  struct Target {
    const Pod* from;
    std::string address;
  };
  // All ways from a pod of shop to its server, and those of an IPv6 socket to an IPv4 address.
  [[nodiscard]] std::vector<Target> targets() const {
    const std::string mapped = "::ffff:";
    std::vector<Target> all;
    for (const std::string& own : {shop_.server->v4, shop_.server->v6, mapped + shop_.server->v4}) {
      all.push_back({shop_.client, own});
      all.push_back({shop_.server, own});
    }
    for (const std::string& inside :
         {std::string("127.0.0.1"), std::string("::1"), mapped + "127.0.0.1"}) {
      all.push_back({shop_.server, inside});
    }
    return all;
  }
  // A connection to the server's port: whether st_pairs has it.
  [[nodiscard]] bool is_noted(const Target& target, std::uint16_t port) const {
    const UniqueFd listener = socket_in(*shop_.server, AF_INET6);
    set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1);
    Address any = address_of("::", port);
    EXPECT_EQ(::bind(listener.get(), any.get(), any.size), 0) << ::strerrorname_np(errno);
    EXPECT_EQ(::listen(listener.get(), 5), 0);
    Address there = address_of(target.address, port);
    const UniqueFd client = socket_in(*target.from, there.storage.ss_family);
    EXPECT_TRUE(::connect(client.get(), there.get(), there.size) == 0 || errno == EINPROGRESS);
    const UniqueFd server = accept_from(listener);
    EXPECT_TRUE(server.valid());
    const std::uint64_t cookie = cookie_of(client);
    const nlohmann::json rows = sidetrack_->dump_map("st_pairs").value();
    return std::any_of(rows.begin(), rows.end(), [&](const auto& row) {
      return row["formatted"]["value"]["end"][ST_SIDE_CLIENT]["cookie"] == cookie;
    });
  }
  // Of both pods; a change of policy is a change of these.
  [[nodiscard]] std::vector<std::uint32_t> policies() const {
    std::vector<std::uint32_t> ids;
    for (const Pod* pod : {shop_.client, shop_.server}) {
      ids.push_back(KernelView(sidetrack_->pin_dir()).pod(pod->netns.cookie().value())->policy_id);
    }
    return ids;
  }
  [[nodiscard]] bool has_mode(st_mode mode) const {
    const KernelView kernel(sidetrack_->pin_dir());
    return kernel.pod(shop_.client->netns.cookie().value())->mode == mode &&
           kernel.pod(shop_.server->netns.cookie().value())->mode == mode;
  }
  // Waits until the kernel decides by it.
  void annotate(const Rule& rule, const std::optional<std::string>& value) {
    const auto before = policies();
    ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop",
                                          std::string("sidetrack.io/") + rule.key, value));
    ASSERT_TRUE(eventually(kPatience, [&] {
      const auto now = policies();
      return now[0] != before[0] && now[1] != before[1];
    })) << rule.key;
  }
  void expect_noted_unless_excluded() {
    for (const Rule& rule : kRules) {
      ASSERT_NO_FATAL_FAILURE(annotate(rule, rule.value));
      for (const Target& target : targets()) {
        SCOPED_TRACE(fmt::format("{} from {} to {}", rule.key, target.from->name, target.address));
        EXPECT_FALSE(is_noted(target, kNamed));
        EXPECT_TRUE(is_noted(target, kOther));
      }
      ASSERT_NO_FATAL_FAILURE(annotate(rule, std::nullopt));
      for (const Target& target : targets()) {
        EXPECT_TRUE(is_noted(target, kNamed)) << target.address;
      }
    }
  }
};

TEST_F(FastListPairs, what_a_rule_excludes_is_not_noted) {
  ASSERT_NO_FATAL_FAILURE(expect_noted_unless_excluded());
  // No engine is there: what is not excluded goes direct.
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", "sidetrack.io/mode", "redirect"));
  ASSERT_TRUE(eventually(kPatience, [this] { return has_mode(ST_MODE_REDIRECT); }));
  ASSERT_NO_FATAL_FAILURE(expect_noted_unless_excluded());
}

// As the option is if nobody sets it.
class FastListInside : public FastListPairs {
 protected:
  FastListInside() {
    agent_arguments_ = {"--fast-path-probation", "0s", "--fast-path-round-trips", "4"};
  }
};

TEST_F(FastListInside, connections_inside_a_pod_stay_on_tcp_unless_the_option_is_on) {
  for (const Target& target : targets()) {
    EXPECT_EQ(is_noted(target, kOther), target.from == shop_.client) << target.address;
  }
  const auto talk = [](Ends& ends) {
    return words({stream(ends.client, ends.server, {}), stream(ends.server, ends.client, {})});
  };
  std::vector<Ends> inside;
  for (const Ip ip : {Ip::kV4, Ip::kV6, Ip::kMapped}) {
    inside.push_back(open_on(shop_, {Where::kLoopback, ip}));
    (void)talk(inside.back());
  }
  Ends across = open_on(shop_, {});
  make_fast({&across});
  for (Ends& ends : inside) {
    const Counted run = run_counted(talk, ends);
    EXPECT_EQ(run.said, words({whole(Pace{}.length), whole(Pace{}.length)}));
    EXPECT_EQ(run.skipped, 0U);
  }
}

}  // namespace
}  // namespace sidetrack::lab
