// SPDX-License-Identifier: Apache-2.0
// The editor of network configurations, on what real ones look like.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include <nlohmann/json.hpp>

#include "cni/install/conflist.h"
#include "cni/plugin/request.h"

namespace sidetrack::cni::install {
namespace {

using nlohmann::json;

const Entry kEntry{.enrolled_namespaces = "/var/lib/sidetrack/enrolled-namespaces",
                   .own_namespace = "sidetrack-system"};

std::string sample(const std::string& name) {
  std::ifstream file(std::string(ST_CONFLISTS) + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Expected {
  std::string file;
  std::string network;
  std::string before;  // the text before our entry
  std::string after;
};

class CniConflist : public testing::TestWithParam<Expected> {};

// Everything else stays where and as it is, and taking the entry out undoes it.
TEST_P(CniConflist, gets_our_entry_last_and_nothing_else) {
  const std::string text = sample(GetParam().file);
  ASSERT_FALSE(text.empty());
  const auto edited = with_entry(text, kEntry);
  ASSERT_TRUE(edited) << edited.error().message;
  const std::string entry = entry_text(kEntry);
  const auto at = edited->find(entry);
  ASSERT_NE(at, std::string::npos) << *edited;
  EXPECT_TRUE(edited->substr(0, at).ends_with(GetParam().before)) << *edited;
  EXPECT_EQ(edited->substr(at + entry.size()), GetParam().after);

  json wanted = json::parse(text);
  wanted["plugins"].push_back(json::parse(entry));
  EXPECT_EQ(json::parse(*edited), wanted);
  const auto facts = read_list(*edited);
  ASSERT_TRUE(facts) << facts.error().message;
  EXPECT_EQ(facts->name, GetParam().network);
  EXPECT_EQ(facts->types.back(), "sidetrack-cni");

  const auto again = with_entry(*edited, kEntry);
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, *edited);
  const auto undone = without_entry(*edited, kEntry.type);
  ASSERT_TRUE(undone);
  EXPECT_EQ(*undone, text);
  EXPECT_EQ(*without_entry(text, kEntry.type), text);
}

INSTANTIATE_TEST_SUITE_P(
    Real, CniConflist,
    testing::Values(Expected{"bridge.conflist", "k8slab", "true } },\n    ", "\n  ]\n}\n"},
                    Expected{"calico.conflist", "k8s-pod-network", "true}},\n    ", "\n  ]\n}\n"},
                    Expected{"flannel.conflist", "cbr0", "      }\n    },\n    ", "\n  ]\n}\n"},
                    Expected{"cilium.conflist", "cilium", "log\"\n    },\n    ", "\n  ]\n}\n"},
                    Expected{"minified.conflist", "min", "\"loopback\"},", "]}"},
                    Expected{"odd.conflist", "crlf", "null },\r\n\t\t",
                             "\r\n\t],\r\n\t\"x-vendor\": {\"b\": 1, \"a\": [1, 2.50]},\r\n\t"
                             "\"name\": \"cr\\u006cf\",\r\n\t\"cniVersion\": \"1.0.0\"\r\n}\r\n"}),
    [](const auto& row) { return row.param.file.substr(0, row.param.file.find('.')); });

const std::string kHead = R"({"cniVersion":"1.0.0","name":"n","plugins":[)";

TEST(CniConflistEdit, removes_duplicates_and_entries_that_say_something_else) {
  const std::string a = R"({"type":"a"})";
  const std::string b = R"({"type":"b","x":1e3})";
  const std::string ours = R"({"type":"sidetrack-cni","old":true})";
  const std::string wanted = kHead + a + "," + b + "," + entry_text(kEntry) + "]}";
  const auto edit = [](const std::string& plugins) {
    return with_entry(kHead + plugins + "]}", kEntry).value_or("?");
  };
  EXPECT_EQ(edit(a + "," + b), wanted);
  EXPECT_EQ(edit(a + "," + b + "," + ours), wanted);
  EXPECT_EQ(edit(ours + "," + a + "," + b), wanted);
  EXPECT_EQ(edit(ours + "," + a + "," + ours + "," + ours + "," + b + "," + ours), wanted);
  EXPECT_EQ(edit(a + "," + entry_text(kEntry) + "," + b), wanted) << "ours has to be the last";
  EXPECT_EQ(edit(a + "," + b + "," + entry_text(kEntry) + "," + entry_text(kEntry)), wanted);
}

TEST(CniConflistEdit, an_equal_entry_in_another_form_is_left_as_it_is) {
  const std::string text = R"({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a"}, {
    "type": "sidetrack\u002dcni",
    "timeoutMs": 2000,
    "socket": "\/run/sidetrack/cni.sock", "ownNamespace": "sidetrack-system",
    "onAgentDown": "allow", "enrolledNamespaces": "/var/lib/sidetrack/enrolled-namespaces"
  }]})";
  EXPECT_EQ(with_entry(text, kEntry).value_or("?"), text);
}

