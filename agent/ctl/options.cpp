// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <utility>

#include <boost/program_options.hpp>

#include "agent/ctl/format.h"
#include "agent/policy/policy.h"
#include "sidetrack/cli/words.h"

namespace sidetrack::ctl {
namespace {

namespace po = boost::program_options;

struct Command {
  const char* name;
  const char* arguments;  // as in the usage line
  const char* summary;
  std::size_t least, most;  // arguments
  const char* options;      // of its own, space-separated
  const char* help;
};

constexpr std::array<Command, 9> kCommands = {{
    {"status", "", "agent, engine, programs, pods, maps and problems on one screen", 0, 0, "",
     "Everything is read from the kernel at the time of the call, not from what was intended.\n"
     "  sidetrackctl status\n"
     "  sidetrackctl status -o json | jq .pods.enrolled\n"},
    {"pods", "", "the pods of this node: enrolled, or why not", 0, 0, "namespace",
     "States: enrolled (its row was read back from the kernel), pending, skipped (with the "
     "reason), drift (wanted, and not so).\n"
     "  sidetrackctl pods\n"
     "  sidetrackctl pods -n shop\n"},
    {"policy", "NAMESPACE/POD", "the merged policy of a pod and where each value comes from", 1, 1,
     "",
     "Each value is shown with the object and the key (label, annotation or option) that set it.\n"
     "  sidetrackctl policy shop/web-0\n"},
    {"explain", "NAMESPACE/POD ADDRESS:PORT", "what the kernel would do with a connection, and why",
     2, 2, "",
     "Runs the same decision on the same maps as the kernel does. Exit 1 if the kernel holds "
     "another policy than the objects ask for.\n"
     "  sidetrackctl explain shop/web-0 10.96.0.10:80\n"
     "  sidetrackctl explain shop/web-0 [fd00::10]:443\n"},
    {"flows", "", "recent and live connections", 0, 0, "namespace follow since",
     "Redirected and observed connections; what a rule excludes leaves no flow, see explain and "
     "counters.\n"
     "  sidetrackctl flows -n shop --since 5m\n"
     "  sidetrackctl flows -f                 (each as it ends, until Ctrl-C)\n"
     "  sidetrackctl flows -f -o json | jq .  (one object per line)\n"},
    {"bypass", "[on|off]", "the emergency switch: send all new connections direct", 0, 1, "pin-dir",
     "Sets one cell of a pinned map; needs root, but no agent. Open connections stay as they are. "
     "Without on or off: shows it.\n"
     "  sidetrackctl bypass on\n"
     "  sidetrackctl bypass off\n"},
    {"doctor", "", "everything that is or could go wrong on this node", 0, 0, "pin-dir",
     "Works as far as possible without the agent. Exit 1 if there is an error or a warning.\n"
     "  sidetrackctl doctor\n"
     "  sidetrackctl doctor -o json | jq '.findings[] | select(.severity == \"error\")'\n"},
    {"counters", "", "the kernel's counters by namespace and reason", 0, 0, "namespace",
     "They count since the programs were first loaded and survive restarts of the agent.\n"
     "  sidetrackctl counters\n"},
    {"workloads", "[forget NAMESPACE/KIND/NAME]",
     "workloads that are kept from the fast path for what a pod of theirs did", 0, 2, "",
     "Every later pod of such a workload starts on plain TCP, on this node. `forget` lets the next "
     "ones be observed anew, once the pod that did it is gone.\n"
     "  sidetrackctl workloads\n"
     "  sidetrackctl workloads forget shop/StatefulSet/db\n"},
}};

const Command* find_command(const std::string& name) {
  const auto* found = std::find_if(kCommands.begin(), kCommands.end(),
                                   [&](const auto& one) { return name == one.name; });
  return found == kCommands.end() ? nullptr : found;
}

po::options_description global_options() {
  po::options_description options("Global options");
  options.add_options()("state-dir", po::value<std::string>()->default_value("/run/sidetrack"),
                        "folder of the agent's sockets")(
      "output,o", po::value<std::string>()->default_value("table"), "table, json or yaml")(
      "no-color", "no colours (also: NO_COLOR is set, or the output is no terminal)")(
      "help,h", "this text")("version", "the version");
  return options;
}

po::options_description own_options(const std::string& names, const char* title = "Options") {
  const auto has = [&](const std::string& name) {
    return (" " + names + " ").find(" " + name + " ") != std::string::npos;
  };
  po::options_description options(title);
  if (has("namespace")) {
    options.add_options()("namespace,n", po::value<std::string>(), "only this namespace");
  }
  if (has("follow")) {
    options.add_options()("follow,f", "go on with new ones until interrupted");
  }
  if (has("since")) {
    options.add_options()("since", po::value<std::string>(),
                          "only the last 30s, 5m, 2h, ... (ms, s, m, h, d)");
  }
  if (has("pin-dir")) {
    options.add_options()("pin-dir",
                          po::value<std::string>()->default_value("/sys/fs/bpf/sidetrack"),
                          "folder of the pinned maps");
  }
  return options;
}

Error usage(const std::string& what, const std::string& command) {
  return make_error(ErrorCode::kInvalid, fmt::format("{}; see `sidetrackctl {}{}--help`", what,
                                                     command, command.empty() ? "" : " "));
}

// As loose as objects in files are; what Kubernetes names is among it.
bool is_name(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  });
}

