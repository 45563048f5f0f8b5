// SPDX-License-Identifier: Apache-2.0
#include "cni/plugin/plugin.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>
#include <variant>

#include "cni/plugin/answer.h"
#include "cni/versions.h"

namespace sidetrack::cni::plugin {
namespace {

using std::chrono::milliseconds;

// For stdin, before the configuration is known.
constexpr milliseconds kInputPatience{2000};
// DEL in all its parts stays far below a second.
constexpr milliseconds kDelInputPatience{400};
constexpr milliseconds kDelPatience{200};
constexpr milliseconds kRetryPause{50};

constexpr const char* kSeeInstall =
    "restart the agent of this node: it installs the plugin of its build and writes the entry of "
    "sidetrack-cni anew; `sidetrackctl doctor` in its container says what is wrong";
constexpr const char* kSeeRuntime =
    "the container runtime's call is wrong: its log on the node says more "
    "(`journalctl -u containerd` or `-u crio`), `crictl info` shows its settings";

// What became of a question to the agent. No error: it answered `ok`.
struct Reply {
  std::optional<Failure> failure;
  bool answered = false;
};

class Invocation {
 public:
  Invocation(Environment environment, Clock::time_point started)
      : environment_(std::move(environment)), started_(started) {}

  Outcome serve(Command command, int input_fd);
  Outcome del(int input_fd);
  [[nodiscard]] Outcome fail(Failure failure) const;

 private:
  [[nodiscard]] std::optional<Outcome> prepare(Command command);
  Outcome add();
  Outcome enrol();
  Outcome check();
  Outcome gc();
  Outcome status();
  Reply ask_agent(const wire::cni::Message& request, UniqueFd netns, Deadline deadline) const;
  Reply tell_of_pod(const wire::cni::Add& request, const UniqueFd& netns, bool patient) const;
  [[nodiscard]] bool is_enrolled(const Pod& pod) const;
  [[nodiscard]] std::string why_denied_no_more(const Reply& reply) const;
  [[nodiscard]] Outcome pass(std::string output, std::string note = {}) const;
  [[nodiscard]] Deadline deadline() const { return started_ + milliseconds(config_.timeout_ms); }