TEST(CniConflistEdit, of_keys_that_are_there_twice_the_last_one_counts_as_for_the_runtime) {
  const auto edited = with_entry(
      R"({"plugins":[{"type":"x"}],"cniVersion":"0.1.0","cniVersion":"1.0.0","name":"n","plugins":[{"type":"x","type":"y"}]})",
      kEntry);
  ASSERT_TRUE(edited) << edited.error().message;
  EXPECT_TRUE(edited->starts_with(R"({"plugins":[{"type":"x"}],)")) << *edited;
  EXPECT_EQ(read_list(*edited)->types, (std::vector<std::string>{"y", "sidetrack-cni"}));
}

struct Refused {
  std::string name;
  std::string text;
  ErrorCode code = ErrorCode::kInvalid;
};

class CniConflistRefused : public testing::TestWithParam<Refused> {};

TEST_P(CniConflistRefused, is_not_edited) {
  const auto edited = with_entry(GetParam().text, kEntry);
  ASSERT_FALSE(edited) << *edited;
  EXPECT_EQ(edited.error().code, GetParam().code) << edited.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Cni, CniConflistRefused,
    testing::Values(
        Refused{"empty", ""}, Refused{"torn", kHead}, Refused{"array", "[]"},
        Refused{"comment", "// no\n" + kHead + R"({"type":"a"}]})"},
        Refused{"trailing_comma", kHead + R"({"type":"a"},]})"},
        Refused{"text_behind_it", kHead + R"({"type":"a"}]} x)"},
        Refused{"nul_behind_it", kHead + R"({"type":"a"}]})" + std::string(1, '\0')},
        Refused{"byte_order_mark", "\xef\xbb\xbf" + kHead + R"({"type":"a"}]})"},
        Refused{"no_utf8", kHead + "{\"type\":\"\xff\"}]}"},
        Refused{"too_deep", kHead + R"({"type":"a","d":)" + std::string(70, '[') +
                                std::string(70, ']') + "}]}"},
        Refused{"deep_and_torn", kHead + std::string(100000, '[')},
        Refused{"no_plugins", R"({"cniVersion":"1.0.0","name":"n"})"},
        Refused{"empty_plugins", kHead + "]}"},
        Refused{"plugins_are_an_object", R"({"cniVersion":"1.0.0","name":"n","plugins":{}})"},
        Refused{"plugin_without_type", kHead + R"({"type":"a"},{}]})"},
        Refused{"plugin_is_a_text", kHead + R"("a"]})"},
        Refused{"no_name", R"({"cniVersion":"1.0.0","plugins":[{"type":"a"}]})"},
        Refused{"only_ours", kHead + R"({"type":"sidetrack-cni"}]})"},
        Refused{"version_too_old", R"({"cniVersion":"0.2.0","name":"n","plugins":[{"type":"a"}]})",
                ErrorCode::kUnsupported},
        Refused{"no_version", R"({"name":"n","plugins":[{"type":"a"}]})", ErrorCode::kUnsupported},
        Refused{"version_of_tomorrow",
                R"({"cniVersion":"1.2.0","name":"n","plugins":[{"type":"a"}]})",
                ErrorCode::kUnsupported},
        Refused{"one_version_of_tomorrow",
                R"({"cniVersions":["1.1.0","1.2.0"],"name":"n","plugins":[{"type":"a"}]})",
                ErrorCode::kUnsupported}),
    [](const auto& row) { return row.param.name; });

TEST(CniConflistEdit, takes_lists_with_several_versions) {
  EXPECT_TRUE(with_entry(
      R"({"cniVersions":["0.4.0","1.1.0"],"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"}]})",
      kEntry));
}

