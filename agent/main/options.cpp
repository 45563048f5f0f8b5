// SPDX-License-Identifier: Apache-2.0
#include "agent/main/options.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <istream>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include <boost/program_options.hpp>

#include "agent/main/option_list.h"
#include "agent/main/option_values.h"
#include "sidetrack/cli/words.h"

namespace sidetrack::agent {

namespace {

namespace po = boost::program_options;

std::optional<std::string> optional_text(const po::variables_map& values, const char* name) {
  return values.contains(name) ? std::optional(values[name].as<std::string>()) : std::nullopt;
}

Result<void> check_source(const Options& options) {
  if (options.source != "files" && options.source != "kubernetes") {
    return invalid("source", options.source, "files or kubernetes is meant");
  }
  if (options.source == "files" && options.objects_dir.empty()) {
    return make_error(ErrorCode::kInvalid,
                      "--objects DIR is missing: the folder of Kubernetes objects to follow");
  }
  const std::pair<const char*, const std::string&> of_kubernetes[] = {
      {"kubeconfig", options.kubeconfig},
      {"daemonset", options.daemonset},
      {"cni-conf-dir", options.cni.conf_dir}};
  for (const auto& [name, value] : of_kubernetes) {
    if (options.source == "files" && !value.empty()) {
      return invalid(name, value, "only source kubernetes has a use for it");
    }
  }
  if (options.source == "kubernetes" && !options.objects_dir.empty()) {
    return invalid("objects", options.objects_dir, "only source files reads a folder");
  }
  if (options.source == "kubernetes" && options.kubeconfig.empty() &&
      std::getenv("KUBERNETES_SERVICE_HOST") == nullptr) {
    return make_error(ErrorCode::kInvalid,
                      "where objects come from is missing: --objects DIR names a folder of them, "
                      "--kubeconfig FILE an API server (in a pod it is found by itself)");
  }
  return {};
}

Result<Options> interpret(const po::variables_map& values, Command command) {
  Options options;
  options.command = command;
  const auto text = [&values](const char* name) {
    return optional_text(values, name).value_or("");
  };
  options.objects_dir = text("objects");
  options.kubeconfig = text("kubeconfig");
  const std::string implied = options.objects_dir.empty() ? "kubernetes" : "files";
  options.source = values.contains("source") ? text("source") : implied;
  options.daemonset = text("daemonset");
  options.cni = {.conf_dir = text("cni-conf-dir"),
                 .bin_dir = text("cni-bin-dir"),
                 .binary = text("cni-binary")};
  if (command == Command::kRun) {
    ST_TRY(check_source(options));
  }
  options.node_name = text("node");
  // With files the host's own name will do, though no node could have it.
  const bool names_node =
      options.source == "kubernetes" || !values["node"].defaulted() || options.node_name.empty();
  if (command == Command::kRun && names_node) {
    ST_TRY(check_node_name(options.node_name));
  }
  options.namespace_name = text("namespace");
  options.keep_conflist = values.contains("keep-conflist") && values["keep-conflist"].as<bool>();
  options.state_dir = text("state-dir");
  options.cache_dir = text("cache-dir");
  if (command == Command::kRun) {
    if (options.source == "kubernetes") {
      ST_TRY(check_plugins_folder("state-dir", options.state_dir));
      ST_TRY(check_plugins_folder("cache-dir", options.cache_dir));
    }
    ST_TRY(parse_cni(values, options.cache_dir, options.cni));
  }
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
  const auto level = log_level_of(text("log-level"));
  if (!level) {
    return invalid("log-level", text("log-level"), "error, warn, info or debug is meant");
  }
  options.log_level = *level;
  if (text("log-format") != "text" && text("log-format") != "json") {
    return invalid("log-format", text("log-format"), "text or json is meant");
  }
  options.log_format = text("log-format") == "json" ? LogFormat::kJson : LogFormat::kText;
  ST_TRY(parse_engine(text("engine"), options));
  ST_TRY(parse_listener_ports(text("listener-ports"), options));
  ST_TRY(parse_compat(text("compat"), options));
  ST_TRY(parse_drain(text("drain"), options));
  ST_TRY(parse_fast_path(values, options.fast_path));
  if (text("output") != "table" && text("output") != "json") {
    return invalid("output", text("output"), "table or json is meant");
  }
  options.json = text("output") == "json";
  options.netns = text("netns");
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
  po::store(cli::parse_words(words, own, positional), values);
  if (values.contains("surplus")) {
    return make_error(
        ErrorCode::kInvalid,
        fmt::format("'{}' belongs to no option (sidetrack-agent --help lists the options)",
                    values["surplus"].as<std::vector<std::string>>().front()));
  }
  return values;
}

// What an error is to be told of the options in `parsed` that nothing set before.
void note_origins(const po::variables_map& before, const po::parsed_options& parsed,
                  const std::function<std::string(const std::string&)>& origin_of,
                  cli::Origins& origins) {
  for (const po::option& option : parsed.options) {
    if (!before.contains(option.string_key) || before[option.string_key].defaulted()) {
      origins.note(option.string_key, origin_of(option.string_key));
    }
  }
}

// What the one who wrote the file said behind an option, such as where it comes from.
std::string comment_of(const std::string& line) {
  const auto begin = line.find('#');
  return begin == std::string::npos
             ? ""
             : " " + line.substr(begin, line.find_last_not_of(" \t\r") + 1 - begin);
}

// Line by line, so that what is wrong with one can name it.
Result<void> add_file(std::istream& file, const std::string& path, po::variables_map& values,
                      cli::Origins& origins) {
  const po::options_description all = every_option();
  std::map<std::string, std::string> places;
  po::parsed_options options(&all);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const std::string place = fmt::format("{}:{}{}", path, number, comment_of(line));
    try {
      std::istringstream text(line);
      for (po::option& option : po::parse_config_file(text, all).options) {
        if (const auto [first, is_new] = places.emplace(option.string_key, place); !is_new) {
          return make_error(ErrorCode::kInvalid,
                            fmt::format("--config {}: option '{}' again, after {}", place,
                                        option.string_key, first->second));
        }
        options.options.push_back(std::move(option));
      }
    } catch (const po::error& error) {
      return make_error(ErrorCode::kInvalid, fmt::format("--config {}: {}", place, error.what()));
    }
    if (const auto begin = line.find_first_not_of(" \t\r");
        begin != std::string::npos && line[begin] == '[') {
      return make_error(ErrorCode::kInvalid,
                        fmt::format("--config {}: the file has no sections", place));
    }
  }
  note_origins(
      values, options, [&](const std::string& option) { return "--config " + places[option]; },
      origins);
  po::store(options, values);
  return {};
}

// Adds what the command line does not say, also options of the other command: both may share an
// environment and a file.
Result<void> add_environment_and_file(po::variables_map& values, cli::Origins& origins) {
  const po::options_description all = every_option();
  // Other variables of this prefix are not ours to judge.
  const auto environment = po::parse_environment(all, [&](const std::string& variable) {
    const std::string option = cli::option_of_variable(variable);
    return !option.empty() && all.find_nothrow(option, false) != nullptr ? option : "";
  });
  note_origins(values, environment, cli::variable_of_option, origins);
  po::store(environment, values);
  if (values.contains("config")) {
    const auto path = values["config"].as<std::string>();
    std::ifstream file(path);
    std::error_code error;
    if (!file || std::filesystem::is_directory(path, error)) {
      return invalid("config", path, "a file that can be read is meant");
    }
    return add_file(file, path, values, origins);
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
  const std::map<std::string, Command> commands = {{"run", Command::kRun},
                                                   {"uninstall", Command::kUninstall},
                                                   {"leave", Command::kLeave},
                                                   {"self-test", Command::kSelfTest}};
  const auto found = commands.find(first);
  if (found == commands.end()) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("{}: run, uninstall, leave, self-test, --help, --version",
                                  first.empty() ? "a command is missing"
                                                : fmt::format("'{}' is no command", first)));
  }
  const Command command = found->second;
  cli::Origins origins;
  try {
    auto values = parse_words({argv + 2, argv + argc}, command);
    ST_TRY(values);
    if (values->contains("help")) {
      return Options{.command = Command::kHelp, .help_of = command};
    }
    if (auto added = add_environment_and_file(*values, origins); !added) {
      return origins.explain(added.error());
    }
    po::notify(*values);
    auto options = interpret(*values, command);
    if (!options) {
      return origins.explain(options.error());
    }
    options->origins = std::move(origins);
    return options;
  } catch (const po::error& error) {
    return origins.explain(make_error(
        ErrorCode::kInvalid,
        fmt::format("{} (sidetrack-agent {} --help lists the options)", error.what(), first)));
  }
}

}  // namespace sidetrack::agent
