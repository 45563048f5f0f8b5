// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include <nlohmann/json.hpp>

#include "agent/kube/yaml.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

struct TypingRow {
  const char* text;
  json value;
};

class YamlTyping : public testing::TestWithParam<TypingRow> {};

TEST_P(YamlTyping, follows_the_core_schema) {
  const Parsed parsed = parse_yaml(std::string("v: ") + GetParam().text + "\n");
  ASSERT_FALSE(parsed.error) << parsed.error->reason;
  ASSERT_EQ(parsed.documents.size(), 1U);
  EXPECT_EQ(parsed.documents[0].value["v"], GetParam().value) << GetParam().text;
  EXPECT_STREQ(parsed.documents[0].value["v"].type_name(), GetParam().value.type_name())
      << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, YamlTyping,
    testing::Values(TypingRow{"true", true}, TypingRow{"False", false},
                    TypingRow{"\"true\"", "true"}, TypingRow{"'80'", "80"}, TypingRow{"80", 80},
                    TypingRow{"+80", 80}, TypingRow{"-7", -7}, TypingRow{"0x1F", 31},
                    TypingRow{"0o17", 15}, TypingRow{"017", 17}, TypingRow{"1.5", 1.5},
                    TypingRow{"1e3", 1000.0}, TypingRow{".5", 0.5}, TypingRow{"-.5", -0.5},
                    TypingRow{"+1.", 1.0}, TypingRow{"8500,8600-8700", "8500,8600-8700"},
                    TypingRow{"10.0.0.1", "10.0.0.1"}, TypingRow{"inf", "inf"},
                    TypingRow{"-x", "-x"}, TypingRow{"e5", "e5"}, TypingRow{".", "."},
                    TypingRow{"0x", "0x"}, TypingRow{"null", nullptr}, TypingRow{"~", nullptr},
                    TypingRow{"", nullptr}, TypingRow{"\"\"", ""}, TypingRow{"!!str 80", "80"},
                    TypingRow{"! 80", "80"}, TypingRow{"|\n  80", "80\n"},
                    TypingRow{"18446744073709551615", 18446744073709551615ULL},
                    TypingRow{"18446744073709551616", 18446744073709551616.0},
                    TypingRow{"1_000", "1_000"}, TypingRow{"1e400", "1e400"}));

TEST(Yaml, warns_where_kubectl_would_read_a_boolean) {
  const Parsed parsed = parse_yaml("a: 1\nfast-path: off\nquoted: 'off'\n");
  ASSERT_EQ(parsed.warnings.size(), 1U);
  EXPECT_EQ(parsed.warnings[0].line, 2);
  EXPECT_EQ(parsed.warnings[0].text, "off");
  EXPECT_EQ(parsed.documents[0].value["fast-path"], "off");
}

TEST(Yaml, reads_several_documents_and_leaves_empty_ones_out) {
  const Parsed parsed = parse_yaml("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n");
  ASSERT_FALSE(parsed.error);
  ASSERT_EQ(parsed.documents.size(), 2U);
  EXPECT_EQ(parsed.documents[1].value, json({{"b", 2}}));
}

TEST(Yaml, keeps_numeric_keys_as_text) {
  const Parsed parsed = parse_yaml("80: a\ntrue: b\n");
  ASSERT_FALSE(parsed.error);
  EXPECT_EQ(parsed.documents[0].value, json({{"80", "a"}, {"true", "b"}}));
}

TEST(Yaml, expands_aliases) {
  const Parsed parsed = parse_yaml("a: &x {k: [1, 2]}\nb: *x\nc: &name key\nd: {*name : 1}\n");
  ASSERT_FALSE(parsed.error) << parsed.error->reason;
  EXPECT_EQ(parsed.documents[0].value["b"], json({{"k", {1, 2}}}));
  EXPECT_EQ(parsed.documents[0].value["d"], json({{"key", 1}}));
}

struct ErrorRow {
  const char* name;
  std::string text;
  int line;
  const char* reason;
};

class YamlErrors : public testing::TestWithParam<ErrorRow> {};

TEST_P(YamlErrors, name_the_line) {
  const Parsed parsed = parse_yaml(GetParam().text);
  ASSERT_TRUE(parsed.error);
  EXPECT_EQ(parsed.error->line, GetParam().line);
  EXPECT_NE(parsed.error->reason.find(GetParam().reason), std::string::npos)
      << parsed.error->reason;
}

