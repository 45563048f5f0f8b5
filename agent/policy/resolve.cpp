// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "agent/policy/keys.h"
#include "agent/policy/object_policy.h"
#include "agent/policy/other_mesh.h"
#include "agent/policy/policy.h"
#include "agent/policy/text.h"

namespace sidetrack::policy {
namespace {

struct Veto {
  std::string reason;
  std::string detail;
};

bool is_of_node(const kube::Pod& pod, const NodeSettings& node) {
  return pod.node_name.empty() ? node.any_node : pod.node_name == node.node_name;
}

// What keeps a pod out whatever its labels say.
std::optional<Veto> find_veto(const kube::Pod& pod, const kube::Namespace* of_namespace,
                              const NodeSettings& node) {
  if (pod.host_network) {
    return Veto{"host_network", "the pod shares the network namespace of the node"};
  }
  if (!node.own_namespace.empty() && pod.metadata.namespace_name == node.own_namespace) {
    return Veto{"own_namespace", "the agent and the engine run in this namespace"};
  }
  if (std::string sign = find_sidecar(pod); !sign.empty()) {
    return Veto{"has_sidecar", std::move(sign)};
  }
  if (std::string sign = find_ambient(pod, of_namespace); !sign.empty()) {
    return Veto{"other_mesh", std::move(sign)};
  }
  if (pod.phase == "Succeeded" || pod.phase == "Failed") {
    return Veto{"finished", fmt::format("phase {}", pod.phase)};
  }
  return std::nullopt;
}

// The nearest level that sets it, or the default.
template <typename T>
Setting<T> nearest(const std::optional<Setting<T>>& of_pod,
                   const std::optional<Setting<T>>& of_namespace, T fallback, const char* key,
                   const char* fallback_text) {
  if (of_pod) {
    return *of_pod;
  }
  return of_namespace ? *of_namespace
                      : Setting<T>{.value = fallback, .origin = {"default", key, fallback_text}};
}

Rules merge(const Rules& pod, const Rules& of_namespace, const Rules& node) {
  Rules merged = pod;
  for (const Rules* outer : {&of_namespace, &node}) {
    merged.exclude_ports.insert(merged.exclude_ports.end(), outer->exclude_ports.begin(),
                                outer->exclude_ports.end());
    merged.exclude_cidrs.insert(merged.exclude_cidrs.end(), outer->exclude_cidrs.begin(),
                                outer->exclude_cidrs.end());
    if (!merged.include_ports) {
      merged.include_ports = outer->include_ports;
    }
    if (!merged.include_cidrs) {
      merged.include_cidrs = outer->include_cidrs;
    }
  }
  return merged;
}

// "Pod/shop/web sidetrack.io/mode=redirct"
std::string told(const Origin& origin) {
  return fmt::format("{} {}={}", origin.object, origin.key, shorten(origin.value));
}

// The keys of the CIDR lists, to name when they are too long: those of `object` itself without it,
// as it is named beside them.
std::string cidr_keys(const Rules& rules, const std::string& object) {
  std::vector<std::string> keys;
  const auto add = [&](const Origin& origin) {
    keys.push_back(origin.object == object ? origin.key
                                           : fmt::format("{} {}", origin.object, origin.key));
  };
  for (const CidrList& list : rules.exclude_cidrs) {
    add(list.origin);
  }
  if (rules.include_cidrs) {
    add(rules.include_cidrs->origin);
  }
  return fmt::format("{}", fmt::join(keys, "; "));
}

class Resolver {
 public:
  Resolver(const kube::ObjectSet& objects, const NodeSettings& node, const LastGood& last_good)
      : objects_(objects), node_(node), reader_(node.compat, last_good) {}

  Resolution run() {
    std::vector<const kube::Pod*> pods;
    std::set<std::string> used_namespaces;
    for (const auto& [key, pod] : objects_.pods) {
      if (is_of_node(pod, node_)) {
        pods.push_back(&pod);
        used_namespaces.insert(pod.metadata.namespace_name);
      }
    }
    read_namespaces(used_namespaces);
    std::sort(pods.begin(), pods.end(), [](const kube::Pod* a, const kube::Pod* b) {
      return std::tie(a->metadata.namespace_name, a->metadata.name) <
             std::tie(b->metadata.namespace_name, b->metadata.name);
    });
    for (const kube::Pod* pod : pods) {
      result_.pods.push_back(resolve_pod(*pod));
    }
    tell_shared_addresses(pods);
    std::sort(result_.problems.begin(), result_.problems.end());
    result_.problems.erase(std::unique(result_.problems.begin(), result_.problems.end()),
                           result_.problems.end());
    result_.last_good = reader_.take_last_good();
    return std::move(result_);
  }