  Environment environment_;
  Clock::time_point started_;
  std::string input_;
  json::Object object_;
  std::string version_;  // "" until it is known
  Config config_;
};

Outcome Invocation::fail(Failure failure) const {
  return {.exit_status = 1,
          .output = error_text(version_, failure),
          .note = environment_.command + (environment_.command.empty() ? "" : " ") +
                  "failed with code " + std::to_string(failure.code) + ": " + failure.message,
          .log_file = config_.log_file};
}

Outcome Invocation::pass(std::string output, std::string note) const {
  return {.exit_status = 0,
          .output = std::move(output),
          .note = std::move(note),
          .log_file = config_.log_file};
}

// Reads version and configuration; an outcome if that ends it.
std::optional<Outcome> Invocation::prepare(Command command) {
  auto object = json::read_object(input_);
  if (!object) {
    return fail({kUndecodable, "stdin: " + object.error().message, kSeeRuntime});
  }
  object_ = std::move(*object);
  const std::string version = json::string_member(input_, object_, "cniVersion").value_or("");
  if (command == Command::kVersion) {
    return pass(version_text(version));
  }
  const std::string from = command == Command::kCheck                               ? "0.4.0"
                           : command == Command::kGc || command == Command::kStatus ? "1.1.0"
                                                                                    : "0.3.0";
  if (!is_supported(version) || !is_at_least(version, from)) {
    return fail({kIncompatibleVersion,
                 "the cniVersion of the network configuration is '" + version + "'; " +
                     environment_.command + " needs " + from + " to " +
                     std::string(kVersions.back()),
                 "change cniVersion in the conflist, or take sidetrack-cni out of it"});
  }
  version_ = version;
  auto config = read_config(input_, object_);
  if (!config) {
    return fail({kBadConfiguration, "in the conflist, " + config.error().message, kSeeInstall});
  }
  config_ = std::move(*config);
  return std::nullopt;
}

Outcome Invocation::serve(Command command, int input_fd) {
  auto input = read_all(input_fd, kMaxInputBytes, started_ + kInputPatience);
  if (!input) {
    return fail({kInputOutput, "stdin: " + input.error().message, kSeeRuntime});
  }
  input_ = std::move(*input);
  if (auto done = prepare(command)) {
    return std::move(*done);
  }
  switch (command) {
    case Command::kAdd:
      return add();
    case Command::kCheck:
      return check();
    case Command::kGc:
      return gc();
    case Command::kStatus:
      return status();
    case Command::kDel:
    case Command::kVersion:
      break;
  }
  return pass("");
}

Reply Invocation::ask_agent(const wire::cni::Message& request, UniqueFd netns,
                            Deadline deadline) const {
  const auto answer = ask(config_.socket, request, std::move(netns), deadline);
  if (!answer) {
    const std::string own =
        config_.own_namespace.empty() ? "sidetrack-system" : config_.own_namespace;
    return {.failure = Failure{wire::cni::kTryAgainLater,
                               "the agent of this node does not answer on " + config_.socket +
                                   ": " + answer.error().message,
                               "see `kubectl -n " + own +
                                   " get pods -o wide` for the agent of the node, run "
                                   "`sidetrackctl doctor` in its container; where Sidetrack was "
                                   "uninstalled, take sidetrack-cni out of the conflist: "
                                   "`sidetrack-agent uninstall --cni-conf-dir DIR` on the node"}};
  }
  if (const auto* const failed = std::get_if<wire::cni::Failed>(&*answer)) {
    return {.failure = Failure{failed->code, failed->message, failed->details}, .answered = true};
  }
  if (!std::holds_alternative<wire::cni::Ok>(*answer)) {
    return {
        .failure = Failure{wire::cni::kProtocolError,
                           "the agent answered with " + std::string(wire::cni::kind_of(*answer)),
                           kSeeInstall},
        .answered = true};
  }
  return {.failure = std::nullopt, .answered = true};
}

// As far as can be known without the agent. Nobody's system pods, and none of ours: the agent has
// to be able to start.
bool Invocation::is_enrolled(const Pod& pod) const {
  return pod.namespace_name != "kube-system" && pod.namespace_name != config_.own_namespace &&
         lists(config_.enrolled_namespaces, pod.namespace_name);
}

// An agent that is gone for good must not keep its node from starting pods for ever. In words for
// the note; empty: `deny` holds.
std::string Invocation::why_denied_no_more(const Reply& reply) const {
  const auto silence = untouched_for(config_.enrolled_namespaces).count();
  if (reply.answered || config_.deny_for_seconds == 0 || silence <= config_.deny_for_seconds) {
    return "";
  }
  return "; it is not refused (onAgentDown: deny), for no agent has been there for " +
         std::to_string(silence) + " s, more than denyForSeconds (" +
         std::to_string(config_.deny_for_seconds) + "): " + reply.failure->details;
}

// A patient one asks until an agent answers, so that no pod slips through while the agent is
// restarted. Nothing tells when it listens again.
Reply Invocation::tell_of_pod(const wire::cni::Add& request, const UniqueFd& netns,
                              bool patient) const {
  for (;;) {
    Reply reply =
        ask_agent(request, UniqueFd(::fcntl(netns.get(), F_DUPFD_CLOEXEC, 0)), deadline());
    if (reply.answered || !patient || Clock::now() + kRetryPause >= deadline()) {
      return reply;
    }
    std::this_thread::sleep_for(kRetryPause);
  }
}

// One line per pod is enough: the other commands do not speak of it.
Outcome Invocation::add() {
  Outcome outcome = enrol();
  if (!config_.misspelt.empty()) {
    outcome.note +=
        (outcome.note.empty() ? "ADD: " : "; ") + ("in the conflist, " + config_.misspelt);
  }
  return outcome;
}

Outcome Invocation::enrol() {
  auto previous = read_previous_result(input_, object_, version_);
  if (!previous) {
    return fail({kBadConfiguration,
                 previous.error().message + ": sidetrack-cni has to stand behind the plugin that "
                                            "makes the pod's network",
                 "put it last in the list of plugins"});
  }
  auto attachment = read_attachment(environment_);
  if (!attachment) {
    return fail({kBadEnvironment, attachment.error().message, kSeeRuntime});
  }
  Pod pod = read_pod(environment_.args);
  if (!pod.known()) {
    return pass(std::move(*previous));
  }
  const std::string who = "pod " + pod.namespace_name + "/" + pod.name;
  auto netns = open_netns(environment_.netns);
  if (!netns) {
    return fail({kBadNetns, who + ": " + netns.error().message, kSeeRuntime});
  }
  const bool enrolled = is_enrolled(pod);
  const Reply reply = tell_of_pod(wire::cni::Add{.attachment = std::move(*attachment),
                                                 .pod_namespace = pod.namespace_name,
                                                 .pod_name = pod.name,
                                                 .pod_uid = pod.uid,
                                                 .addresses = read_addresses(*previous)},
                                  *netns, enrolled);
  if (!reply.failure) {
    return pass(std::move(*previous));
  }
  const bool denies = config_.deny && enrolled;
  const std::string no_more = denies ? why_denied_no_more(reply) : "";
  if (!denies || !no_more.empty()) {
    return pass(std::move(*previous),
                who + " starts before it is enrolled: " + reply.failure->message + no_more);
  }
  return fail(
      {reply.failure->code,
       who + " must not start before it is enrolled (onAgentDown: deny): " + reply.failure->message,
       reply.failure->details});
}

Outcome Invocation::check() {
  auto attachment = read_attachment(environment_);
  if (!attachment) {
    return fail({kBadEnvironment, attachment.error().message, kSeeRuntime});
  }
  Pod pod = read_pod(environment_.args);
  if (!pod.known()) {
    return pass("");
  }
  const std::string who = "pod " + pod.namespace_name + "/" + pod.name;
  const Reply reply = ask_agent(wire::cni::Check{.attachment = std::move(*attachment),
                                                 .pod_namespace = pod.namespace_name,
                                                 .pod_name = pod.name,
                                                 .pod_uid = pod.uid},
                                UniqueFd(), deadline());
  if (!reply.failure) {
    return pass("");
  }
  if (!reply.answered && !(config_.deny && is_enrolled(pod) && why_denied_no_more(reply).empty())) {
    return pass("", who + " was not checked: " + reply.failure->message);
  }
  return fail({reply.failure->code, who + ": " + reply.failure->message, reply.failure->details});
}

Outcome Invocation::gc() {
  auto valid = read_valid_attachments(input_, object_);
  if (!valid && valid.error().code == ErrorCode::kNotFound) {
    return pass("", "GC: " + valid.error().message + ": nothing is forgotten");
  }
  if (!valid) {
    return fail({kBadConfiguration, valid.error().message, kSeeRuntime});
  }
  const Reply reply = ask_agent(wire::cni::Gc{.valid = std::move(*valid)}, UniqueFd(), deadline());
  return pass("", reply.failure ? "GC: " + reply.failure->message : "");
}

Outcome Invocation::status() {
  if (!config_.status_checks_agent) {
    return pass("");
  }
  Reply reply = ask_agent(wire::cni::Status{}, UniqueFd(), deadline());
  if (!reply.failure) {
    return pass("");
  }
  return fail({wire::cni::kNotAvailable, std::move(reply.failure->message),
               std::move(reply.failure->details)});
}

// An error would stop the runtime before it undoes what the plugins before us did. Whatever is
// wrong, the agent finds out by itself that the pod is gone.
Outcome Invocation::del(int input_fd) {
  std::string note;
  if (auto input = read_all(input_fd, kMaxInputBytes, started_ + kDelInputPatience)) {
    input_ = std::move(*input);
  }
  const auto object = json::read_object(input_);
  auto config = object ? read_config(input_, *object) : Result<Config>(object.error());
  if (config) {
    config_ = std::move(*config);
  } else {
    note = "DEL: in the conflist, " + config.error().message;
  }
  auto attachment = read_attachment(environment_);
  if (!attachment) {
    return pass("", "DEL: " + attachment.error().message);
  }
  const Deadline until = Clock::now() + std::min(kDelPatience, milliseconds(config_.timeout_ms));
  ask_agent(wire::cni::Del{.attachment = std::move(*attachment)}, UniqueFd(), until);
  return pass("", std::move(note));
}

}  // namespace

Outcome run(const Environment& environment, int input_fd, Clock::time_point started) {
  Invocation invocation(environment, started);
  const auto command = read_command(environment);
  if (!command) {
    return invocation.fail({kBadEnvironment, command.error().message, kSeeRuntime});
  }
  return *command == Command::kDel ? invocation.del(input_fd)
                                   : invocation.serve(*command, input_fd);
}

}  // namespace sidetrack::cni::plugin
