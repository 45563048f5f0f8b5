// SPDX-License-Identifier: Apache-2.0
#include "cni/install/conflist.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "cni/json/json.h"
#include "cni/versions.h"

namespace sidetrack::cni::install {
namespace {

using json::Span;

struct Plugin {
  Span span;  // in the text of the list
  std::string type;
};
struct List {
  std::string name;
  std::vector<Plugin> plugins;
  std::size_t first_byte = 0;  // behind the [
};

std::optional<std::string> type_of(std::string_view plugin) {
  const auto object = json::read_object(plugin);
  if (!object) {
    return std::nullopt;
  }
  auto type = json::string_member(plugin, *object, "type");
  return type && !type->empty() ? type : std::nullopt;
}

Result<void> check_version(const std::string& version) {
  if (is_supported(version)) {
    return {};
  }
  return make_error(ErrorCode::kUnsupported,
                    "its cniVersion is '" + version + "'; plugins can be chained from 0.3.0, and " +
                        "this build knows the versions to " + std::string(kVersions.back()));
}

// "cniVersions" (1.1.0) lets the runtime choose: whichever it takes has to be one of ours.
Result<void> check_versions(std::string_view text, const json::Object& object) {
  const json::Member* const several = object.find("cniVersions");
  const bool one = object.find("cniVersion") != nullptr || several == nullptr;
  if (one) {
    ST_TRY(check_version(json::string_member(text, object, "cniVersion").value_or("")));
  }
  if (several == nullptr) {
    return {};
  }
  const std::string_view list = several->value.of(text);
  const auto array = json::read_array(list);
  if (!array) {
    return make_error(ErrorCode::kInvalid, "cniVersions is no array");
  }
  for (const Span& element : array->elements) {
    ST_TRY(check_version(json::read_string(element.of(list)).value_or("")));
  }
  return {};
}

// What a list needs to have whatever its version.
Result<List> parse_list(std::string_view text, const json::Object& object) {
  List list;
  list.name = json::string_member(text, object, "name").value_or("");
  if (list.name.empty()) {
    return make_error(ErrorCode::kInvalid, "it has no name");
  }
  const json::Member* const plugins = object.find("plugins");
  if (plugins == nullptr) {
    return make_error(ErrorCode::kInvalid, "it has no plugins");
  }
  const std::string_view inner = plugins->value.of(text);
  const auto array = json::read_array(inner);
  if (!array || array->elements.empty()) {
    return make_error(ErrorCode::kInvalid, "its plugins are no array, or an empty one");
  }
  const std::size_t offset = plugins->value.begin;
  list.first_byte = offset + array->span.begin + 1;
  for (const Span& element : array->elements) {
    auto type = type_of(element.of(inner));
    if (!type) {
      return make_error(ErrorCode::kInvalid, "plugin " + std::to_string(list.plugins.size()) +
                                                 " of its list has no type");
    }
    list.plugins.push_back({{element.begin + offset, element.end + offset}, std::move(*type)});
  }
  return list;
}

Result<List> parse_list(std::string_view text) {
  const auto object = json::read_object(text);
  if (!object) {
    return object.error();
  }
  return parse_list(text, *object);
}

Result<List> parse_checked_list(std::string_view text) {
  const auto object = json::read_object(text);
  if (!object) {
    return object.error();
  }
  auto list = parse_list(text, *object);
  if (list) {
    ST_TRY(check_versions(text, *object));
  }
  return list;
}

// The members of a flat object, so that two ways to write it compare equal.
std::map<std::string, std::string> flat(std::string_view text) {
  std::map<std::string, std::string> out;
  const auto object = json::read_object(text);
  if (object) {
    for (const json::Member& member : object->members) {
      const std::string_view value = member.value.of(text);
      const auto string = json::read_string(value);
      out[member.key] = string ? "\"" + *string : std::string(value);
    }
  }
  return out;
}

std::string keep_only(std::string_view text, const List& list,
                      const std::vector<std::size_t>& kept) {
  const auto& plugins = list.plugins;
  std::string out(text.substr(0, plugins.front().span.begin));
  for (const std::size_t i : kept) {
    if (i != kept.front()) {
      out += text.substr(plugins[i - 1].span.end, plugins[i].span.begin - plugins[i - 1].span.end);
    }
    out += plugins[i].span.of(text);
  }
  out += text.substr(plugins.back().span.end);
  return out;
}

Result<std::string> without(std::string_view text, const List& list, std::string_view type) {
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < list.plugins.size(); ++i) {
    if (list.plugins[i].type != type) {
      kept.push_back(i);
    }
  }
  if (kept.size() == list.plugins.size()) {
    return std::string(text);
  }
  if (kept.empty()) {
    return make_error(ErrorCode::kInvalid, "its only plugin is " + std::string(type));
  }
  return keep_only(text, list, kept);
}

// Puts `entry` last, with the space that the last one has before it.
std::string append(std::string_view text, const List& list, const std::string& entry) {
  const auto& plugins = list.plugins;
  const Span last = plugins.back().span;
  const bool alone = plugins.size() == 1;
  const std::size_t gap = alone ? list.first_byte : plugins[plugins.size() - 2].span.end;
  std::string separator(text.substr(gap, last.begin - gap));
  if (alone) {
    separator.insert(0, ",");
  }
  std::string out(text.substr(0, last.end));
  out += separator + entry;
  out += text.substr(last.end);
  return out;
}

}  // namespace

