// SPDX-License-Identifier: Apache-2.0
#include "engine/options.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <thread>
#include <utility>

#include <boost/program_options.hpp>

#include "sidetrack/cli/origins.h"
#include "sidetrack/cli/words.h"

namespace sidetrack::engine {
namespace {

namespace po = boost::program_options;

constexpr std::size_t kLeastBuffer = 4096;
constexpr std::size_t kMostBuffer = 64U * 1024 * 1024;
constexpr unsigned kMostThreads = 256;

po::options_description described() {
  po::options_description options("Options (each also as SIDETRACK_OPTION_NAME in the environment)",
                                  110, 50);
  const auto text = [](const char* value) {
    return po::value<std::string>()->default_value(value);
  };
  options.add_options()("state-dir", text("/run/sidetrack"), "where the agent's engine.sock is")(
      "drain", text("30s"), "how long connections may still run after SIGTERM")(
      "http", text("127.0.0.1:15881"), "ADDR:PORT of /healthz and /metrics, or off")(
      "threads", po::value<std::string>(), "event loops; default: one per core")(
      "buffer", text("256KiB"), "most memory that one connection may hold")(
      "log-level", text("info"), "error, warn, info, debug")(
      "log-format", text("text"), "text (key=value) or json")("help", "this text")("version",
                                                                                   "the version");
  return options;
}

// A whole number and what follows it.
Result<std::pair<std::uint64_t, std::string>> split_number(const std::string& text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || number > 1'000'000'000'000ULL) {
    return make_error(ErrorCode::kInvalid, fmt::format("'{}' is not a number with a unit", text));
  }
  return std::pair{number, std::string(rest, end)};
}

Result<std::optional<HttpAddress>> parse_http(const std::string& text) {
  if (text == "off") {
    return std::optional<HttpAddress>();
  }
  const auto colon = text.rfind(':');
  const Error wrong = make_error(
      ErrorCode::kInvalid,
      fmt::format("--http '{}': ADDR:PORT is meant, [ADDR]:PORT for IPv6, or off", text));
  if (colon == std::string::npos) {
    return wrong;
  }
  std::string address = text.substr(0, colon);
  const bool bracketed = address.size() > 2 && address.front() == '[' && address.back() == ']';
  if (bracketed) {
    address = address.substr(1, address.size() - 2);
  }
  if (bracketed != (address.find(':') != std::string::npos)) {
    return wrong;
  }
  unsigned char scratch[sizeof(in6_addr)];
  const auto port = split_number(text.substr(colon + 1));
  if (!port || !port->second.empty() || port->first == 0 || port->first > 65535 ||
      (::inet_pton(AF_INET, address.c_str(), scratch) != 1 &&
       ::inet_pton(AF_INET6, address.c_str(), scratch) != 1)) {
    return wrong;
  }
  return std::optional(
      HttpAddress{.address = address, .port = static_cast<std::uint16_t>(port->first)});
}

Result<LogLevel> parse_level(const std::string& text) {
  if (const auto level = log_level_of(text)) {
    return *level;
  }
  return make_error(ErrorCode::kInvalid,
                    fmt::format("--log-level '{}': error, warn, info or debug is meant", text));
}

// Adds what the command line does not set: the first value of an option stays.
void store_environment(const po::options_description& options,
                       const std::vector<std::string>& environment, po::variables_map& values,
                       cli::Origins& origins) {
  po::parsed_options parsed(&options);
  for (const std::string& item : environment) {
    const auto equals = item.find('=');
    const std::string name =
        equals == std::string::npos ? "" : cli::option_of_variable(item.substr(0, equals));
    if (name.empty() || options.find_nothrow(name, false) == nullptr || name == "help" ||
        name == "version") {
      continue;
    }
    parsed.options.emplace_back(name, std::vector<std::string>{item.substr(equals + 1)});
    if (values.count(name) == 0 || values[name].defaulted()) {
      origins.note(name, item.substr(0, equals));
    }
  }
  po::store(parsed, values);
}

Result<Options> interpret(const po::variables_map& values) {
  const auto text = [&](const char* name) { return values[name].as<std::string>(); };
  Options options;
  options.state_dir = text("state-dir");
  options.threads = std::max(1U, std::thread::hardware_concurrency());
  const auto drain = parse_duration(text("drain"));
  const auto http = parse_http(text("http"));
  const auto buffer = parse_size(text("buffer"));
  const auto level = parse_level(text("log-level"));
  if (!drain) {
    return drain.error().within("--drain");
  }
  if (!http) {
    return http.error();
  }
  if (!buffer || *buffer < kLeastBuffer || *buffer > kMostBuffer) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("--buffer '{}': 4KiB to 64MiB is meant", text("buffer")));
  }
  if (!level) {
    return level.error();
  }
  if (text("log-format") != "text" && text("log-format") != "json") {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("--log-format '{}': text or json is meant", text("log-format")));
  }
  if (values.count("threads") != 0) {
    const auto threads = split_number(text("threads"));
    if (!threads || !threads->second.empty() || threads->first == 0 ||
        threads->first > kMostThreads) {
      return make_error(ErrorCode::kInvalid,
                        fmt::format("--threads '{}': 1 to 256 is meant", text("threads")));
    }
    options.threads = static_cast<unsigned>(threads->first);
  }
  options.drain = *drain;
  options.http = *http;
  options.buffer_bytes = *buffer;
  options.log_level = *level;
  options.log_format = text("log-format") == "json" ? LogFormat::kJson : LogFormat::kText;
  return options;
}

}  // namespace

