// SPDX-License-Identifier: Apache-2.0

#include <cstddef>
#include <exception>
#include <iterator>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/kube/yaml.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

// Where the parser is in the text: nlohmann's SAX events carry no position.
struct Position {
  const char* next = nullptr;
  int line = 1;
};

// An input iterator that keeps `position` at what the parser has read; all copies share it.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, Position* position) : at_(at), position_(position) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    position_->line += *at_ == '\n' ? 1 : 0;
    position_->next = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  Position* position_;
};

class Handler : public nlohmann::json_sax<json> {
 public:
  Handler(const char* first, const Position& position) : first_(first), position_(position) {}

  [[nodiscard]] const std::string& reason() const { return reason_; }
  [[nodiscard]] int error_line() const { return error_line_; }
  Document take() { return builder_.take(); }

  bool null() override { return check(builder_.scalar(nullptr, position_.line)); }
  bool boolean(bool value) override { return check(builder_.scalar(value, position_.line)); }
  bool number_integer(number_integer_t value) override {
    return check(builder_.scalar(value, number_line()));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return check(builder_.scalar(value, number_line()));
  }
  bool number_float(number_float_t value, const string_t&) override {
    return check(builder_.scalar(value, number_line()));
  }
  bool string(string_t& value) override {
    return check(builder_.scalar(std::move(value), position_.line));
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override {
    return check(builder_.begin(json::value_t::object, position_.line));
  }
  bool key(string_t& value) override {
    return check(builder_.key(std::move(value), position_.line));
  }
  bool end_object() override { return check(builder_.end()); }
  bool start_array(std::size_t) override {
    return check(builder_.begin(json::value_t::array, position_.line));
  }
  bool end_array() override { return check(builder_.end()); }
  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    const std::string what = error.what();
    const std::size_t end_of_id = what.find("] ");
    reason_ = end_of_id == std::string::npos ? what : what.substr(end_of_id + 2);
    error_line_ = number_line();
    return false;
  }

 private:
  // A number ends only at the character after it, which may be the end of its line.
  [[nodiscard]] int number_line() const {
    const bool past_line =
        position_.next != nullptr && position_.next > first_ && position_.next[-1] == '\n';
    return position_.line - (past_line ? 1 : 0);
  }

  bool check(const Result<void>& result) {
    if (!result) {
      reason_ = result.error().message;
      error_line_ = position_.line;
    }
    return result.has_value();
  }

  const char* first_;
  const Position& position_;
  DocumentBuilder builder_;
  std::string reason_;
  int error_line_ = 1;
};

}  // namespace

Parsed parse_json(std::string_view text) {
  Parsed parsed;
  if (text.size() > kMaxFileBytes) {
    parsed.error = LineNote{.line = 1, .text = {}, .reason = file_too_large().message};
    return parsed;
  }
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return parsed;
  }
  Position position;
  Handler handler(text.data(), position);
  try {
    const CountingIterator first(text.data(), &position);
    const CountingIterator last(text.data() + text.size(), &position);
    if (json::sax_parse(first, last, &handler)) {
      parsed.documents.push_back(handler.take());
      return parsed;
    }
  } catch (const std::exception& error) {
    parsed.error = LineNote{
        .line = position.line, .text = shown_line(text, position.line), .reason = error.what()};
    return parsed;
  }
  parsed.error = LineNote{.line = handler.error_line(),
                          .text = shown_line(text, handler.error_line()),
                          .reason = handler.reason()};
  return parsed;
}

}  // namespace sidetrack::kube