TEST(CniSingle, is_embedded_as_it_is) {
  const std::string conf = sample("ptp.conf");
  const auto list = list_around(conf, kEntry);
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_NE(list->find(conf.substr(0, conf.rfind('}') + 1)), std::string::npos) << *list;
  const json parsed = json::parse(*list);
  EXPECT_EQ(parsed["name"], "ptp");
  EXPECT_EQ(parsed["cniVersion"], "0.3.1");
  EXPECT_EQ(parsed["plugins"][0], json::parse(conf));
  EXPECT_EQ(parsed["plugins"][1], json::parse(entry_text(kEntry)));
  EXPECT_EQ(read_list(*list)->types, (std::vector<std::string>{"ptp", "sidetrack-cni"}));
  EXPECT_EQ(with_entry(*list, kEntry).value_or("?"), *list);
}

TEST(CniSingle, that_a_runtime_would_not_load_is_refused) {
  EXPECT_FALSE(list_around(sample("bridge.conflist"), kEntry)) << "a list in a .conf";
  EXPECT_FALSE(list_around(R"({"cniVersion":"1.0.0","type":"a"})", kEntry));
  EXPECT_EQ(list_around(R"({"name":"n","type":"a"})", kEntry).error().code,
            ErrorCode::kUnsupported);
}

TEST(CniConflistEdit, finds_our_entry_anywhere) {
  EXPECT_TRUE(mentions(kHead + R"({"type":"sidetrack-cni"},{"type":"b"}]})", "sidetrack-cni"));
  EXPECT_TRUE(mentions(R"({"type":"sidetrack-cni"})", "sidetrack-cni"));
  EXPECT_FALSE(mentions(kHead + R"({"type":"a","note":"sidetrack-cni"}]})", "sidetrack-cni"));
  EXPECT_FALSE(mentions("sidetrack-cni", "sidetrack-cni"));
  EXPECT_TRUE(may_mention("sidetrack-cni", "sidetrack-cni")) << "somebody may put it right";
  EXPECT_TRUE(may_mention(kHead + R"({"type":"sidetrack-cni"})", "sidetrack-cni"));
  EXPECT_FALSE(may_mention(kHead + R"({"type":"a"})", "sidetrack-cni"));
  EXPECT_FALSE(may_mention(kHead + R"({"type":"a","note":"sidetrack-cni"}]})", "sidetrack-cni"));
}

// What the installer writes is what the plugin reads.
TEST(CniEntry, says_to_the_plugin_what_was_meant) {
  const Entry entry{.type = "sidetrack-cni",
                    .socket = "/run/a \"quoted\"/\xc3\xbc.sock",
                    .deny_for_seconds = 0,
                    .enrolled_namespaces = "/var/lib/x/enrolled-namespaces",
                    .log_file = "/var/log/x",
                    .on_agent_down = "deny",
                    .own_namespace = "mesh",
                    .status_checks_agent = true,
                    .timeout_ms = 1234};
  const std::string text = entry_text(entry);
  const auto object = cni::json::read_object(text);
  ASSERT_TRUE(object) << object.error().message;
  const auto config = plugin::read_config(text, *object);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->socket, entry.socket);
  EXPECT_EQ(config->enrolled_namespaces, entry.enrolled_namespaces);
  EXPECT_EQ(config->log_file, entry.log_file);
  EXPECT_TRUE(config->deny);
  EXPECT_EQ(config->deny_for_seconds, 0U);
  EXPECT_EQ(config->own_namespace, "mesh");
  EXPECT_TRUE(config->status_checks_agent);
  EXPECT_EQ(config->timeout_ms, 1234U);

  const std::string plain = entry_text(Entry{});
  const auto plain_object = cni::json::read_object(plain);
  ASSERT_TRUE(plain_object);
  const auto defaults = plugin::read_config(plain, *plain_object);
  ASSERT_TRUE(defaults);
  EXPECT_FALSE(defaults->deny);
  EXPECT_EQ(defaults->deny_for_seconds, 3600U);
  EXPECT_EQ(defaults->timeout_ms, 2000U);
  EXPECT_EQ(defaults->socket, "/run/sidetrack/cni.sock");
}

}  // namespace
}  // namespace sidetrack::cni::install
