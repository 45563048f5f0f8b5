// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/ctl/format.h"
#include "agent/ctl/options.h"
#include "agent/ctl/output.h"

namespace sidetrack::ctl {
namespace {

TEST(CtlFormat, durations_have_two_parts_at_most) {
  EXPECT_EQ(format_duration(0.00085), "850us");
  EXPECT_EQ(format_duration(0.012), "12ms");
  EXPECT_EQ(format_duration(0.9999), "1.0s");
  EXPECT_EQ(format_duration(3.44), "3.4s");
  EXPECT_EQ(format_duration(59.97), "1m00s");
  EXPECT_EQ(format_duration(125), "2m05s");
  EXPECT_EQ(format_duration(11520), "3h12m");
  EXPECT_EQ(format_duration(446400), "5d04h");
  EXPECT_EQ(format_duration(-1), "-");
}

TEST(CtlFormat, bytes_are_binary) {
  EXPECT_EQ(format_bytes(0), "0B");
  EXPECT_EQ(format_bytes(1023), "1023B");
  EXPECT_EQ(format_bytes(1536), "1.5KiB");
  EXPECT_EQ(format_bytes(1048575), "1.0MiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16.0EiB");
}

TEST(CtlFormat, durations_are_parsed_with_units) {
  EXPECT_EQ(parse_duration("90s").value(), 90);
  EXPECT_EQ(parse_duration("5m").value(), 300);
  EXPECT_EQ(parse_duration("1.5h").value(), 5400);
  EXPECT_EQ(parse_duration("250ms").value(), 0.25);
  EXPECT_EQ(parse_duration("365d").value(), 365 * 86400);
}

TEST(CtlFormat, what_is_no_duration_is_refused_with_a_reason) {
  const auto why = [](const char* text) {
    const auto parsed = parse_duration(text);
    return parsed ? "none" : parsed.error().message;
  };
  EXPECT_EQ(why("5"), "'5': a time such as 30s, 5m or 2h is meant, with the unit ms, s, m, h or d");
  EXPECT_THAT(why("5 minutes"), ::testing::HasSubstr("with the unit"));
  EXPECT_THAT(why("1e9s"), ::testing::HasSubstr("with the unit"));
  for (const char* text : {"", "m", "soon", "infs", "nand"}) {
    EXPECT_THAT(why(text), ::testing::HasSubstr("a number first")) << text;
  }
  for (const char* text : {"0s", "-5m", "366d", "99999999999999999999d"}) {
    EXPECT_THAT(why(text), ::testing::HasSubstr("more than 0 and at most 365d")) << text;
  }
}

TEST(CtlFormat, table_aligns_columns_and_marks_empty_cells) {
  Table table({"A", "LONG"});
  table.add({{"xyz"}, {""}});
  EXPECT_EQ(table.render(Painter(Painter::Mode::kPlain)), "A    LONG\nxyz  -\n");
}

TEST(CtlFormat, colour_only_where_wanted) {
  EXPECT_EQ(Painter(Painter::Mode::kColour).paint("x", Colour::kRed), "\x1b[31mx\x1b[0m");
  EXPECT_EQ(Painter(Painter::Mode::kPlain).paint("x", Colour::kRed), "x");
}

TEST(CtlFormat, control_bytes_never_reach_the_terminal) {
  EXPECT_EQ(printable("a\x1b[2Jb\n"), "a\\x1b[2Jb\\x0a");
  EXPECT_EQ(printable("a\xc2\x9b"
                      "2J"),
            "a\\u009b2J");
  EXPECT_EQ(printable("a\u202eb"), "a\\u202eb");
}

TEST(CtlFormat, bytes_that_are_no_text_are_shown_as_numbers) {
  EXPECT_EQ(printable("\x7f"
                      "ELF\xff\xc3"),
            "\\x7fELF\\xff\\xc3");
  EXPECT_EQ(printable(std::string_view("\0\xed\xa0\x80z", 5)), "\\x00\\xed\\xa0\\x80z");
  EXPECT_EQ(printable("gr\u00fc\u00df \u65e5\u672c"), "gr\u00fc\u00df \u65e5\u672c");
}

TEST(CtlFormat, what_is_over_long_is_cut_and_says_how_much) {
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdefg", 6), "abcdef... (1 bytes more)");
  EXPECT_EQ(printable("ab\xff\xff", 6), "ab\\xff... (1 bytes more)");
  EXPECT_LT(printable(std::string(1'000'000, '\xff')).size(), 600U);
}

TEST(CtlFormat, cells_are_cut_to_a_width_that_leaves_a_table) {
  Table table({"A"});
  table.add({{std::string(5000, 'x')}});
  EXPECT_LT(table.render(Painter(Painter::Mode::kPlain)).size(), 200U);
}

TEST(CtlOutput, yaml_quotes_what_would_change_its_type) {
  const nlohmann::json value = {{"a", "yes"},   {"b", "10"},   {"c", true},
                                {"d", nullptr}, {"e", {1, 2}}, {"f", "shop/web"}};
  EXPECT_EQ(serialise(value, Format::kYaml),
            "a: \"yes\"\nb: \"10\"\nc: true\nd: ~\ne:\n  - 1\n  - 2\nf: shop/web\n");
}

TEST(CtlOptions, are_taken_before_and_after_the_command) {
  const auto options = parse_options(
      {"--state-dir", "/x", "flows", "-f", "-n", "shop", "--since", "5m", "-o", "json"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->command, "flows");
  EXPECT_EQ(options->state_dir, "/x");
  EXPECT_EQ(options->namespace_name, "shop");
  EXPECT_EQ(options->since_s, 300);
  EXPECT_TRUE(options->follow);
  EXPECT_EQ(options->format, Format::kJson);
}

TEST(CtlOptions, wrong_ones_are_named) {
  EXPECT_FALSE(parse_options({}));
  EXPECT_FALSE(parse_options({"nonsense"}));
  EXPECT_THAT(parse_options({"status", "extra"}).error().message,
              ::testing::HasSubstr("\"extra\" is too much"));
  EXPECT_THAT(parse_options({"policy", "shop/web", "extra"}).error().message,
              ::testing::HasSubstr("\"extra\" is too much"));
  EXPECT_FALSE(parse_options({"explain", "shop/web-0"}));
  EXPECT_FALSE(parse_options({"status", "-o", "xml"}));
  EXPECT_FALSE(parse_options({"status", "-f"}));
  EXPECT_THAT(parse_options({"flows", "--since", "5"}).error().message,
              ::testing::HasSubstr("--since '5': a time such as 30s, 5m or 2h is meant"));
  EXPECT_FALSE(parse_options({"status", "--nope"}));
  EXPECT_FALSE(parse_options({"status", "--stat", "/x"}));
  EXPECT_THAT(parse_options({"pods", "-n", ""}).error().message,
              ::testing::HasSubstr("-n '': a namespace name is meant"));
}

TEST(CtlOptions, every_command_has_help_with_an_example) {
  for (const char* command : {"status", "pods", "policy", "explain", "flows", "bypass", "doctor",
                              "counters", "workloads"}) {
    EXPECT_NE(help_text(command).find(std::string("  sidetrackctl ") + command), std::string::npos)
        << command;
  }
}

TEST(CtlOptions, of_single_commands_are_in_the_general_help) {
  EXPECT_THAT(help_text(""), ::testing::HasSubstr("--pin-dir"));
}

}  // namespace
}  // namespace sidetrack::ctl
