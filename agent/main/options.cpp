// SPDX-License-Identifier: Apache-2.0
#include "agent/main/options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
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

constexpr unsigned kLineLength = 118;
constexpr unsigned kTextWidth = 60;

auto text_value(const char* value) {
  return po::value<std::string>()->default_value(value);
}

// Of both commands.
po::options_description common_options() {
  po::options_description options(
      "Options (each also as SIDETRACK_OPTION_NAME in the environment, and in --config FILE)",
      kLineLength, kTextWidth);
  options.add_options()("config", po::value<std::string>(), "file of `option = value` lines")(
      "state-dir", text_value("/run/sidetrack"), "sockets and lock")(
      "cache-dir", text_value("/var/lib/sidetrack"), "what must survive a reboot")(
      "pin-dir", text_value("/sys/fs/bpf/sidetrack"), "pinned programs, maps and links")(
      "cgroup", po::value<std::string>(), "where the programs attach; default the cgroup2 root")(
      "engine-cgroup", po::value<std::string>(),
      "cgroup of the engine alone; default made by the agent for embedded");
  return options;
}

po::options_description run_options() {
  po::options_description options("Options of run", kLineLength, kTextWidth);
  options.add_options()("source", po::value<std::string>(),
                        "where desired state comes from; default files when --objects is given")(
      "objects", po::value<std::string>(),
      "folder of Kubernetes objects as *.yaml, *.yml, *.json (source files)")(
      "node",
      po::value<std::string>()->default_value(default_node(), "$NODE_NAME, else the host name"),
      "pods of this node are enrolled")(
      "namespace", po::value<std::string>()->default_value(default_namespace(), "$POD_NAMESPACE"),
      "our own namespace: never enrolled")(
      "standby", po::bool_switch(), "another agent runs: wait for it to end, then take over")(
      "engine", text_value("embedded"), "embedded, external=ADDR:PORT[,ADDR:PORT], none")(
      "listener-ports", text_value("15900-15999"), "where in-pod listeners may be")(
      "listeners-per-pod", po::value<int>()->default_value(4),
      "1 to 8, each with its own space of local ports")(
      "exclude-outbound-ports", po::value<std::string>(),
      "never redirected, in any namespace: 8500,8600-8700")(
      "exclude-outbound-cidrs", po::value<std::string>(),
      "never redirected: 10.9.0.0/16,fd00::/8,10.0.0.0/8:443")(
      "include-outbound-ports", po::value<std::string>(), "if present, only these are redirected")(
      "include-outbound-cidrs", po::value<std::string>(), "if present, only these are redirected")(
      "compat", po::value<std::string>(), "honour annotations of istio,linkerd,kuma")(
      "fast-path", text_value("auto"), "auto, off: whether sockets of this node may skip TCP")(
      "fast-path-window", text_value("1MiB"), "unread bytes per direction that may skip TCP")(
      "fast-path-round-trips", po::value<int>()->default_value(4),
      "after how many a connection is looked at")("fast-path-probation", text_value("30s"),
                                                  "how long a pod with traffic is observed before")(
      "fast-path-loopback", text_value("off"), "on, off: connections inside one pod, too")(
      "fast-path-sentinel", text_value("auto"),
      "auto, fentry, tracepoint, off: what sees calls that must not meet the fast path; off = none "
      "of it")("http", text_value("127.0.0.1:15880"),
               "ADDR:PORT of /metrics, /healthz and /readyz, or off")(
      "log-level", text_value("info"), "error, warn, info, debug")("log-format", text_value("text"),
                                                                   "text (key=value) or json");
  return options;
}

po::options_description uninstall_options() {
  po::options_description options("Options of uninstall", kLineLength, kTextWidth);
  options.add_options()("drain", text_value("30s"),
                        "how long redirected connections may still run");
  return options;
}

po::options_description self_test_options() {
  po::options_description options("Options of self-test", kLineLength, kTextWidth);
  options.add_options()("output,o", text_value("table"), "table or json");
  return options;
}

po::options_description options_of(Command command) {
  return command == Command::kRun         ? run_options()
         : command == Command::kUninstall ? uninstall_options()
                                          : self_test_options();
}