 private:
  // Each is told with the first pod that has it. What ended keeps its address in its status.
  void tell_shared_addresses(const std::vector<const kube::Pod*>& pods) {
    std::map<std::string, const kube::Pod*> owners;
    for (const kube::Pod* pod : pods) {
      if (pod->host_network || pod->phase == "Succeeded" || pod->phase == "Failed") {
        continue;
      }
      for (const std::string& address : pod->addresses) {
        const auto [owner, is_first] = owners.emplace(address, pod);
        if (!is_first && owner->second != pod) {
          result_.problems.push_back(
              {.object = object_name(*pod),
               .key = "status.podIPs",
               .value = address,
               .reason = object_name(*owner->second) +
                         " has this address, too: one of them is not there any more, or the "
                         "network would not know whom it means",
               .warning = true});
        }
      }
    }
  }

  // All of them, so that every node agrees on the last good values; only problems of those in use
  // here are told.
  void read_namespaces(const std::set<std::string>& used) {
    for (const auto& [key, object] : objects_.namespaces) {
      const std::string& name = object.metadata.name;
      std::vector<kube::Problem> untold;
      namespaces_[name] = reader_.read("Namespace/" + name, object.metadata,
                                       used.contains(name) ? result_.problems : untold);
    }
  }

  const ObjectPolicy& namespace_policy(const std::string& name) {
    const auto [at, is_new] = namespaces_.try_emplace(name);
    if (is_new) {
      result_.problems.push_back(
          {.object = "Namespace/" + name,
           .key = "",
           .value = "",
           .reason = "there are pods of this namespace but no Namespace object: its labels and "
                     "annotations "
                     "are unknown, only pods with a mode label of their own are enrolled"});
    }
    return at->second;
  }

  PodIntent describe(const kube::Pod& pod) {
    PodIntent intent;
    intent.namespace_name = pod.metadata.namespace_name;
    intent.name = pod.metadata.name;
    intent.container_ports = pod.container_ports;
    intent.compiled = nothing_;
    const auto netns = pod.metadata.annotations.find(kNetnsKey);
    // In a cluster, users must not choose which network namespace the agent enters.
    if (node_.any_node && netns != pod.metadata.annotations.end()) {
      intent.netns_path = netns->second;
    }
    for (const std::string& text : pod.addresses) {
      const auto address = parse_address(text);
      if (address) {
        intent.addresses.push_back(*address);
      } else {
        result_.problems.push_back({.object = object_name(pod),
                                    .key = "status.podIPs",
                                    .value = shorten(text),
                                    .reason = address.error().message});
      }
    }
    return intent;
  }

  static std::string object_name(const kube::Pod& pod) {
    return fmt::format("Pod/{}/{}", pod.metadata.namespace_name, pod.metadata.name);
  }

