// SPDX-License-Identifier: Apache-2.0
#include "probe/options.h"

#include <fmt/format.h>
#include <fmt/ostream.h>

#include <charconv>
#include <cstdlib>

#include <boost/program_options.hpp>

#include "sidetrack/cli/words.h"

namespace sidetrack::probe {
namespace {

namespace po = boost::program_options;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

po::options_description described() {
  po::options_description options("Options", 110, 60);
  options.add_options()("port", po::value<std::vector<std::uint16_t>>(),
                        "serve: port to answer on; may be repeated")(
      "admin-socket", po::value<std::string>()->default_value("/run/sidetrack/admin.sock"),
      "check: the agent's socket on this node")(
      "namespace",
      po::value<std::string>()->default_value(environment("POD_NAMESPACE"), "$POD_NAMESPACE"),
      "check: this pod's namespace")(
      "pod", po::value<std::string>()->default_value(environment("POD_NAME"), "$POD_NAME"),
      "check: this pod's name")(
      "expect", po::value<std::vector<std::string>>(),
      "check: REASON=HOST:PORT, such as redirected=web:80; may be repeated")(
      "patience", po::value<int>()->default_value(60),
      "check: seconds until the agent must be there and agree")("help", "this text")("version",
                                                                                     "the version");
  return options;
}

Error invalid(const std::string& message) {
  return make_error(ErrorCode::kInvalid, message + "; see sidetrack-probe --help");
}

Result<Options> interpret_check(const po::variables_map& values, Options options) {
  options.admin_socket = values["admin-socket"].as<std::string>();
  options.namespace_name = values["namespace"].as<std::string>();
  options.pod = values["pod"].as<std::string>();
  options.patience = std::chrono::seconds(values["patience"].as<int>());
  if (options.namespace_name.empty() || options.pod.empty()) {
    return invalid("--namespace and --pod are missing: the name of the pod that this runs in");
  }
  if (!values.contains("expect")) {
    return invalid("--expect REASON=HOST:PORT is missing");
  }
  for (const std::string& text : values["expect"].as<std::vector<std::string>>()) {
    auto expectation = parse_expectation(text);
    ST_TRY(expectation);
    options.expectations.push_back(std::move(*expectation));
  }
  return options;
}

}  // namespace

std::string usage() {
  return fmt::format(
      "sidetrack-probe serve --port PORT ...    answers HTTP with its pod's name and the client's "
      "address\n"
      "sidetrack-probe check --expect ... ...   connects, and asks the agent what the kernel did "
      "with it\n\n{}",
      fmt::streamed(described()));
}

Result<Expectation> parse_expectation(std::string_view text) {
  const auto equals = text.find('=');
  const auto colon = text.rfind(':');
  Expectation expectation;
  if (equals == std::string_view::npos || colon == std::string_view::npos || colon <= equals + 1 ||
      equals == 0) {
    return invalid(fmt::format("--expect '{}': REASON=HOST:PORT is meant", text));
  }
  expectation.reason = text.substr(0, equals);
  std::string_view host = text.substr(equals + 1, colon - equals - 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  expectation.host = host;
  const std::string_view port = text.substr(colon + 1);
  const auto [end, error] =
      std::from_chars(port.data(), port.data() + port.size(), expectation.port);
  if (error != std::errc() || end != port.data() + port.size() || expectation.port == 0) {
    return invalid(fmt::format("--expect '{}': '{}' is no port", text, port));
  }
  return expectation;
}

Result<Options> parse_options(const std::vector<std::string>& arguments) {
  po::variables_map values;
  po::options_description all = described();
  all.add_options()("command", po::value<std::string>());
  po::positional_options_description positional;
  positional.add("command", 1);
  try {
    po::store(cli::parse_words(arguments, all, positional), values);
    po::notify(values);
  } catch (const po::error& error) {
    return invalid(error.what());
  }
  Options options;
  if (values.contains("help") || values.contains("version")) {
    options.command = values.contains("help") ? Command::kHelp : Command::kVersion;
    return options;
  }
  const std::string command = values.contains("command") ? values["command"].as<std::string>() : "";
  if (command == "check") {
    options.command = Command::kCheck;
    return interpret_check(values, std::move(options));
  }
  if (command != "serve") {
    return invalid(fmt::format("'{}' is no command: serve or check is meant", command));
  }
  options.command = Command::kServe;
  if (!values.contains("port")) {
    return invalid("--port is missing");
  }
  options.ports = values["port"].as<std::vector<std::uint16_t>>();
  return options;
}

}  // namespace sidetrack::probe