std::string usage() {
  std::ostringstream out;
  out << "Usage: sidetrack-engine run [options]\n\n"
         "Relays the TCP connections that Sidetrack redirects. The agent tells it which pods to "
         "serve.\n\n"
      << described() << "\nExit codes: 0 done, 1 runtime error, 2 usage error.\n";
  return out.str();
}

Result<std::size_t> parse_size(const std::string& text) {
  const auto split = split_number(text);
  if (!split) {
    return split.error();
  }
  static constexpr std::pair<std::string_view, std::size_t> kUnits[] = {
      {"", 1}, {"B", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}};
  for (const auto& [unit, factor] : kUnits) {
    if (split->second == unit) {
      return split->first * factor;
    }
  }
  return make_error(ErrorCode::kInvalid, fmt::format("'{}': the unit must be KiB or MiB", text));
}

Result<std::chrono::milliseconds> parse_duration(const std::string& text) {
  const auto split = split_number(text);
  if (!split) {
    return split.error();
  }
  static constexpr std::pair<std::string_view, std::int64_t> kUnits[] = {
      {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
  for (const auto& [unit, factor] : kUnits) {
    if (split->second == unit && split->first <= 1'000'000) {
      return std::chrono::milliseconds(static_cast<std::int64_t>(split->first) * factor);
    }
  }
  return make_error(ErrorCode::kInvalid,
                    fmt::format("'{}' is no duration like 500ms, 30s, 2m", text));
}

Result<Options> parse_options(const std::vector<std::string>& arguments,
                              const std::vector<std::string>& environment) {
  const po::options_description options = described();
  po::options_description all(options);
  all.add_options()("command", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("command", -1);
  po::variables_map values;
  cli::Origins origins;
  try {
    po::store(cli::parse_words(arguments, all, positional), values);
    store_environment(options, environment, values, origins);
    po::notify(values);
  } catch (const po::error& error) {
    return origins.explain(
        make_error(ErrorCode::kInvalid, std::string(error.what()) + " (see --help)"));
  }
  if (values.count("help") != 0 || values.count("version") != 0) {
    Options result;
    result.command =
        values.count("help") != 0 ? Options::Command::kHelp : Options::Command::kVersion;
    return result;
  }
  const auto words = values.count("command") != 0 ? values["command"].as<std::vector<std::string>>()
                                                  : std::vector<std::string>();
  if (words.empty() || words.front() != "run") {
    return make_error(
        ErrorCode::kInvalid,
        words.empty() ? "a command is missing: run, --help, --version"
                      : fmt::format("'{}' is no command: run, --help, --version", words.front()));
  }
  if (words.size() > 1) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("'{}' belongs to no option (see --help)", words[1]));
  }
  auto read = interpret(values);
  return read ? read : Result<Options>(origins.explain(read.error()));
}

}  // namespace sidetrack::engine
