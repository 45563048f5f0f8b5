// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "agent/kube/text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace sidetrack::kube {
namespace {

TEST(Text, a_decode_error_names_line_object_and_field) {
  const TextObjects text = decode_text(
      "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  ports:\n "
      " - port: 70000\n",
      TextFormat::kYaml, "file /objects/a.yaml");
  ASSERT_EQ(text.problems.size(), 1U);
  EXPECT_EQ(text.problems[0].object, "file /objects/a.yaml");
  EXPECT_EQ(text.problems[0].key, "line 8");
  EXPECT_EQ(text.problems[0].value, "70000");
  EXPECT_EQ(text.problems[0].reason, "Service/shop/web /spec/ports/0/port: must be 1-65535");
  EXPECT_FALSE(text.problems[0].warning);
  EXPECT_TRUE(text.parsed);
  EXPECT_FALSE(text.complete);
  EXPECT_TRUE(text.objects.empty());
}

TEST(Text, a_label_that_is_no_string_says_quote_it) {
  const TextObjects text = decode_yaml_text(
      "apiVersion: v1\nkind: Node\nmetadata:\n  name: a\n  labels:\n    x: true\n");
  ASSERT_EQ(text.problems.size(), 1U);
  EXPECT_EQ(text.problems[0].key, "line 6");
  EXPECT_EQ(text.problems[0].value, "true");
  EXPECT_NE(text.problems[0].reason.find("quote it"), std::string::npos) << text.problems[0].reason;
}

TEST(Text, a_broken_text_has_no_objects) {
  const TextObjects text =
      decode_yaml_text("apiVersion: v1\nkind: Node\nmetadata: {name: a}\n---\na: [\n");
  EXPECT_FALSE(text.parsed);
  EXPECT_FALSE(text.complete);
  EXPECT_TRUE(text.objects.empty());
  ASSERT_EQ(text.problems.size(), 1U);
}

TEST(Text, one_bad_object_leaves_the_others) {
  const TextObjects text = decode_yaml_text(
      "apiVersion: v1\nkind: Node\n---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\n");
  EXPECT_TRUE(text.parsed);
  EXPECT_FALSE(text.complete);
  ASSERT_EQ(text.objects.size(), 1U);
  EXPECT_EQ(object_name(text.objects[0]), "Node/b");
}

TEST(Text, the_later_of_two_objects_of_one_name_wins_with_a_warning) {
  const std::string head = "apiVersion: v1\nkind: Node\nmetadata: {name: a, uid: ";
  const TextObjects text = decode_yaml_text(head + "one}\n---\n" + head + "two}\n");
  ASSERT_EQ(text.objects.size(), 1U);
  EXPECT_EQ(std::get<Node>(text.objects[0]).metadata.uid, "two");
  ASSERT_EQ(text.problems.size(), 1U);
  EXPECT_TRUE(text.problems[0].warning);
  EXPECT_TRUE(text.complete);
}

TEST(Text, many_problems_are_cut_and_counted) {
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    all += "apiVersion: v1\nkind: Node\n---\n";
  }
  const TextObjects text = decode_yaml_text(all);
  ASSERT_EQ(text.problems.size(), 51U);
  EXPECT_EQ(text.problems.back().key, "more");
  EXPECT_EQ(text.problems.back().value, "950");
}

TEST(Text, json_goes_the_same_way) {
  const TextObjects text = decode_text(
      "{\"apiVersion\": \"v1\",\n \"kind\": \"Node\",\n \"metadata\": {\n  \"name\": 7}}",
      TextFormat::kJson, "file a.json");
  ASSERT_EQ(text.problems.size(), 1U);
  EXPECT_EQ(text.problems[0].key, "line 4");
}

TEST(Text, the_fuzz_corpus_is_harmless) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ST_FUZZ_CORPUS)) {
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    SCOPED_TRACE(entry.path().string());
    EXPECT_EQ(
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()),
        0);
    ++files;
  }
  EXPECT_GE(files, 5U);
}

}  // namespace
}  // namespace sidetrack::kube