  PodIntent resolve_pod(const kube::Pod& pod) {
    PodIntent intent = describe(pod);
    const auto space = objects_.namespaces.find(pod.metadata.namespace_name);
    const kube::Namespace* of_namespace =
        space == objects_.namespaces.end() ? nullptr : &space->second;
    if (const auto veto = find_veto(pod, of_namespace, node_)) {
      intent.reason = veto->reason;
      intent.reason_detail = veto->detail;
      return intent;
    }
    const ObjectPolicy& outer = namespace_policy(pod.metadata.namespace_name);
    const ObjectPolicy own = reader_.read(object_name(pod), pod.metadata, result_.problems);
    const auto mode = nearest(own.mode, outer.mode, ST_MODE_DISABLED, kModeKey, "disabled");
    const auto fast_path =
        nearest(own.fast_path, outer.fast_path, ST_FAST_PATH_AUTO, kFastPathKey, "auto");
    const auto loss = nearest(own.on_engine_loss, outer.on_engine_loss, ST_ON_ENGINE_LOSS_OPEN,
                              kOnEngineLossKey, "open");
    intent.mode = mode.value;
    intent.mode_origin = mode.origin;
    intent.fast_path = fast_path.value;
    intent.fast_path_origin = fast_path.origin;
    intent.on_engine_loss = loss.value;
    intent.on_engine_loss_origin = loss.origin;
    if (const auto& tuning = own.tuning ? own.tuning : outer.tuning) {
      intent.tuning = tuning->value;
      intent.tuning_origin = tuning->origin;
    }
    intent.rules = merge(own.rules, outer.rules, node_.rules);
    if (mode.value == ST_MODE_DISABLED) {
      intent.reason = "mode_disabled";
      intent.reason_detail = told(mode.origin);
      return intent;
    }
    intent.state = PodState::kEnrol;
    if (mode.invalid) {
      intent.reason = "invalid_mode";
      intent.reason_detail = told(mode.origin);
    }
    if (const auto& stray = own.stray ? own.stray : outer.stray) {
      leave_alone(*stray, "unknown_key", told(*stray), intent);
    }
    enforce(pod, own.broken ? own.broken : outer.broken, intent);
    return intent;
  }

  void enforce(const kube::Pod& pod, const std::optional<Origin>& broken, PodIntent& intent) {
    if (broken) {
      leave_alone(*broken, "invalid_annotation", told(*broken), intent);
    }
    const auto compiled = compile_once(intent.rules);
    if (compiled) {
      intent.compiled = *compiled;
      return;
    }
    const std::string object = object_name(pod);
    const std::string keys = cidr_keys(intent.rules, object);
    result_.problems.push_back({.object = object,
                                .key = keys,
                                .value = "",
                                .reason = compiled.error().message +
                                          "; the pod is passthrough until the lists are shorter"});
    leave_alone({object, keys, ""}, "policy_too_large", compiled.error().message, intent);
  }

  // Part of what the user excluded is not known: nothing of the pod is redirected, nor put on the
  // fast path.
  static void leave_alone(const Origin& cause, const char* reason, std::string detail,
                          PodIntent& intent) {
    intent.mode = ST_MODE_PASSTHROUGH;
    intent.mode_origin = cause;
    intent.fast_path = ST_FAST_PATH_OFF;
    intent.fast_path_origin = cause;
    intent.reason = reason;
    intent.reason_detail = std::move(detail);
  }

  // The same lists, told by what they share, are compiled once.
  Result<std::shared_ptr<const CompiledPolicy>> compile_once(const Rules& rules) {
    std::vector<const void*> identity;
    for (const PortList& list : rules.exclude_ports) {
      identity.push_back(list.ports.get());
    }
    for (const CidrList& list : rules.exclude_cidrs) {
      identity.push_back(list.rules.get());
    }
    identity.push_back(rules.include_ports ? rules.include_ports->ports.get() : nullptr);
    identity.push_back(rules.include_cidrs ? rules.include_cidrs->rules.get() : nullptr);
    const auto known = compiled_.find(identity);
    if (known != compiled_.end()) {
      return known->second;
    }
    auto policy = compile(rules);
    Result<std::shared_ptr<const CompiledPolicy>> shared =
        policy ? Result(std::make_shared<const CompiledPolicy>(std::move(*policy)))
               : Result<std::shared_ptr<const CompiledPolicy>>(policy.error());
    compiled_.emplace(std::move(identity), shared);
    return shared;
  }

  const kube::ObjectSet& objects_;
  const NodeSettings& node_;
  ObjectReader reader_;
  Resolution result_;
  const std::shared_ptr<const CompiledPolicy> nothing_ = std::make_shared<const CompiledPolicy>();
  std::map<std::string, ObjectPolicy> namespaces_;
  std::map<std::vector<const void*>, Result<std::shared_ptr<const CompiledPolicy>>> compiled_;
};

}  // namespace

Resolution resolve(const kube::ObjectSet& objects, const NodeSettings& node,
                   const LastGood& last_good) {
  return Resolver(objects, node, last_good).run();
}

}  // namespace sidetrack::policy
