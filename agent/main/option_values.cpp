// SPDX-License-Identifier: Apache-2.0
#include "agent/main/option_values.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>

#include "agent/kube/decode.h"
#include "sidetrack/wire/cni.h"

namespace sidetrack::agent {

namespace po = boost::program_options;

namespace {

using Units = std::map<std::string_view, std::uint64_t>;  // what each is worth

const Units kMilliseconds{{"ms", 1}, {"s", 1000}, {"m", 60'000}};

// An agent says so every 30 s: one that is just restarted is not one that is gone.
constexpr std::uint64_t kLeastDenyFor = 60;

// A number and its unit.
std::optional<std::uint64_t> parse_quantity(const std::string& value, const Units& units) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  const auto unit = units.find(
      std::string_view(end, static_cast<std::size_t>(value.data() + value.size() - end)));
  constexpr std::uint64_t kMost = 1'000'000;
  if (error != std::errc() || unit == units.end() || number > kMost) {
    return std::nullopt;
  }
  return number * unit->second;
}

Result<bool> parse_switch(const std::string& option, const std::string& value,
                          const std::string& on) {
  if (value != on && value != "off") {
    return invalid(option, value, on + " or off is meant");
  }
  return value == on;
}

bool is_absolute(const std::string& path) {
  return !path.empty() && path.front() == '/';
}

}  // namespace

Error invalid(const std::string& option, const std::string& value, const std::string& allowed) {
  return make_error(ErrorCode::kInvalid, fmt::format("--{} '{}': {}", option, value, allowed));
}

Result<void> parse_engine(const std::string& value, Options& options) {
  constexpr std::string_view kExternal = "external=";
  if (value == "embedded" || value == "none") {
    options.engine =
        value == "none" ? reconcile::EngineKind::kNone : reconcile::EngineKind::kEmbedded;
    return {};
  }
  if (value.rfind(kExternal, 0) != 0) {
    return invalid("engine", value, "embedded, external=ADDR:PORT[,ADDR:PORT] or none is meant");
  }
  options.engine = reconcile::EngineKind::kExternal;
  std::istringstream items(value.substr(kExternal.size()));
  for (std::string item; std::getline(items, item, ',');) {
    auto address = policy::parse_endpoint(item);
    if (!address) {
      return invalid("engine", value, address.error().message);
    }
    policy::SocketAddress& place =
        st_addr_is_v4(&address->address) != 0 ? options.external.v4 : options.external.v6;
    if (place.port != 0) {
      return invalid("engine", value, "one address per family at most");
    }
    if (st_addr_is_local(&address->address) != 0) {
      return invalid("engine", value,
                     "pods cannot reach this address: use one of the node's own, also if the proxy "
                     "listens on all of them");
    }
    place = *address;
  }
  if (options.external.v4.port == 0 && options.external.v6.port == 0) {
    return invalid("engine", value, "external=ADDR:PORT[,ADDR:PORT] is meant");
  }
  return {};
}

Result<void> parse_listener_ports(const std::string& value, Options& options) {
  auto ports = policy::parse_ports(value);
  if (!ports || ports->ranges().size() != 1) {
    return invalid("listener-ports", value, "one range LOW-HIGH of ports is meant");
  }
  options.listener_port_low = ports->ranges().front().first;
  options.listener_port_high = ports->ranges().front().last;
  if (options.listener_port_high - options.listener_port_low + 1 < options.listeners_per_pod) {
    return invalid(
        "listener-ports", value,
        fmt::format("fewer ports than --listeners-per-pod {}", options.listeners_per_pod));
  }
  return {};
}

Result<void> parse_compat(const std::string& value, Options& options) {
  std::istringstream items(value);
  for (std::string item; std::getline(items, item, ',');) {
    if (item == "istio") {
      options.compat.push_back(policy::Compat::kIstio);
    } else if (item == "linkerd") {
      options.compat.push_back(policy::Compat::kLinkerd);
    } else if (item == "kuma") {
      options.compat.push_back(policy::Compat::kKuma);
    } else if (item != "none") {
      return invalid("compat", value, "a list of istio, linkerd, kuma is meant");
    }
  }
  return {};
}

Result<void> parse_drain(const std::string& value, Options& options) {
  const auto seconds = parse_quantity(value, {{"s", 1}, {"m", 60}});
  if (!seconds) {
    return invalid("drain", value, "a time such as 30s or 2m is meant");
  }
  options.drain = std::chrono::seconds(*seconds);
  return {};
}

Result<void> parse_fast_path(const po::variables_map& values, FastPathOptions& fast_path) {
  const auto text = [&values](const char* name) { return values[name].as<std::string>(); };
  const std::string value = text("fast-path");
  if (value != "auto" && value != "uncharged" && value != "off") {
    return invalid("fast-path", value, "auto, uncharged or off is meant");
  }
  fast_path.on = value != "off";
  fast_path.uncharged = value == "uncharged";
  auto loopback = parse_switch("fast-path-loopback", text("fast-path-loopback"), "on");
  ST_TRY(loopback);
  fast_path.loopback = *loopback;
  constexpr std::uint64_t kSmallest = 16 << 10;
  constexpr std::uint64_t kLargest = 64 << 20;
  const auto window =
      parse_quantity(text("fast-path-window"), {{"KiB", 1U << 10}, {"MiB", 1U << 20}});
  if (!window || *window < kSmallest || *window > kLargest) {
    return invalid("fast-path-window", text("fast-path-window"),
                   "a size such as 512KiB or 1MiB is meant, 16KiB to 64MiB");
  }
  fast_path.window = static_cast<std::uint32_t>(*window);
  const auto probation = parse_quantity(text("fast-path-probation"), kMilliseconds);
  if (!probation) {
    return invalid("fast-path-probation", text("fast-path-probation"),
                   "a time such as 30s or 2m is meant");
  }
  fast_path.probation = std::chrono::milliseconds(*probation);
  const int round_trips = values["fast-path-round-trips"].as<int>();
  if (round_trips < 1 || round_trips > 1000) {
    return invalid("fast-path-round-trips", std::to_string(round_trips), "1 to 1000 is meant");
  }
  fast_path.round_trips = static_cast<std::uint32_t>(round_trips);
  const std::string sentinel = text("fast-path-sentinel");
  using dataplane::Sentinel;
  static const std::map<std::string, Sentinel> kSentinels = {{"auto", Sentinel::kAuto},
                                                             {"fentry", Sentinel::kFentry},
                                                             {"tracepoint", Sentinel::kTracepoint},
                                                             {"off", Sentinel::kOff}};
  const auto found = kSentinels.find(sentinel);
  if (found == kSentinels.end()) {
    return invalid("fast-path-sentinel", sentinel, "auto, fentry, tracepoint or off is meant");
  }
  fast_path.sentinel = found->second;
  return {};
}

Result<void> parse_cni(const po::variables_map& values, const std::string& cache_dir,
                       CniOptions& cni) {
  const auto text = [&values](const char* name) { return values[name].as<std::string>(); };
  const std::string down = text("cni-on-agent-down");
  if (down != "allow" && down != "deny") {
    return invalid("cni-on-agent-down", down, "allow or deny is meant");
  }
  cni.deny_when_down = down == "deny";
  const auto deny_for = parse_quantity(text("cni-deny-for"), {{"s", 1}, {"m", 60}, {"h", 3600}});
  if (!deny_for || (*deny_for != 0 && *deny_for < kLeastDenyFor) ||
      *deny_for > wire::cni::kMaxDenyForSeconds) {
    return invalid("cni-deny-for", text("cni-deny-for"),
                   "a time such as 10m or 1h is meant, 1m to 8760h, or 0s: for ever");
  }
  cni.deny_for = std::chrono::seconds(*deny_for);
  const auto timeout = parse_quantity(text("cni-timeout"), kMilliseconds);
  if (!timeout || *timeout < wire::cni::kMinTimeoutMs || *timeout > wire::cni::kMaxTimeoutMs) {
    return invalid("cni-timeout", text("cni-timeout"),
                   "a time such as 500ms or 5s is meant, 50ms to 1m");
  }
  cni.timeout = std::chrono::milliseconds(*timeout);
  cni.log_file = cache_dir + "/cni.log";
  if (values.contains("cni-log-file")) {
    cni.log_file = text("cni-log-file");
    if (cni.log_file == "off") {
      cni.log_file.clear();
    } else if (!is_absolute(cni.log_file)) {
      return invalid("cni-log-file", cni.log_file, "an absolute path or off is meant");
    }
  }
  auto status = parse_switch("cni-status-checks-agent", text("cni-status-checks-agent"), "on");
  ST_TRY(status);
  cni.status_checks_agent = *status;
  return {};
}

Result<void> check_node_name(const std::string& value) {
  if (!kube::is_kubernetes_name(value)) {
    return invalid("node", value,
                   "the name of this node is meant, as spec.nodeName has it: lower case letters, "
                   "digits, - and ., at most 253 (kubectl get nodes lists them)");
  }
  return {};
}

Result<void> check_plugins_folder(const std::string& option, const std::string& value) {
  if (!is_absolute(value)) {
    return invalid(option, value, "an absolute path is meant: the CNI plugin runs elsewhere");
  }
  return {};
}

// Whether it is on a bpf file system is seen when the folder is made.
Result<void> check_pin_dir(const std::string& value) {
  if (!is_absolute(value)) {
    return invalid("pin-dir", value, "an absolute path is meant, such as /sys/fs/bpf/sidetrack");
  }
  const auto path = std::filesystem::path(value + "/").lexically_normal().parent_path();
  if (path == "/sys/fs/bpf" || path.parent_path() == "/") {
    return invalid("pin-dir", value,
                   "a folder of Sidetrack's own is meant, below a bpf file system: "
                   "/sys/fs/bpf/sidetrack");
  }
  return {};
}

}  // namespace sidetrack::agent