Result<void> check_workloads(const Options& options) {
  if (options.arguments.empty()) {
    return {};
  }
  if (options.arguments[0] != "forget") {
    return usage(
        "workloads takes forget or, to list them, nothing; not \"" + options.arguments[0] + "\"",
        options.command);
  }
  if (options.arguments.size() == 1) {
    return usage("forget which? NAMESPACE/KIND/NAME, as `sidetrackctl workloads` has it",
                 options.command);
  }
  return {};
}

// The agent would say the same of them, but only where there is one.
Result<void> check_arguments(const Options& options) {
  if (options.command == "workloads") {
    return check_workloads(options);
  }
  if (options.command != "policy" && options.command != "explain") {
    return {};
  }
  const std::string& pod = options.arguments[0];
  const auto slash = std::min(pod.find('/'), pod.size());
  if (slash == pod.size() || !is_name(pod.substr(0, slash)) || !is_name(pod.substr(slash + 1))) {
    return usage("\"" + pod + "\" is not NAMESPACE/POD", options.command);
  }
  if (options.command == "explain") {
    if (const auto destination = policy::parse_endpoint(options.arguments[1]); !destination) {
      return usage(destination.error().message, options.command);
    }
  }
  return {};
}

Result<void> read_folder(const po::variables_map& values, const char* name,
                         const std::string& command, std::string& out) {
  if (values.count(name) > 0) {
    out = values[name].as<std::string>();
    if (out.empty()) {
      return usage(fmt::format("--{} '': a folder is meant", name), command);
    }
  }
  return {};
}

Result<void> read_values(const po::variables_map& values, Options& options) {
  ST_TRY(read_folder(values, "state-dir", options.command, options.state_dir));
  ST_TRY(read_folder(values, "pin-dir", options.command, options.pin_dir));
  options.no_colour = values.count("no-color") > 0;
  options.follow = values.count("follow") > 0;
  const auto format = values["output"].as<std::string>();
  if (format != "table" && format != "json" && format != "yaml") {
    return usage("-o must be table, json or yaml, not \"" + format + "\"", options.command);
  }
  options.format = format == "json"   ? Format::kJson
                   : format == "yaml" ? Format::kYaml
                                      : Format::kTable;
  if (values.count("namespace") > 0) {
    options.namespace_name = values["namespace"].as<std::string>();
    if (!is_name(options.namespace_name)) {
      return usage(fmt::format("-n '{}': a namespace name is meant", options.namespace_name),
                   options.command);
    }
  }
  if (values.count("since") > 0) {
    const auto since = parse_duration(values["since"].as<std::string>());
    if (!since) {
      return usage("--since " + since.error().message, options.command);
    }
    options.since_s = *since;
  }
  return {};
}

