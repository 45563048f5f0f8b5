// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "agent/policy/text.h"
#include "sidetrack/spelling.h"

namespace sidetrack::policy {
namespace {

constexpr std::string_view kPrefix = "sidetrack.io/";
// Written by the chart on the agent's own pods; nothing reads it.
constexpr const char* kConfigHashKey = "sidetrack.io/config-hash";

enum class Place { kLabel, kAnnotation };
struct Known {
  std::string_view key;
  Place place;
};
constexpr std::array<Known, 10> kKnown = {{{kModeKey, Place::kLabel},
                                           {kFastPathKey, Place::kLabel},
                                           {kOnEngineLossKey, Place::kLabel},
                                           {kExcludePortsKey, Place::kAnnotation},
                                           {kExcludeCidrsKey, Place::kAnnotation},
                                           {kIncludePortsKey, Place::kAnnotation},
                                           {kIncludeCidrsKey, Place::kAnnotation},
                                           {kTcpKey, Place::kAnnotation},
                                           {kNetnsKey, Place::kAnnotation},
                                           {kConfigHashKey, Place::kAnnotation}}};

const char* name_of(Place place) {
  return place == Place::kLabel ? "label" : "annotation";
}

bool is_known(std::string_view key, Place place) {
  return std::any_of(kKnown.begin(), kKnown.end(),
                     [&](const Known& known) { return known.key == key && known.place == place; });
}

// The key that may have been meant: the nearest, if at most a third of its letters differ.
const Known* meant_by(std::string_view key) {
  const std::string name = spelling::plain(key.substr(kPrefix.size()));
  const Known* nearest = nullptr;
  std::size_t least = 0;
  for (const Known& known : kKnown) {
    const std::string other = spelling::plain(known.key.substr(kPrefix.size()));
    const std::size_t far = spelling::distance(name, other);
    if (far <= spelling::most_apart(other) && (nearest == nullptr || far < least)) {
      nearest = &known;
      least = far;
    }
  }
  return nearest;
}

// "skip-outboundPorts": "skip", "outbound", "ports".
std::vector<std::string> words_of(std::string_view name) {
  std::vector<std::string> words(1);
  bool small = false;
  for (const char character : name) {
    const bool capital = character >= 'A' && character <= 'Z';
    const std::string letter = spelling::plain({&character, 1});
    if (letter.empty() || (capital && small)) {
      words.emplace_back();
    }
    words.back() += letter;
    small = character >= 'a' && character <= 'z';
  }
  return words;
}

template <std::size_t N>
bool is_one_of(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// A list, or what takes the pod out of the mesh. A word inside another ("support") is none, and a
// key near `mode` (`node`) counts by its value.
bool may_exclude(std::string_view key, const std::string& value, const Known* meant) {
  constexpr std::array<std::string_view, 12> kOfLists = {
      "exclude", "excluded", "excludes", "include", "included", "includes",
      "skip",    "port",     "ports",    "cidr",    "cidrs",    "range"};
  constexpr std::array<std::string_view, 2> kModes = {"disabled", "passthrough"};
  constexpr std::array<std::string_view, 7> kOff = {"off",    "false",  "no",     "none",
                                                    "bypass", "direct", "disable"};
  const auto words = words_of(key.substr(kPrefix.size()));
  const auto is_near = [&value](std::string_view mode) {
    return spelling::distance(spelling::plain(value), mode) <= mode.size() / 3;
  };
  return std::any_of(words.begin(), words.end(),
                     [&kOfLists](const std::string& word) { return is_one_of(word, kOfLists); }) ||
         (meant != nullptr && meant->key.find("clude") != std::string_view::npos) ||
         is_one_of(value, kModes) ||
         (meant != nullptr && meant->key == kModeKey &&
          (is_one_of(spelling::plain(value), kOff) ||
           std::any_of(kModes.begin(), kModes.end(), is_near)));
}

std::string what_is_wrong(std::string_view key, Place place, const Known* meant) {
  if (meant == nullptr) {
    return fmt::format("unknown {}", name_of(place));
  }
  if (meant->key == key) {
    return fmt::format("is of no effect as {}, it is read as {} only", name_of(place),
                       name_of(meant->place));
  }
  return fmt::format("unknown {}; the nearest known key is the {} {}", name_of(place),
                     name_of(meant->place), meant->key);
}

void check(Place place, const std::map<std::string, std::string>& entries,
           const std::string& object, std::vector<kube::Problem>& problems,
           std::optional<Origin>& stray) {
  for (auto entry = entries.lower_bound(std::string(kPrefix));
       entry != entries.end() && entry->first.starts_with(kPrefix); ++entry) {
    const auto& [key, value] = *entry;
    if (is_known(key, place)) {
      continue;
    }
    const Known* meant = meant_by(key);
    const bool excludes = may_exclude(key, value, meant);
    problems.push_back({.object = object,
                        .key = key,
                        .value = shorten(value),
                        .reason = what_is_wrong(key, place, meant) +
                                  (excludes ? "; as it may be meant to exclude something, "
                                              "nothing is redirected"
                                            : "; it is not used: all is as if it were not there")});
    if (excludes && !stray) {
      stray = Origin{object, key, value};
    }
  }
}

}  // namespace

std::optional<Origin> check_keys(const std::string& object, const kube::Metadata& metadata,
                                 std::vector<kube::Problem>& problems) {
  std::optional<Origin> stray;
  check(Place::kLabel, metadata.labels, object, problems, stray);
  check(Place::kAnnotation, metadata.annotations, object, problems, stray);
  return stray;
}

}  // namespace sidetrack::policy
