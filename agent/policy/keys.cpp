// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "agent/policy/text.h"

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

// "excludeOutbound_Ports" -> "excludeoutboundports".
std::string plain(std::string_view name) {
  std::string result;
  for (const char character : name) {
    if (character >= 'A' && character <= 'Z') {
      result += static_cast<char>(character - 'A' + 'a');
    } else if (character != '-' && character != '_' && character != '.') {
      result += character;
    }
  }
  return result;
}

// How many letters have to be put in, taken out or changed.
std::size_t distance(std::string_view one, std::string_view other) {
  std::vector<std::size_t> row(other.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < one.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < other.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (one[i] == other[j] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row.back();
}

const Known& nearest(std::string_view key) {
  const std::string name = plain(key.substr(kPrefix.size()));
  const auto far = [&name](const Known& known) {
    return distance(name, plain(known.key.substr(kPrefix.size())));
  };
  return *std::min_element(kKnown.begin(), kKnown.end(),
                           [&far](const Known& a, const Known& b) { return far(a) < far(b); });
}

// A list, or a mode that takes the pod out. Names are judged generously: a pod that is left alone
// by mistake loses nothing that it had before.
bool may_exclude(std::string_view key, const std::string& value, const Known& meant) {
  const std::string name = plain(key.substr(kPrefix.size()));
  constexpr std::array<std::string_view, 5> kOfLists = {"clude", "skip", "port", "cidr", "range"};
  return std::any_of(
             kOfLists.begin(), kOfLists.end(),
             [&name](std::string_view word) { return name.find(word) != std::string::npos; }) ||
         meant.key.find("clude") != std::string_view::npos || value == "disabled" ||
         value == "passthrough" || (meant.key == kModeKey && value != "redirect");
}

void check(Place place, const std::map<std::string, std::string>& entries,
           const std::string& object, std::vector<kube::Problem>& problems,
           std::optional<Origin>& stray) {
  for (auto entry = entries.lower_bound(std::string(kPrefix));
       entry != entries.end() && entry->first.starts_with(kPrefix); ++entry) {
    const auto& [key, value] = *entry;
    const Known& meant = nearest(key);
    if (meant.key == key && meant.place == place) {
      continue;
    }
    const bool excludes = may_exclude(key, value, meant);
    const std::string wrong = meant.key == key
                                  ? fmt::format("is of no effect as {}, it is read as {} only",
                                                name_of(place), name_of(meant.place))
                                  : fmt::format("unknown {}; the nearest known key is the {} {}",
                                                name_of(place), name_of(meant.place), meant.key);
    problems.push_back({.object = object,
                        .key = key,
                        .value = shorten(value),
                        .reason = wrong + (excludes ? "; as it may be meant to exclude something, "
                                                      "nothing is redirected"
                                                    : "; it is not used")});
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
