// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/text.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "agent/kube/fields.h"
#include "agent/kube/yaml.h"

namespace sidetrack::kube {
namespace {

// A file with thousands of bad objects is one mistake made thousands of times.
constexpr std::size_t kMaxProblems = 50;

class Collector {
 public:
  explicit Collector(const std::string& source) : source_(source) {}

  void add(int line, std::string value, std::string reason, bool warning) {
    result_.complete = result_.complete && warning;
    if (result_.problems.size() < kMaxProblems) {
      result_.problems.push_back(Problem{.object = source_,
                                         .key = fmt::format("line {}", line),
                                         .value = std::move(value),
                                         .reason = std::move(reason),
                                         .warning = warning});
    } else {
      ++left_off_;
    }
  }

  void add_document(const Document& document) {
    Decoded decoded = decode(document.value);
    for (const Issue& issue : decoded.issues) {
      const bool full = result_.problems.size() >= kMaxProblems;
      const int line = full ? 0 : document.lines.find(issue.pointer);
      const std::string where =
          issue.object + (issue.object.empty() || issue.pointer.empty() ? "" : " ") + issue.pointer;
      add(line, issue.value, where.empty() ? issue.reason : where + ": " + issue.reason,
          issue.warning);
    }
    for (DecodedObject& object : decoded.objects) {
      put(std::move(object), document);
    }
  }

  TextObjects finish() {
    if (left_off_ > 0) {
      result_.problems.push_back(Problem{.object = source_,
                                         .key = "more",
                                         .value = fmt::format("{}", left_off_),
                                         .reason = "more problems in this file are not shown",
                                         .warning = result_.complete});
    }
    return std::move(result_);
  }

  TextObjects& result() { return result_; }

 private:
  void put(DecodedObject object, const Document& document) {
    std::string name = object_name(object.object);
    const auto [place, is_new] = places_.emplace(name, result_.objects.size());
    if (is_new) {
      result_.objects.push_back(std::move(object.object));
      return;
    }
    result_.objects[place->second] = std::move(object.object);
    add(document.lines.find(object.pointer), name, "is in this file twice; the later one is used",
        true);
  }

  std::string source_;
  TextObjects result_{.objects = {}, .problems = {}, .parsed = true, .complete = true};
  std::map<std::string, std::size_t> places_;
  std::size_t left_off_ = 0;
};

}  // namespace

TextObjects decode_text(std::string_view text, TextFormat format, const std::string& source) {
  Collector collector(source);
  Parsed parsed = format == TextFormat::kJson ? parse_json(text) : parse_yaml(text);
  if (parsed.error) {
    collector.add(parsed.error->line, parsed.error->text, parsed.error->reason, false);
    collector.result().parsed = false;
    return collector.finish();
  }
  for (LineNote& warning : parsed.warnings) {
    collector.add(warning.line, std::move(warning.text), std::move(warning.reason), true);
  }
  for (const Document& document : parsed.documents) {
    collector.add_document(document);
  }
  return collector.finish();
}

TextObjects decode_yaml_text(std::string_view text) {
  return decode_text(text, TextFormat::kYaml, "text");
}

}  // namespace sidetrack::kube
