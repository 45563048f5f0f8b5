// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/object_policy.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/policy/keys.h"
#include "agent/policy/text.h"
#include "agent/policy/tuning.h"

namespace sidetrack::policy {

struct ObjectReader::ListKey {
  std::string_view key;
  std::optional<Compat> compat;  // whose key it is; none = ours
  ListKind kind;
  bool include;
};

// Ours come first, each followed by the keys it replaces.
const ObjectReader::ListKey ObjectReader::kListKeys[] = {
    {kExcludePortsKey, {}, ListKind::kPorts, false},
    {"traffic.sidecar.istio.io/excludeOutboundPorts", Compat::kIstio, ListKind::kPorts, false},
    {"config.linkerd.io/skip-outbound-ports", Compat::kLinkerd, ListKind::kPorts, false},
    {"traffic.kuma.io/exclude-outbound-ports", Compat::kKuma, ListKind::kPorts, false},
    {kExcludeCidrsKey, {}, ListKind::kCidrs, false},
    {"traffic.sidecar.istio.io/excludeOutboundIPRanges", Compat::kIstio, ListKind::kCidrs, false},
    {"traffic.kuma.io/exclude-outbound-ips", Compat::kKuma, ListKind::kCidrs, false},
    {kIncludePortsKey, {}, ListKind::kPorts, true},
    {"traffic.sidecar.istio.io/includeOutboundPorts", Compat::kIstio, ListKind::kPorts, true},
    {kIncludeCidrsKey, {}, ListKind::kCidrs, true},
    {"traffic.sidecar.istio.io/includeOutboundIPRanges", Compat::kIstio, ListKind::kCidrs, true},
};

namespace {

// No last good value here: a mode always applies, and one that nobody can read redirects nothing.
std::optional<Setting<st_mode>> mode_of(const std::string& object, const kube::Metadata& metadata) {
  const auto label = metadata.labels.find(kModeKey);
  if (label == metadata.labels.end()) {
    return std::nullopt;
  }
  const std::string& text = label->second;
  Setting<st_mode> setting{.value = ST_MODE_PASSTHROUGH, .origin = {object, kModeKey, text}};
  if (text == "redirect") {
    setting.value = ST_MODE_REDIRECT;
  } else if (text == "disabled") {
    setting.value = ST_MODE_DISABLED;
  } else if (text != "passthrough") {
    setting.invalid = true;
  }
  return setting;
}

}  // namespace

bool enrols_pods(const kube::Metadata& of_namespace) {
  const auto mode = mode_of(of_namespace.name, of_namespace);
  return mode && mode->value != ST_MODE_DISABLED;
}

ObjectPolicy ObjectReader::read(const std::string& object, const kube::Metadata& metadata,
                                std::vector<kube::Problem>& problems) {
  ObjectPolicy policy;
  const Context context{
      .object = object, .metadata = metadata, .problems = problems, .policy = policy};
  read_mode(context);
  policy.fast_path = read_toggle<st_fast_path>(
      context, kFastPathKey,
      {{"auto", ST_FAST_PATH_AUTO}, {"node", ST_FAST_PATH_NODE}, {"off", ST_FAST_PATH_OFF}});
  policy.on_engine_loss = read_toggle<st_on_engine_loss>(
      context, kOnEngineLossKey,
      {{"open", ST_ON_ENGINE_LOSS_OPEN}, {"closed", ST_ON_ENGINE_LOSS_CLOSED}});
  read_lists(context);
  read_tcp(context);
  policy.stray = check_keys(object, metadata, problems);
  return policy;
}

void ObjectReader::read_mode(const Context& context) {
  auto setting = mode_of(context.object, context.metadata);
  if (setting && setting->invalid) {
    context.problems.push_back(
        {.object = context.object,
         .key = setting->origin.key,
         .value = shorten(setting->origin.value),
         .reason = "unknown mode, counts as passthrough; use redirect, passthrough or disabled"});
  }
  context.policy.mode = std::move(setting);
}

template <typename T>
std::optional<Setting<T>> ObjectReader::read_toggle(
    const Context& context, std::string_view key,
    const std::vector<std::pair<std::string_view, T>>& values) {
  const auto label = context.metadata.labels.find(std::string(key));
  if (label == context.metadata.labels.end()) {
    return std::nullopt;
  }
  const auto find = [&values](const std::string& text) {
    return std::find_if(values.begin(), values.end(),
                        [&text](const auto& value) { return value.first == text; });
  };
  const std::string name = fmt::format("{}|{}", context.object, key);
  std::optional<std::string> text = label->second;
  if (find(*text) == values.end()) {
    text = last_good(name);
    std::vector<std::string_view> words;
    for (const auto& value : values) {
      words.push_back(value.first);
    }
    context.problems.push_back(
        {.object = context.object,
         .key = std::string(key),
         .value = shorten(label->second),
         .reason =
             fmt::format("unknown value, use one of {}; {}", fmt::join(words, ", "),
                         text ? "in use is the last good value, " + *text : "it is not used")});
  }
  if (!text || find(*text) == values.end()) {
    return std::nullopt;
  }
  next_.values[name] = *text;
  return Setting<T>{.value = find(*text)->second,
                    .origin = {context.object, std::string(key), *text}};
}

void ObjectReader::read_lists(const Context& context) {
  bool ours = false;  // the list of this kind carries our key
  for (const ListKey& list : kListKeys) {
    const auto annotation = context.metadata.annotations.find(std::string(list.key));
    const bool present = annotation != context.metadata.annotations.end();
    if (!list.compat) {
      ours = present;
    }
    if (!present || (list.compat && (ours || !compat_.contains(*list.compat)))) {
      continue;
    }
    // Istio's "*" means all, which is what a missing include list means.
    if (list.compat == Compat::kIstio && list.include && trim(annotation->second) == "*") {
      continue;
    }
    read_list(context, list, annotation->second);
  }
}

void ObjectReader::read_list(const Context& context, const ListKey& list, const std::string& text) {
  const std::string name = fmt::format("{}|{}", context.object, list.key);
  const std::string key(list.key);
  std::string used = text;
  const ParsedList* parsed = &parse(list.kind, text);
  if (!parsed->error.empty()) {
    const std::optional<std::string> good = last_good(name);
    const ParsedList* const good_parsed = good ? &parse(list.kind, *good) : nullptr;
    const bool usable = good_parsed != nullptr && good_parsed->error.empty();
    context.problems.push_back(
        {.object = context.object,
         .key = key,
         .value = shorten(text),
         .reason =
             parsed->error + (usable ? "; in use is the last good value, " + shorten(*good)
                                     : "; there is no last good value, so nothing is redirected")});
    if (!usable) {
      if (!context.policy.broken) {
        context.policy.broken = Origin{context.object, key, text};
      }
      return;
    }
    used = *good;
    parsed = good_parsed;
  }
  next_.values[name] = used;
  for (const std::string& warning : parsed->warnings) {
    context.problems.push_back({.object = context.object,
                                .key = key,
                                .value = shorten(used),
                                .reason = warning,
                                .warning = true});
  }
  const Origin origin{context.object, key, used};
  Rules& rules = context.policy.rules;
  if (list.kind == ListKind::kPorts) {
    const PortList value{parsed->ports, origin};
    list.include ? static_cast<void>(rules.include_ports = value)
                 : rules.exclude_ports.push_back(value);
  } else {
    const CidrList value{parsed->rules, origin};
    list.include ? static_cast<void>(rules.include_cidrs = value)
                 : rules.exclude_cidrs.push_back(value);
  }
}

const ObjectReader::ParsedList& ObjectReader::parse(ListKind kind, const std::string& text) {
  const auto [at, is_new] = parsed_.try_emplace({kind, text});
  if (!is_new) {
    return at->second;
  }
  ParsedList& list = at->second;
  if (kind == ListKind::kPorts) {
    auto ports = parse_ports(text);
    if (ports) {
      list.ports = std::make_shared<const PortSet>(std::move(*ports));
    } else {
      list.error = ports.error().message;
    }
    return list;
  }
  auto cidrs = parse_cidrs(text);
  if (cidrs) {
    list.rules = std::make_shared<const std::vector<CidrRule>>(std::move(cidrs->rules));
    list.warnings = std::move(cidrs->warnings);
  } else {
    list.error = cidrs.error().message;
  }
  return list;
}

std::optional<std::string> ObjectReader::last_good(const std::string& name) const {
  const auto at = last_good_.values.find(name);
  return at == last_good_.values.end() ? std::nullopt : std::optional(at->second);
}

void ObjectReader::read_tcp(const Context& context) {
  const auto annotation = context.metadata.annotations.find(kTcpKey);
  if (annotation == context.metadata.annotations.end()) {
    return;
  }
  const std::string name = fmt::format("{}|{}", context.object, kTcpKey);
  std::string used = annotation->second;
  auto tuning = parse_tuning(used);
  if (!tuning) {
    const std::optional<std::string> good = last_good(name);
    context.problems.push_back(
        {.object = context.object,
         .key = kTcpKey,
         .value = shorten(annotation->second),
         .reason =
             tuning.error().message +
             (good ? "; in use is the last good value, " + shorten(*good) : "; it is not used")});
    if (!good) {
      return;
    }
    used = *good;
    tuning = parse_tuning(used);
  }
  if (!tuning) {
    return;
  }
  next_.values[name] = used;
  context.policy.tuning =
      Setting<st_tuning>{.value = *tuning, .origin = {context.object, kTcpKey, used}};
}

}  // namespace sidetrack::policy
