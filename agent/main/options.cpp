// SPDX-License-Identifier: Apache-2.0
#include "agent/main/options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <boost/program_options.hpp>

namespace sidetrack::agent {

namespace {

namespace po = boost::program_options;

std::string default_node() {
  if (const char* name = std::getenv("NODE_NAME"); name != nullptr && *name != '\0') {
    return name;
  }
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

std::string default_namespace() {
  const char* name = std::getenv("POD_NAMESPACE");
  return name == nullptr ? "" : name;
}

po::options_description described() {
  po::options_description options(
      "Options (each also as SIDETRACK_OPTION_NAME in the environment, and in --config FILE)", 118,
      60);
  const auto text = [](const char* value) {
    return po::value<std::string>()->default_value(value);
  };
  options.add_options()("config", po::value<std::string>(), "file of `option = value` lines")(
      "source", po::value<std::string>(),
      "where desired state comes from; default files when --objects is given")(
      "objects", po::value<std::string>(),
      "folder of Kubernetes objects as *.yaml, *.yml, *.json (source files)")(
      "node",
      po::value<std::string>()->default_value(default_node(), "$NODE_NAME, else the host name"),
      "pods of this node are enrolled")(
      "namespace", po::value<std::string>()->default_value(default_namespace(), "$POD_NAMESPACE"),
      "our own namespace: never enrolled")("state-dir", text("/run/sidetrack"), "sockets and lock")(
      "cache-dir", text("/var/lib/sidetrack"), "what must survive a reboot")(
      "standby", po::bool_switch(), "another agent runs: wait for it to end, then take over")(
      "pin-dir", text("/sys/fs/bpf/sidetrack"), "pinned programs, maps and links")(
      "cgroup", po::value<std::string>(), "where the programs attach; default the cgroup2 root")(
      "engine", text("embedded"), "embedded, external=ADDR:PORT[,ADDR:PORT], none")(
      "engine-cgroup", po::value<std::string>(),
      "cgroup of the engine alone; default made by the agent for embedded")(
      "listener-ports", text("15900-15999"), "where in-pod listeners may be")(
      "listeners-per-pod", po::value<int>()->default_value(4),
      "1 to 8, each with its own space of local ports")(
      "exclude-outbound-ports", po::value<std::string>(),
      "never redirected, in any namespace: 8500,8600-8700")(
      "exclude-outbound-cidrs", po::value<std::string>(),
      "never redirected: 10.9.0.0/16,fd00::/8,10.0.0.0/8:443")(
      "include-outbound-ports", po::value<std::string>(), "if present, only these are redirected")(
      "include-outbound-cidrs", po::value<std::string>(), "if present, only these are redirected")(
      "compat", po::value<std::string>(), "honour annotations of istio,linkerd,kuma")(
      "http", text("127.0.0.1:15880"), "ADDR:PORT of /metrics, /healthz and /readyz, or off")(
      "log-level", text("info"), "error, warn, info, debug")("log-format", text("text"),
                                                             "text (key=value) or json")(
      "drain", text("30s"), "uninstall: how long redirected connections may still run");
  return options;
}

Error invalid(const std::string& option, const std::string& value, const std::string& allowed) {
  return make_error(ErrorCode::kInvalid, fmt::format("--{} '{}': {}", option, value, allowed));
}

// SIDETRACK_STATE_DIR -> state-dir, if there is such an option; others are not ours to judge.
std::string option_of_environment(const po::options_description& options,
                                  const std::string& variable) {
  constexpr std::string_view kPrefix = "SIDETRACK_";
  if (variable.rfind(kPrefix, 0) != 0) {
    return "";
  }
  std::string name = variable.substr(kPrefix.size());
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(c == '_' ? '-' : std::tolower(c));
  });
  return options.find_nothrow(name, false) != nullptr ? name : "";
}

Result<policy::SocketAddress> parse_socket_address(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    return make_error(ErrorCode::kInvalid, "ADDR:PORT is meant, [v6]:PORT for IPv6");
  }
  std::string host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  auto address = policy::parse_address(host);
  ST_TRY(address);
  const std::string digits = text.substr(colon + 1);
  policy::SocketAddress result{.address = *address};
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), result.port);
  if (error != std::errc() || end != digits.data() + digits.size() || result.port == 0) {
    return make_error(ErrorCode::kInvalid, "the port must be 1 to 65535");
  }
  return result;
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
    auto address = parse_socket_address(item);
    if (!address) {
      return invalid("engine", value, address.error().message);
    }
    policy::SocketAddress& place =
        st_addr_is_v4(&address->address) != 0 ? options.external.v4 : options.external.v6;
    if (place.port != 0) {
      return invalid("engine", value, "one address per family at most");
    }
    if (st_addr_is_local(&address->address) != 0) {
      return invalid("engine", value, "pods cannot reach this address: use one of the node's own");
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
  unsigned seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  const std::string_view unit(end, static_cast<std::size_t>(value.data() + value.size() - end));
  constexpr unsigned kMost = 1'000'000;
  if (error != std::errc() || (unit != "s" && !unit.empty() && unit != "m") || seconds > kMost) {
    return invalid("drain", value, "a time such as 30s or 2m is meant");
  }
  options.drain = std::chrono::seconds(unit == "m" ? seconds * 60 : seconds);
  return {};
}

