// SPDX-License-Identifier: Apache-2.0
// decide() and choose() on rows read back from the kernel. What connect() sees and this does not:
// the socket itself, and whether the accept queue of a listener in the pod is full at that moment.
#include <arpa/inet.h>

#include <ctime>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"
#include "sidetrack/choose.h"

namespace sidetrack::dataplane {

namespace {

struct Reader {
  const st_pod* pod = nullptr;
  const st_connect* connect = nullptr;
  st_config config{};
  std::uint16_t port = 0;
  int policies = -1;
  int cidrs = -1;
  int port_pages = -1;
  int engines = -1;
  int pod_states = -1;
  int record_count = -1;
  std::uint64_t netns_cookie = 0;

  [[nodiscard]] bool port_in_set(std::uint32_t set_id) const {
    if (set_id == ST_PORT_SET_NONE || set_id == ST_PORT_SET_ALL) {
      return set_id == ST_PORT_SET_ALL;
    }
    const st_port_page_key key{.set_id = set_id,
                               .page = static_cast<std::uint32_t>(port / ST_PORTS_PER_PAGE)};
    const auto page = map_lookup<st_port_page>(port_pages, "st_port_pages", key);
    const std::uint32_t bit = port % ST_PORTS_PER_PAGE;
    return page && *page && (((*page)->bits[bit / 64] >> (bit % 64)) & 1) != 0;
  }
};

void read_rules(void* context, st_rules* rules) {
  const auto& reader = *static_cast<Reader*>(context);
  if (reader.pod->policy_id == 0) {
    return;
  }
  const auto policy = map_lookup<st_policy>(reader.policies, "st_policies", reader.pod->policy_id);
  if (!policy || !*policy) {
    rules->excluded_cidr = 1;
    return;
  }
  const st_policy& row = **policy;
  rules->has_include = row.has_include;
  rules->excluded_port = reader.port_in_set(row.exclude_ports) ? 1 : 0;
  const st_cidr_key key{.prefix_bits = 32 + 128,
                        .policy_id = reader.pod->policy_id,
                        .addr = reader.connect->destination};
  const auto cidr = map_lookup<st_cidr>(reader.cidrs, "st_cidrs", key);
  if (cidr && *cidr) {
    rules->excluded_cidr = reader.port_in_set((*cidr)->exclude_ports) ? 1 : 0;
    rules->included = reader.port_in_set((*cidr)->include_ports) ? 1 : 0;
  }
  if (rules->included == 0) {
    rules->included = reader.port_in_set(row.include_ports) ? 1 : 0;
  }
}

// The listener's own state is in no map: that it is there is what the row says.
st_engine_state look(void* context, int v4, std::uint32_t index) {
  const auto& reader = *static_cast<Reader*>(context);
  const st_pod& pod = *reader.pod;
  const std::uint16_t external =
      v4 != 0 ? reader.config.external_v4_port_be : reader.config.external_v6_port_be;
  const std::uint16_t own = v4 != 0 ? pod.port_v4_be[index] : pod.port_v6_be[index];
  return (pod.external != 0 ? external : own) != 0 ? ST_ENGINE_READY : ST_ENGINE_DOWN;
}

template <typename Value>
const Value* pointer_to(const Result<std::optional<Value>>& found) {
  return found && *found ? &**found : nullptr;
}

st_engine_state read_engine(void* context) {
  auto& reader = *static_cast<Reader*>(context);
  const auto cell =
      map_lookup<st_engine>(reader.engines, "st_engines", std::uint32_t{reader.pod->engine_slot});
  const auto state =
      map_lookup<st_pod_state>(reader.pod_states, "st_pod_state", reader.netns_cookie);
  const auto records = map_lookup<__s64>(reader.record_count, "st_record_count", std::uint32_t{0});
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const st_engine_facts facts{.pod = reader.pod,
                              .engine = pointer_to(cell),
                              .pod_state = pointer_to(state),
                              .records = pointer_to(records),
                              .destination = &reader.connect->destination,
                              .now_ns = static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
                                        static_cast<std::uint64_t>(now.tv_nsec),
                              .port = reader.port};
  st_choice choice{};
  return st_choose(&facts, &choice, look, &reader);
}

}  // namespace

Result<Explained> Dataplane::explain(std::uint64_t netns_cookie, const st_connect& connect,
                                     std::uint16_t port) const {
  auto row = pod(netns_cookie);
  ST_TRY(row);
  auto switched =
      map_lookup<std::uint32_t>(impl_->map_fd("st_bypass"), "st_bypass", std::uint32_t{0});
  ST_TRY(switched);
  const auto engine = config();
  ST_TRY(engine);
  st_connect asked = connect;
  asked.engine_address = st_is_engine_at(&*engine, &asked.destination, htons(port)) != 0 ? 1 : 0;
  asked.bypass = switched->value_or(0) != 0 ? 1 : 0;
  Reader reader;
  reader.pod = *row ? &**row : nullptr;
  reader.connect = &asked;
  reader.config = *engine;
  reader.port = port;
  reader.policies = impl_->map_fd("st_policies");
  reader.cidrs = impl_->map_fd("st_cidrs");
  reader.port_pages = impl_->map_fd("st_port_pages");
  reader.engines = engines_fd();
  reader.pod_states = impl_->map_fd("st_pod_state");
  reader.record_count = impl_->map_fd("st_record_count");
  reader.netns_cookie = netns_cookie;
  const st_reason reason = st_decide(&asked, reader.pod, read_rules, read_engine, &reader);
  return Explained{.reason = reason,
                   .observed = reader.pod != nullptr && st_is_observed(reason, &asked, reader.pod,
                                                                       read_rules, &reader) != 0};
}

}  // namespace sidetrack::dataplane