std::string billion_laughs() {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 10; ++k) {
      text += before + " ,";
    }
    text += "]\n";
  }
  return text;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, YamlErrors,
    testing::Values(ErrorRow{"unclosed", "a: 1\nb: [1,\nc: 2\n", 4, ""},
                    ErrorRow{"twice", "a: 1\nb: 2\na: 3\n", 3, "twice"},
                    ErrorRow{"merge", "a: &x {k: 1}\nb:\n  <<: *x\n", 3, "merge keys"},
                    ErrorRow{"tag", "a: 1\nb: !secret x\n", 2, "!secret"},
                    ErrorRow{"map_as_key", "a: 1\n? {b: 1}\n: 2\n", 2, "plain value"},
                    ErrorRow{"self_alias", "a: &x\n  - *x\n", 2, ""},
                    ErrorRow{"unknown_alias", "a: 1\nb: *x\n", 2, ""},
                    ErrorRow{"too_deep",
                             "a: 1\nb: " + std::string(100, '[') + std::string(100, ']'), 2,
                             "deeper"},
                    ErrorRow{"very_deep", std::string(200000, '['), 1, ""},
                    ErrorRow{"laughs", billion_laughs(), 6, "aliases"},
                    ErrorRow{"too_large", std::string(kMaxFileBytes + 1, ' '), 1, "larger"}),
    [](const auto& row) { return row.param.name; });

TEST(Yaml, shows_the_offending_line) {
  const Parsed parsed = parse_yaml("a: 1\n  b: {{ .Values.x }}\n");
  ASSERT_TRUE(parsed.error);
  EXPECT_EQ(parsed.error->text, "b: {{ .Values.x }}");
}

TEST(Yaml, knows_the_line_of_every_pointer) {
  const Parsed parsed = parse_yaml(
      "# head\nmetadata:\n  name: a\n  labels:\n    x/y: b\nlist:\n- p: 1\n- p: 2\n  q: 3\n");
  ASSERT_EQ(parsed.documents.size(), 1U);
  const LineTable& lines = parsed.documents[0].lines;
  EXPECT_EQ(lines.find("/metadata"), 2);
  EXPECT_EQ(lines.find("/metadata/name"), 3);
  EXPECT_EQ(lines.find("/metadata/labels/x~1y"), 5);
  EXPECT_EQ(lines.find("/metadata/uid"), 2) << "a missing member is where its parent is";
  EXPECT_EQ(lines.find("/list/0/p"), 7);
  EXPECT_EQ(lines.find("/list/1"), 8);
  EXPECT_EQ(lines.find("/list/1/q"), 9);
  EXPECT_EQ(lines.find("/nothing"), 2);
}

TEST(Yaml, lines_of_later_documents_count_from_the_top_of_the_file) {
  const Parsed parsed = parse_yaml("a: 1\n---\nb:\n  c: 2\n");
  ASSERT_EQ(parsed.documents.size(), 2U);
  EXPECT_EQ(parsed.documents[1].lines.find("/b/c"), 4);
}

TEST(Json, reads_types_and_lines) {
  const Parsed parsed = parse_json(
      "{\n \"a\": [\n  1,\n  2\n ],\n\t\"b\": {\"c\": null, \"d\": \"\\ud83d\\ude00\"}\n}\n");
  ASSERT_FALSE(parsed.error) << parsed.error->reason;
  ASSERT_EQ(parsed.documents.size(), 1U);
  const Document& document = parsed.documents[0];
  EXPECT_EQ(document.value,
            json::parse("{\"a\":[1,2],\"b\":{\"c\":null,\"d\":\"\\ud83d\\ude00\"}}"));
  EXPECT_EQ(document.lines.find("/a"), 2);
  EXPECT_EQ(document.lines.find("/a/0"), 3);
  EXPECT_EQ(document.lines.find("/a/1"), 4);
  EXPECT_EQ(document.lines.find("/b/c"), 6);
}

class JsonErrors : public testing::TestWithParam<ErrorRow> {};

TEST_P(JsonErrors, name_the_line) {
  const Parsed parsed = parse_json(GetParam().text);
  ASSERT_TRUE(parsed.error);
  EXPECT_EQ(parsed.error->line, GetParam().line);
  EXPECT_NE(parsed.error->reason.find(GetParam().reason), std::string::npos)
      << parsed.error->reason;
}

INSTANTIATE_TEST_SUITE_P(Rows, JsonErrors,
                         testing::Values(ErrorRow{"comma", "{\n\"a\": 1\n\"b\": 2}", 3,
                                                  "unexpected"},
                                         ErrorRow{"cut", "{\n\"a\": [1,\n", 2, "unexpected end"},
                                         ErrorRow{"twice", "{\"a\": 1,\n\"a\": 2}", 2, "twice"},
                                         ErrorRow{"trailing", "{}\n{}", 2, ""},
                                         ErrorRow{"utf8", "{\"a\":\n \"\xff\"}", 2, "UTF-8"},
                                         ErrorRow{"deep", std::string(200000, '['), 1, "deeper"}),
                         [](const auto& row) { return row.param.name; });

TEST(Json, an_empty_text_is_no_document) {
  EXPECT_FALSE(parse_json(" \n").error);
  EXPECT_TRUE(parse_json(" \n").documents.empty());
}

}  // namespace
}  // namespace sidetrack::kube
