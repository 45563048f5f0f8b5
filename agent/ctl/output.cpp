// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/output.h"

#include <algorithm>
#include <cctype>

#include <nlohmann/json.hpp>
#include <yaml-cpp/yaml.h>

namespace sidetrack::ctl {
namespace {

using nlohmann::json;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// A string that YAML could read as something else (a number, a bool, null) is quoted.
void emit_string(YAML::Emitter& out, const std::string& text) {
  static constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./";
  static const std::string kWords = " true false yes no on off null y n ";
  const bool letters_first =
      !text.empty() && std::isalpha(static_cast<unsigned char>(text.front())) != 0;
  const bool plain = letters_first && text.find_first_not_of(kPlain) == std::string::npos &&
                     kWords.find(" " + lower(text) + " ") == std::string::npos;
  if (!plain) {
    out << YAML::DoubleQuoted;
  }
  out << text;
}

void emit(YAML::Emitter& out, const json& value) {
  if (value.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      out << YAML::Key;
      emit_string(out, key);
      out << YAML::Value;
      emit(out, item);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    out << YAML::BeginSeq;
    for (const auto& item : value) {
      emit(out, item);
    }
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    emit_string(out, value.get_ref<const std::string&>());
  } else if (value.is_boolean()) {
    out << value.get<bool>();
  } else if (value.is_null()) {
    out << YAML::Null;
  } else {
    out << value.dump();  // numbers look the same in both
  }
}

std::string to_yaml(const json& value) {
  YAML::Emitter out;
  emit(out, value);
  return std::string(out.c_str()) + "\n";
}

}  // namespace

std::string serialise(const json& value, Format format) {
  if (format == Format::kYaml) {
    return to_yaml(value);
  }
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string serialise_item(const json& value, Format format) {
  if (format == Format::kYaml) {
    return "---\n" + to_yaml(value);
  }
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace sidetrack::ctl