// The options of every command, plus the positional arguments.
po::options_description all_options() {
  po::options_description all;
  all.add(global_options()).add(own_options("namespace follow since pin-dir"));
  all.add_options()("positional", po::value<std::vector<std::string>>());
  return all;
}

Result<void> check_command(const po::variables_map& values, const Options& options) {
  const auto* command = find_command(options.command);
  if (command == nullptr) {
    return usage(
        options.command.empty() ? "a command is missing" : "there is no command " + options.command,
        "");
  }
  const auto own = own_options(command->options);
  for (const char* name : {"namespace", "follow", "since", "pin-dir"}) {
    const bool given = values.count(name) > 0 && !values[name].defaulted();
    if (given && own.find_nothrow(name, false) == nullptr) {
      return usage(fmt::format("{} has no option --{}", options.command, name), options.command);
    }
  }
  if (options.arguments.size() > command->most) {
    return usage(fmt::format("\"{}\" is too much", options.arguments[command->most]),
                 options.command);
  }
  if (options.arguments.size() < command->least) {
    return usage(fmt::format("usage: sidetrackctl {} {}", command->name, command->arguments),
                 options.command);
  }
  return {};
}

}  // namespace

Result<Options> parse_options(const std::vector<std::string>& arguments) {
  Options options;
  po::variables_map values;
  try {
    po::positional_options_description positional;
    positional.add("positional", -1);
    po::store(cli::parse_words(arguments, all_options(), positional), values);
    po::notify(values);
  } catch (const po::error& error) {
    return usage(error.what(), "");
  }
  if (values.count("positional") > 0) {
    auto words = values["positional"].as<std::vector<std::string>>();
    options.command = words.front();
    options.arguments.assign(words.begin() + 1, words.end());
  }
  if (values.count("help") > 0 || options.command == "help") {
    options.wish = Wish::kHelp;
    if (options.command == "help") {
      options.command = options.arguments.empty() ? "" : options.arguments.front();
    }
    if (help_text(options.command).empty()) {
      return usage("there is no command " + options.command, "");
    }
    return options;
  }
  if (values.count("version") > 0) {
    options.wish = Wish::kVersion;
    return options;
  }
  ST_TRY(check_command(values, options));
  ST_TRY(check_arguments(options));
  ST_TRY(read_values(values, options));
  return options;
}

std::string help_text(const std::string& command) {
  std::ostringstream out;
  if (command.empty()) {
    out << "sidetrackctl: what Sidetrack does on this node, and why.\n\nUsage: sidetrackctl "
           "COMMAND [options]\n\nCommands:\n";
    for (const auto& one : kCommands) {
      out << fmt::format("  {:<9} {}\n", one.name, one.summary);
    }
    out << "\n"
        << global_options() << "\n"
        << own_options("namespace follow since pin-dir", "Options of some commands")
        << "\nExit codes: 0 fine, 1 findings or not found, 2 usage, 3 agent not reachable.\n"
        << "`sidetrackctl COMMAND --help` says more and has examples.\n";
    return out.str();
  }
  const auto* found = find_command(command);
  if (found == nullptr) {
    return "";
  }
  out << fmt::format("Usage: sidetrackctl {}{}{} [options]\n\n{}.\n{}\n", found->name,
                     *found->arguments ? " " : "", found->arguments, found->summary, found->help);
  if (*found->options != '\0') {
    out << own_options(found->options) << "\n";
  }
  out << global_options();
  return out.str();
}

}  // namespace sidetrack::ctl
