// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/commands.h"

#include <chrono>
#include <filesystem>
#include <map>
#include <ostream>
#include <system_error>

#include <nlohmann/json.hpp>

#include "agent/admin/request.h"
#include "agent/ctl/client.h"
#include "agent/ctl/render.h"
#include "agent/dataplane/pinned.h"
#include "sidetrack/cli/rights.h"

namespace sidetrack::ctl {
namespace {

using admin::percent_encode;
using nlohmann::json;

struct Question {
  std::string target;
  std::string key;        // that the answer has
  json change = nullptr;  // what the agent is to do; null: only tell
};

// Asks the agent and prints the answer; returns it through `answer` for those who want to look at
// it.
int ask(const Options& options, const Streams& streams, const Question& question,
        const Renderer& render, json* answer = nullptr) {
  const Client client(admin_socket(options));
  const auto reply = question.change.is_null()
                         ? client.get(question.target, question.key)
                         : client.post(question.target, question.change, question.key);
  if (!reply) {
    return fail(reply.error(), streams);
  }
  streams.out << (options.format == Format::kTable ? render(*reply)
                                                   : serialise(*reply, options.format));
  if (answer != nullptr) {
    *answer = *reply;
  }
  return kExitFine;
}

std::string pods_target(const std::string& namespace_name) {
  return "/v1/pods?namespace=" + percent_encode(namespace_name);
}

// "shop/web-0" as query parameters.
std::string pod_query(const std::string& name) {
  const auto slash = name.find('/');
  return "namespace=" + percent_encode(name.substr(0, slash)) +
         "&pod=" + percent_encode(name.substr(slash + 1));
}

int run_status(const Options& options, const Streams& streams) {
  return ask(options, streams, {"/v1/status", "agent"},
             [&](const json& status) { return render_status(status, streams.painter, now_s()); });
}

int run_pods(const Options& options, const Streams& streams) {
  const auto reply = Client(admin_socket(options)).get(pods_target(options.namespace_name), "pods");
  if (!reply) {
    return fail(reply.error(), streams);
  }
  return show_list(*reply, "pods", options, streams,
                   [&](const json& pods) { return render_pods(pods, streams.painter); });
}

int run_policy(const Options& options, const Streams& streams) {
  return ask(options, streams, {"/v1/policy?" + pod_query(options.arguments[0]), "entries"},
             [&](const json& policy) { return render_policy(policy, streams.painter); });
}

int run_explain(const Options& options, const Streams& streams) {
  json answer;
  const int code = ask(
      options, streams,
      {"/v1/explain?" + pod_query(options.arguments[0]) +
           "&destination=" + percent_encode(options.arguments[1]),
       "verdict"},
      [&](const json& explain) { return render_explain(explain, streams.painter); }, &answer);
  return code == kExitFine && !flag_of(answer, "agrees_with_kernel") ? kExitFindings : code;
}

int run_counters(const Options& options, const Streams& streams) {
  auto reply = Client(admin_socket(options)).get("/v1/counters", "counters");
  if (!reply) {
    return fail(reply.error(), streams);
  }
  json kept = json::array();
  for (const auto& row : list_of(*reply, "counters")) {
    if (options.namespace_name.empty() || text_of(row, "namespace") == options.namespace_name) {
      kept.push_back(row);
    }
  }
  return show_list({{"counters", kept}}, "counters", options, streams, [&](const json& counters) {
    return render_counters(counters, streams.painter);
  });
}

int run_workloads(const Options& options, const Streams& streams) {
  const json change =
      options.arguments.empty() ? json(nullptr) : json{{"forget", options.arguments[1]}};
  return ask(options, streams, {"/v1/workloads", "workloads", change},
             [&](const json& answer) { return render_workloads(answer, streams.painter); });
}

int fail_bypass(const Error& error, const Options& options, const Streams& streams) {
  std::error_code unreadable;
  const bool nothing = error.code == ErrorCode::kNotFound &&
                       (std::filesystem::is_empty(options.pin_dir, unreadable) || unreadable);
  const auto what = nothing ? "there is no switch: nothing of Sidetrack is pinned at " +
                                  options.pin_dir +
                                  ", so nothing is redirected from there (another folder: "
                                  "--pin-dir DIR)"
                            : cli::with_rights(error, "CAP_BPF").message;
  streams.error << "sidetrackctl: bypass: " << printable(what) << "\n";
  return kExitFindings;
}

int run_bypass(const Options& options, const Streams& streams) {
  const auto word = options.arguments.empty() ? std::string() : options.arguments[0];
  if (!word.empty() && word != "on" && word != "off") {
    return fail(make_error(ErrorCode::kInvalid,
                           "bypass takes on, off or, to show it, nothing; not \"" + word + "\""),
                streams);
  }
  if (!word.empty()) {
    if (const auto done = dataplane::set_bypass(options.pin_dir, word == "on"); !done) {
      return fail_bypass(done.error(), options, streams);
    }
  }
  const auto now = dataplane::bypass(options.pin_dir);  // read back: what the kernel holds
  if (!now) {
    return fail_bypass(now.error(), options, streams);
  }
  if (options.format != Format::kTable) {
    streams.out << serialise(json{{"bypass", *now}}, options.format);
    return kExitFine;
  }
  streams.out << render_bypass(
      {.on = *now,
       .attached = dataplane::pinned_cgroup(options.pin_dir) != 0,
       .pin_dir = options.pin_dir == Options{}.pin_dir ? "" : options.pin_dir},
      streams.painter);
  return kExitFine;
}

}  // namespace

double now_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string admin_socket(const Options& options) {
  return options.state_dir + "/admin.sock";
}

int fail(const Error& error, const Streams& streams) {
  streams.error << "sidetrackctl: " << printable(error.message) << "\n";
  if (error.code == ErrorCode::kIo) {
    return kExitUnreachable;
  }
  return error.code == ErrorCode::kInvalid ? kExitUsage : kExitFindings;
}

int show_list(const json& answer, const char* key, const Options& options, const Streams& streams,
              const Renderer& render) {
  const bool is_table = options.format == Format::kTable;
  if (!is_table) {
    streams.out << serialise(answer, options.format);
  }
  const int code =
      list_of(answer, key).empty() ? check_namespace(answer, options, streams) : kExitFine;
  if (is_table && code == kExitFine) {
    streams.out << render(answer);
  }
  return code;
}

int check_namespace(const json& answer, const Options& options, const Streams& streams) {
  if (options.namespace_name.empty()) {
    return kExitFine;
  }
  const auto reply =
      answer.contains("pods")
          ? Result<json>(answer)
          : Client(admin_socket(options)).get(pods_target(options.namespace_name), "pods");
  if (!reply) {
    return fail(reply.error(), streams);
  }
  return list_of(*reply, "pods").empty()
             ? fail(
                   make_error(ErrorCode::kNotFound,
                              "no pod of namespace " + options.namespace_name + " is on this node"),
                   streams)
             : kExitFine;
}

int run_command(const Options& options, const Streams& streams) {
  using Command = int (*)(const Options&, const Streams&);
  static const std::map<std::string, Command> kCommands = {
      {"status", run_status},   {"pods", run_pods},         {"policy", run_policy},
      {"explain", run_explain}, {"flows", run_flows},       {"bypass", run_bypass},
      {"doctor", run_doctor},   {"counters", run_counters}, {"workloads", run_workloads},
  };
  return kCommands.at(options.command)(options, streams);
}

}  // namespace sidetrack::ctl