po::options_description every_option() {
  po::options_description options;
  options.add(common_options())
      .add(run_options())
      .add(uninstall_options())
      .add(self_test_options());
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

// A number and its unit, by a table of what the units are worth.
std::optional<std::uint64_t> parse_quantity(
    const std::string& value, const std::map<std::string_view, std::uint64_t>& units) {
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

Result<void> parse_drain(const std::string& value, Options& options) {
  const auto seconds = parse_quantity(value, {{"s", 1}, {"m", 60}});
  if (!seconds) {
    return invalid("drain", value, "a time such as 30s or 2m is meant");
  }
  options.drain = std::chrono::seconds(*seconds);
  return {};
}

Result<bool> parse_switch(const std::string& option, const std::string& value,
                          const std::string& on) {
  if (value != on && value != "off") {
    return invalid(option, value, on + " or off is meant");
  }
  return value == on;
}

Result<void> parse_fast_path(const po::variables_map& values, FastPathOptions& fast_path) {
  const auto text = [&values](const char* name) { return values[name].as<std::string>(); };
  auto on = parse_switch("fast-path", text("fast-path"), "auto");
  ST_TRY(on);
  fast_path.on = *on;
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
  const auto probation =
      parse_quantity(text("fast-path-probation"), {{"ms", 1}, {"s", 1000}, {"m", 60'000}});
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

// Whether it is on a bpf file system is seen when the folder is made.
Result<void> check_pin_dir(const std::string& value) {
  if (value.empty() || value.front() != '/') {
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
  ST_TRY(check_pin_dir(options.pin_dir));
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
  ST_TRY(parse_fast_path(values, options.fast_path));
  if (text("output") != "table" && text("output") != "json") {
    return invalid("output", text("output"), "table or json is meant");
  }
  options.json = text("output") == "json";
  std::vector<std::string> warnings;
  ST_TRY(policy::parse_node_rules(options.lists, warnings));
  return options;
}

// The words of the command line after the command.
Result<po::variables_map> parse_words(const std::vector<std::string>& words, Command command) {
  po::options_description own;
  own.add(common_options())
      .add(options_of(command))
      .add_options()("help,h", "this text")("surplus", po::value<std::vector<std::string>>());
  po::variables_map values;
  po::positional_options_description positional;
  positional.add("surplus", -1);
  const auto style =
      po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
  po::store(po::command_line_parser(words).options(own).positional(positional).style(style).run(),
            values);
  if (values.contains("surplus")) {
    return make_error(
        ErrorCode::kInvalid,
        fmt::format("'{}' belongs to no option (sidetrack-agent --help lists the options)",
                    values["surplus"].as<std::vector<std::string>>().front()));
  }
  return values;
}

// Adds what the command line does not say, also options of the other command: both may share an
// environment and a file.
Result<void> add_environment_and_file(po::variables_map& values) {
  const po::options_description all = every_option();
  po::store(po::parse_environment(
                all, [&](const std::string& name) { return option_of_environment(all, name); }),
            values);
  if (values.contains("config")) {
    const auto path = values["config"].as<std::string>();
    std::ifstream file(path);
    if (!file) {
      return invalid("config", path, "cannot be read");
    }
    po::store(po::parse_config_file(file, all), values);
  }
  return {};
}

}  // namespace

Result<Options> parse_options(int argc, const char* const* argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  if (first == "--help" || first == "-h" || first == "help") {
    return Options{.command = Command::kHelp};
  }
  if (first == "--version") {
    return Options{.command = Command::kVersion};
  }
  if (first != "run" && first != "uninstall" && first != "self-test") {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("{}: run, uninstall, self-test, --help, --version",
                                  first.empty() ? "a command is missing"
                                                : fmt::format("'{}' is no command", first)));
  }
  const Command command = first == "run"         ? Command::kRun
                          : first == "uninstall" ? Command::kUninstall
                                                 : Command::kSelfTest;
  try {
    auto values = parse_words({argv + 2, argv + argc}, command);
    ST_TRY(values);
    if (values->contains("help")) {
      return Options{.command = Command::kHelp, .help_of = command};
    }
    ST_TRY(add_environment_and_file(*values));
    po::notify(*values);
    return interpret(*values, command);
  } catch (const po::error& error) {
    return make_error(
        ErrorCode::kInvalid,
        fmt::format("{} (sidetrack-agent {} --help lists the options)", error.what(), first));
  }
}

std::string help_text(Command command) {
  std::ostringstream text;
  if (command == Command::kRun) {
    text << "sidetrack-agent run --objects DIR [options]: follows the objects and keeps the kernel "
            "in step.\n"
            "SIGHUP reads objects and options again; SIGTERM ends it, and what is pinned goes on "
            "enforcing.\n\n"
         << run_options() << "\n"
         << common_options()
         << "\nExample: sidetrack-agent run --objects /etc/sidetrack/objects --node worker-1\n";
  } else if (command == Command::kUninstall) {
    text << "sidetrack-agent uninstall [options]: takes back what an agent with the same --pin-dir "
            "made.\n"
            "New connections go direct at once; open ones may run until --drain is over, then "
            "programs and maps go.\n\n"
         << uninstall_options() << "\n"
         << common_options()
         << "\nExample: sidetrack-agent uninstall --pin-dir /sys/fs/bpf/sidetrack --drain 1m\n";
  } else if (command == Command::kSelfTest) {
    text << "sidetrack-agent self-test [options]: tries whether sockets can skip TCP on this "
            "kernel.\n"
            "Makes a network namespace, a cgroup and pins of its own and takes them away again; "
            "pods are not touched.\nExit codes: 0 all passed, 1 something failed, 3 this kernel "
            "cannot load the programs.\n\n"
         << self_test_options() << "\n"
         << common_options();
  } else {
    text
        << "sidetrack-agent: moves pods' TCP connections to the node's engine by eBPF, as "
           "Kubernetes labels say.\n\n"
           "  sidetrack-agent run --objects DIR [options]   follows the objects and keeps the "
           "kernel in step; SIGHUP reads them again\n"
           "  sidetrack-agent uninstall [options]           removes everything that it made, after "
           "connections have drained\n"
           "  sidetrack-agent --help | --version\n\n"
        << common_options() << "\n"
        << run_options() << "\n"
        << uninstall_options()
        << "\nExample: sidetrack-agent run --objects /etc/sidetrack/objects & sidetrack-engine run "
           "& sidetrackctl status\n";
  }
  text << "Exit codes: 0 done, 1 runtime error, 2 usage or configuration error (nothing was "
          "changed), 3 this kernel cannot run it.\n";
  return text.str();
}

}  // namespace sidetrack::agent
