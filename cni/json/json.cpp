// SPDX-License-Identifier: Apache-2.0
#include "cni/json/json.h"

#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <algorithm>
#include <cstdint>

namespace sidetrack::cni::json {
namespace {

constexpr std::size_t kMaxDepth = 64;
// Iterative: the depth of a hostile text costs no stack. Numbers stay text.
constexpr unsigned kFlags = rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag |
                            rapidjson::kParseNumbersAsStringsFlag;

enum class Kind : std::uint8_t { kObject, kArray, kOther };

// Notes where the parts of the outermost value are. Between two tokens there is only space and
// punctuation, which the parser has checked by then.
// NOLINTBEGIN(readability-identifier-naming): rapidjson's names.
class Scanner : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, Scanner> {
 public:
  Scanner(std::string_view text, const rapidjson::MemoryStream& stream)
      : text_(text), stream_(stream) {}

  bool Null() { return scalar(4); }
  bool Bool(bool value) { return scalar(value ? 4 : 5); }
  bool RawNumber(const char* /*digits*/, rapidjson::SizeType size, bool /*copy*/) {
    return scalar(size);
  }
  bool String(const char* /*value*/, rapidjson::SizeType /*size*/, bool /*copy*/) {
    const std::size_t begin = next();
    at_ = stream_.Tell();
    return note({begin, at_});
  }
  bool Key(const char* value, rapidjson::SizeType size, bool /*copy*/) {
    at_ = stream_.Tell();
    if (depth_ == 1) {
      members_.push_back({std::string(value, size), {}});
    }
    return true;
  }
  bool StartObject() { return open(Kind::kObject); }
  bool StartArray() { return open(Kind::kArray); }
  bool EndObject(rapidjson::SizeType /*members*/) { return close(); }
  bool EndArray(rapidjson::SizeType /*elements*/) { return close(); }

  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool too_deep() const { return depth_ > kMaxDepth; }
  [[nodiscard]] Span span() const { return outermost_; }
  std::vector<Member>& members() { return members_; }
  std::vector<Span>& elements() { return elements_; }

 private:
  std::size_t next() {
    at_ = text_.find_first_not_of(" \t\r\n,:", at_);
    return at_;
  }
  bool scalar(std::size_t size) {
    const std::size_t begin = next();
    at_ = begin + size;
    return note({begin, at_});
  }
  bool open(Kind kind) {
    const std::size_t begin = next();
    at_ = begin + 1;
    if (depth_ == 0) {
      kind_ = kind;
      outermost_.begin = begin;
    } else if (depth_ == 1) {
      open_ = begin;
    }
    return ++depth_ <= kMaxDepth;
  }
  bool close() {
    at_ = next() + 1;
    --depth_;
    if (depth_ == 0) {
      outermost_.end = at_;
    }
    return depth_ != 1 || note({open_, at_});
  }
  bool note(Span value) {
    if (depth_ == 0) {
      outermost_ = value;
    } else if (depth_ == 1 && kind_ == Kind::kObject) {
      members_.back().value = value;
    } else if (depth_ == 1) {
      elements_.push_back(value);
    }
    return true;
  }

  std::string_view text_;
  const rapidjson::MemoryStream& stream_;
  std::size_t at_ = 0;  // behind the last token
  std::size_t depth_ = 0;
  std::size_t open_ = 0;  // where the open value of depth 1 begins
  Kind kind_ = Kind::kOther;
  Span outermost_;
  std::vector<Member> members_;
  std::vector<Span> elements_;
};
// NOLINTEND(readability-identifier-naming)

// An error: not JSON.
Result<void> scan(Scanner& scanner, rapidjson::MemoryStream& stream, std::string_view text) {
  // The parser takes a NUL for the end of the text.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    return make_error(ErrorCode::kInvalid, "no JSON: byte " + std::to_string(nul) + " is NUL");
  }
  rapidjson::Reader reader;
  const rapidjson::ParseResult parsed = reader.Parse<kFlags>(stream, scanner);
  if (parsed) {
    return {};
  }
  const std::string why = scanner.too_deep() ? "nested deeper than " + std::to_string(kMaxDepth)
                                             : rapidjson::GetParseError_En(parsed.Code());
  return make_error(ErrorCode::kInvalid,
                    "no JSON: at byte " + std::to_string(parsed.Offset()) + ": " + why);
}

// Takes the one string that is parsed.
// NOLINTBEGIN(readability-identifier-naming): rapidjson's names.
struct StringTaker : rapidjson::BaseReaderHandler<rapidjson::UTF8<>, StringTaker> {
  bool Default() { return false; }
  bool String(const char* value, rapidjson::SizeType size, bool /*copy*/) {
    text = std::string(value, size);
    return true;
  }
  std::optional<std::string> text;
};
// NOLINTEND(readability-identifier-naming)

}  // namespace

const Member* Object::find(std::string_view key) const {
  const auto found = std::find_if(members.rbegin(), members.rend(),
                                  [key](const Member& member) { return member.key == key; });
  return found == members.rend() ? nullptr : &*found;
}

Result<Object> read_object(std::string_view text) {
  rapidjson::MemoryStream stream(text.data(), text.size());
  Scanner scanner(text, stream);
  ST_TRY(scan(scanner, stream, text));
  if (scanner.kind() != Kind::kObject) {
    return make_error(ErrorCode::kInvalid, "not a JSON object");
  }
  return Object{.span = scanner.span(), .members = std::move(scanner.members())};
}

Result<Array> read_array(std::string_view text) {
  rapidjson::MemoryStream stream(text.data(), text.size());
  Scanner scanner(text, stream);
  ST_TRY(scan(scanner, stream, text));
  if (scanner.kind() != Kind::kArray) {
    return make_error(ErrorCode::kInvalid, "not a JSON array");
  }
  return Array{.span = scanner.span(), .elements = std::move(scanner.elements())};
}

std::optional<std::string> read_string(std::string_view value) {
  rapidjson::MemoryStream stream(value.data(), value.size());
  StringTaker taker;
  rapidjson::Reader reader;
  if (!reader.Parse<kFlags>(stream, taker)) {
    return std::nullopt;
  }
  return taker.text;
}

std::optional<std::string> string_member(std::string_view text, const Object& object,
                                         std::string_view key) {
  const Member* const member = object.find(key);
  return member == nullptr ? std::nullopt : read_string(member->value.of(text));
}

std::string quoted(std::string_view text) {
  // The writer copies what the encoding allows; anything else would make the text no JSON.
  std::string valid;
  rapidjson::MemoryStream stream(text.data(), text.size());
  rapidjson::StringBuffer one;
  while (stream.Tell() < text.size()) {
    const std::size_t begin = stream.Tell();
    one.Clear();
    if (rapidjson::UTF8<>::Validate(stream, one)) {
      valid.append(text.substr(begin, stream.Tell() - begin));
    }
  }
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  writer.String(valid.data(), static_cast<rapidjson::SizeType>(valid.size()));
  return {buffer.GetString(), buffer.GetSize()};
}

}  // namespace sidetrack::cni::json