std::optional<std::string> optional_text(const po::variables_map& values, const char* name) {
  return values.contains(name) ? std::optional(values[name].as<std::string>()) : std::nullopt;
}

Result<Options> interpret(const po::variables_map& values, Command command) {
  Options options;
  options.command = command;
  const auto text = [&values](const char* name) {
    return optional_text(values, name).value_or("");
  };
  options.objects_dir = text("objects");
  options.source = values.contains("source") ? text("source") : "files";
  if (command == Command::kRun && options.source != "files") {
    return invalid("source", options.source,
                   "this version has the source files (with --objects DIR)");
  }
  if (command == Command::kRun && options.objects_dir.empty()) {
    return make_error(ErrorCode::kInvalid,
                      "--objects DIR is missing: the folder of Kubernetes objects to follow");
  }
  options.node_name = text("node");
  options.namespace_name = text("namespace");
  options.state_dir = text("state-dir");
  options.cache_dir = text("cache-dir");
  options.standby = values["standby"].as<bool>();
  options.pin_dir = text("pin-dir");
  options.cgroup_dir = text("cgroup");
  options.engine_cgroup_dir = text("engine-cgroup");
  options.http = text("http");
  options.lists = {.exclude_ports = optional_text(values, "exclude-outbound-ports"),
                   .exclude_cidrs = optional_text(values, "exclude-outbound-cidrs"),
                   .include_ports = optional_text(values, "include-outbound-ports"),
                   .include_cidrs = optional_text(values, "include-outbound-cidrs")};
  const int listeners = values["listeners-per-pod"].as<int>();
  if (listeners < 1 || listeners > ST_MAX_LISTENERS) {
    return invalid("listeners-per-pod", std::to_string(listeners),
                   fmt::format("1 to {} is meant", int{ST_MAX_LISTENERS}));
  }
  options.listeners_per_pod = static_cast<std::uint16_t>(listeners);
  options.log_level = text("log-level");
  options.log_format = text("log-format");
  if (options.log_level != "error" && options.log_level != "warn" && options.log_level != "info" &&
      options.log_level != "debug") {
    return invalid("log-level", options.log_level, "error, warn, info or debug is meant");
  }
  if (options.log_format != "text" && options.log_format != "json") {
    return invalid("log-format", options.log_format, "text or json is meant");
  }
  ST_TRY(parse_engine(text("engine"), options));
  ST_TRY(parse_listener_ports(text("listener-ports"), options));
  ST_TRY(parse_compat(text("compat"), options));
  ST_TRY(parse_drain(text("drain"), options));
  std::vector<std::string> warnings;
  ST_TRY(policy::parse_node_rules(options.lists, warnings));
  return options;
}

}  // namespace

Result<Options> parse_options(int argc, const char* const* argv) {
  const std::string first = argc > 1 ? argv[1] : "--help";
  if (first == "--help" || first == "-h" || first == "help") {
    return Options{.command = Command::kHelp};
  }
  if (first == "--version") {
    return Options{.command = Command::kVersion};
  }
  if (first != "run" && first != "uninstall") {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("'{}' is no command: run, uninstall, --help, --version", first));
  }
  const po::options_description described_options = described();
  po::options_description with_help;
  with_help.add(described_options).add_options()("help,h", "this text");
  po::variables_map values;
  try {
    const std::vector<std::string> arguments(argv + 2, argv + argc);
    const auto style =
        po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    po::store(
        po::command_line_parser(arguments).options(with_help).positional({}).style(style).run(),
        values);
    if (values.contains("help")) {
      return Options{.command = Command::kHelp};
    }
    po::store(po::parse_environment(described_options,
                                    [&](const std::string& name) {
                                      return option_of_environment(described_options, name);
                                    }),
              values);
    if (values.contains("config")) {
      const auto path = values["config"].as<std::string>();
      std::ifstream file(path);
      if (!file) {
        return invalid("config", path, "cannot be read");
      }
      po::store(po::parse_config_file(file, described_options), values);
    }
    po::notify(values);
  } catch (const po::error& error) {
    return make_error(ErrorCode::kInvalid,
                      std::string(error.what()) + " (sidetrack-agent --help lists the options)");
  }
  return interpret(values, first == "run" ? Command::kRun : Command::kUninstall);
}

std::string help_text() {
  std::ostringstream text;
  text << "sidetrack-agent: moves pods' TCP connections to the node's engine by eBPF, as "
          "Kubernetes labels say.\n\n"
          "  sidetrack-agent run --objects DIR [options]   follows the objects and keeps the "
          "kernel in step; SIGHUP reads them again\n"
          "  sidetrack-agent uninstall [options]           removes everything that it made, after "
          "connections have drained\n"
          "  sidetrack-agent --help | --version\n\n"
       << described()
       << "\nExit codes: 0 done, 1 runtime error, 2 usage or configuration error (nothing was "
          "changed), 3 this kernel cannot run it.\n"
          "Example: sidetrack-agent run --objects /etc/sidetrack/objects & sidetrack-engine run & "
          "sidetrackctl status\n";
  return text.str();
}

}  // namespace sidetrack::agent