std::string entry_text(const Entry& entry) {
  std::string out = "{";
  const auto add = [&out](std::string_view key, const std::string& value) {
    out += (out.size() > 1 ? ", " : "") + json::quoted(key) + ": " + value;
  };
  const auto add_text = [&add](std::string_view key, const std::string& value) {
    if (!value.empty()) {
      add(key, json::quoted(value));
    }
  };
  if (entry.deny_for_seconds != wire::cni::kDefaultDenyForSeconds) {
    add("denyForSeconds", std::to_string(entry.deny_for_seconds));
  }
  add_text("enrolledNamespaces", entry.enrolled_namespaces);
  add_text("logFile", entry.log_file);
  add_text("onAgentDown", entry.on_agent_down);
  add_text("ownNamespace", entry.own_namespace);
  add_text("socket", entry.socket);
  if (entry.status_checks_agent) {
    add("statusChecksAgent", "true");
  }
  add("timeoutMs", std::to_string(entry.timeout_ms));
  add_text("type", entry.type);
  return out + "}";
}

Result<Facts> read_list(std::string_view text) {
  auto list = parse_checked_list(text);
  if (!list) {
    return list.error();
  }
  Facts facts{.name = std::move(list->name)};
  for (Plugin& plugin : list->plugins) {
    facts.types.push_back(std::move(plugin.type));
  }
  return facts;
}

Result<Facts> read_single(std::string_view conf) {
  const auto object = json::read_object(conf);
  if (!object) {
    return object.error();
  }
  auto type = type_of(conf);
  if (!type) {
    return make_error(ErrorCode::kInvalid, "it has no type");
  }
  auto name = json::string_member(conf, *object, "name").value_or("");
  if (name.empty()) {
    return make_error(ErrorCode::kInvalid, "it has no name");
  }
  ST_TRY(check_versions(conf, *object));
  return Facts{.name = std::move(name), .types = {std::move(*type)}};
}

Result<std::string> with_entry(std::string_view text, const Entry& entry) {
  const auto list = parse_checked_list(text);
  if (!list) {
    return list.error();
  }
  const std::string wanted = entry_text(entry);
  const auto ours =
      std::count_if(list->plugins.begin(), list->plugins.end(),
                    [&entry](const Plugin& plugin) { return plugin.type == entry.type; });
  const Plugin& last = list->plugins.back();
  if (ours == 1 && list->plugins.size() > 1 && last.type == entry.type &&
      flat(last.span.of(text)) == flat(wanted)) {
    return std::string(text);
  }
  auto rest = without(text, *list, entry.type);
  if (!rest) {
    return rest.error();
  }
  const auto theirs = parse_list(*rest);
  if (!theirs) {
    return theirs.error();
  }
  return append(*rest, *theirs, wanted);
}

Result<std::string> without_entry(std::string_view text, std::string_view type) {
  const auto list = parse_list(text);
  if (!list) {
    return list.error();
  }
  return without(text, *list, type);
}

bool mentions(std::string_view text, std::string_view type) {
  if (type_of(text) == type) {
    return true;
  }
  const auto list = parse_list(text);
  return list && std::any_of(list->plugins.begin(), list->plugins.end(),
                             [type](const Plugin& plugin) { return plugin.type == type; });
}

bool may_mention(std::string_view text, std::string_view type) {
  const bool is_readable = type_of(text).has_value() || parse_list(text).has_value();
  return is_readable ? mentions(text, type) : text.find(type) != std::string_view::npos;
}

Result<std::string> list_around(std::string_view conf, const Entry& entry) {
  if (const auto facts = read_single(conf); !facts) {
    return facts.error();
  }
  const auto object = json::read_object(conf);
  std::string head;
  for (const char* key : {"cniVersion", "cniVersions", "name"}) {
    if (const json::Member* const member = object->find(key); member != nullptr) {
      head += "  " + json::quoted(key) + ": " + std::string(member->value.of(conf)) + ",\n";
    }
  }
  return "{\n" + head + "  \"plugins\": [\n    " + std::string(object->span.of(conf)) + ",\n    " +
         entry_text(entry) + "\n  ]\n}\n";
}

}  // namespace sidetrack::cni::install
