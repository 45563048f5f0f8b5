// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/yaml.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <exception>
#include <limits>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "agent/kube/fields.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxWarnings = 20;

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

template <typename Number>
std::optional<json> whole(std::string_view digits, int base) {
  Number number{};
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  if (error == std::errc() && end == digits.data() + digits.size()) {
    return json(number);
  }
  return std::nullopt;
}

bool all_of(std::string_view text, std::string_view allowed) {
  return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

std::optional<json> core_float(std::string_view text) {
  const std::string_view body = text.substr(text.starts_with('-') || text.starts_with('+') ? 1 : 0);
  if (one_of(body, {".inf", ".Inf", ".INF"})) {
    const double infinity = std::numeric_limits<double>::infinity();
    return json(text.starts_with('-') ? -infinity : infinity);
  }
  if (one_of(text, {".nan", ".NaN", ".NAN"})) {
    return json(std::nan(""));
  }
  const std::string_view digits = "0123456789";
  if (body.find_first_of(digits) > 1 ||
      (body[0] != '.' && digits.find(body[0]) == std::string_view::npos)) {
    return std::nullopt;  // keeps "inf", "e5" and "-" from from_chars
  }
  std::string normal(text.starts_with('+') ? text.substr(1) : text);
  if (normal.ends_with('.')) {
    normal.pop_back();
  }
  double number = 0;
  const auto [end, error] = std::from_chars(normal.data(), normal.data() + normal.size(), number);
  if (end != normal.data() + normal.size() || error != std::errc()) {
    return std::nullopt;
  }
  return json(number);
}

std::optional<json> core_number(std::string_view text) {
  const std::string_view digits = "0123456789";
  if (text.starts_with("0x") && all_of(text.substr(2), "0123456789abcdefABCDEF")) {
    return whole<std::uint64_t>(text.substr(2), 16);
  }
  if (text.starts_with("0o") && all_of(text.substr(2), "01234567")) {
    return whole<std::uint64_t>(text.substr(2), 8);
  }
  if (all_of(text.starts_with('+') ? text.substr(1) : text, digits)) {
    if (auto number = whole<std::uint64_t>(text.starts_with('+') ? text.substr(1) : text, 10)) {
      return number;
    }
  } else if (text.starts_with('-') && all_of(text.substr(1), digits)) {
    if (auto number = whole<std::int64_t>(text, 10)) {
      return number;
    }
  }
  return core_float(text);
}

// An unquoted scalar by the YAML 1.2 core schema.
json typed(const std::string& text) {
  if (one_of(text, {"", "~", "null", "Null", "NULL"})) {
    return nullptr;
  }
  if (one_of(text, {"true", "True", "TRUE"})) {
    return true;
  }
  if (one_of(text, {"false", "False", "FALSE"})) {
    return false;
  }
  if (const auto number = core_number(text)) {
    return *number;
  }
  return text;
}

// What YAML 1.1, and with it kubectl, takes for a boolean.
bool is_old_boolean(std::string_view text) {
  return one_of(text, {"y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON",
                       "off", "Off", "OFF"});
}

class Handler : public YAML::EventHandler {
 public:
  explicit Handler(std::vector<LineNote>& warnings) : warnings_(warnings) {}

  Document take() { return builder_.take(); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (builder_.wants_key()) {
      give_up(mark, "a key is missing");
    }
    check(builder_.scalar(nullptr, line_of(mark), anchor), mark);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const std::string* text = builder_.wants_key() ? builder_.anchored_text(anchor) : nullptr;
    check(text != nullptr ? builder_.key(*text, line_of(mark))
                          : builder_.alias(anchor, line_of(mark)),
          mark);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (builder_.wants_key()) {
      if (tag == "?" && value == "<<") {
        give_up(mark, "merge keys (<<) are not supported: write the fields out");
      }
      check(builder_.key(value, line_of(mark)), mark);
      return;
    }
    check(builder_.scalar(value_of(mark, tag, value), line_of(mark), anchor), mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check(builder_.begin(json::value_t::array, line_of(mark), anchor), mark);
  }
  void OnSequenceEnd() override { check(builder_.end(), YAML::Mark::null_mark()); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check(builder_.begin(json::value_t::object, line_of(mark), anchor), mark);
  }
  void OnMapEnd() override { check(builder_.end(), YAML::Mark::null_mark()); }

 private:
  static int line_of(const YAML::Mark& mark) { return mark.line + 1; }

  // yaml-cpp's parser can be stopped only by an exception; parse_yaml catches its kind.
  [[noreturn]] static void give_up(const YAML::Mark& mark, const std::string& reason) {
    throw YAML::ParserException(mark, reason);
  }
  static void check(const Result<void>& result, const YAML::Mark& mark) {
    if (!result) {
      give_up(mark, result.error().message);
    }
  }

  json value_of(const YAML::Mark& mark, const std::string& tag, const std::string& value) {
    if (tag == "!" || tag == "tag:yaml.org,2002:str") {
      return value;
    }
    const bool known = one_of(tag, {"?", "", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float",
                                    "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"});
    if (!known) {
      give_up(mark, fmt::format("the tag {} is not supported", cut_shown(tag)));
    }
    if (is_old_boolean(value) && warnings_.size() < kMaxWarnings) {
      warnings_.push_back(
          LineNote{.line = line_of(mark),
                   .text = value,
                   .reason = "read as a string here, but kubectl reads it as a boolean: quote it"});
    }
    return typed(value);
  }

  std::vector<LineNote>& warnings_;
  DocumentBuilder builder_;
};

LineNote note_at(std::string_view text, int line, std::string reason) {
  return LineNote{.line = std::max(line, 1),
                  .text = shown_line(text, std::max(line, 1)),
                  .reason = std::move(reason)};
}

}  // namespace

std::string shown_line(std::string_view text, int number) {
  for (int line = 1; line < number; ++line) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      return {};
    }
    text.remove_prefix(end + 1);
  }
  text = text.substr(0, text.find('\n'));
  constexpr std::string_view kBlanks = " \t\r";
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) {
    return {};
  }
  return cut_shown(text.substr(first, text.find_last_not_of(kBlanks) - first + 1));
}

Parsed parse_yaml(std::string_view text) {
  Parsed parsed;
  if (text.size() > kMaxFileBytes) {
    parsed.error = LineNote{.line = 1, .text = {}, .reason = file_too_large().message};
    return parsed;
  }
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Handler handler(parsed.warnings);
    while (parser.HandleNextDocument(handler)) {
      Document document = handler.take();
      if (!document.value.is_null()) {
        parsed.documents.push_back(std::move(document));
      }
    }
  } catch (const YAML::Exception& error) {
    parsed.error = note_at(text, error.mark.line + 1, error.msg);
  } catch (const std::exception& error) {
    parsed.error = note_at(text, 1, error.what());
  }
  return parsed;
}

}  // namespace sidetrack::kube
