// SPDX-License-Identifier: Apache-2.0
#include "agent/main/leave.h"

#include <fmt/format.h>

#include <chrono>

#include <nlohmann/json.hpp>

#include "agent/ctl/client.h"
#include "agent/dataplane/pinned.h"
#include "agent/kube/daemonset.h"
#include "agent/main/uninstall.h"
#include "sidetrack/cli/say.h"

namespace sidetrack::agent {
namespace {

constexpr std::chrono::milliseconds kPatience{2000};  // with the agent
constexpr kube::Patience kPatienceWithApi{.answer = std::chrono::milliseconds(4000),
                                          .refusal = std::chrono::milliseconds(12'000)};

Result<bool> agent_answers(const Options& options) {
  const ctl::Client client(options.state_dir + "/admin.sock", kPatience);
  const auto answer = client.get("/v1/counters", "counters");
  if (!answer && answer.error().code == ErrorCode::kInvalid) {
    return answer.error();  // it was not asked
  }
  return answer || answer.error().code != ErrorCode::kIo;
}

Result<void> keep(const std::string& why) {
  cli::say(fmt::format("nothing was changed: {}\n", why));
  return {};
}

}  // namespace

Result<void> leave(const Options& options) {
  if (options.daemonset.empty() || options.namespace_name.empty()) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("--{} is missing: whether our DaemonSet is gone is the question",
                                  options.daemonset.empty() ? "daemonset" : "namespace"));
  }
  const auto answers = agent_answers(options);
  ST_TRY(answers);
  if (*answers) {
    return keep("the agent answers; it takes everything back itself if it was the last one");
  }
  auto config = kube::load_config(options.kubeconfig);
  ST_TRY(config);
  const auto existence =
      kube::ask_daemonset(*config, options.namespace_name, options.daemonset, kPatienceWithApi);
  ST_TRY(existence);
  const std::string name = fmt::format("{}/{}", options.namespace_name, options.daemonset);
  switch (*existence) {
    case kube::Existence::kExists:
      return keep("DaemonSet " + name + " is there, another agent follows");
    case kube::Existence::kNoRight:
    case kube::Existence::kUnknown:
      return make_error(ErrorCode::kIo,
                        fmt::format("the API server at {} does not say whether DaemonSet {} is "
                                    "there: nothing was changed",
                                    config->server, name));
    case kube::Existence::kGone:
      cli::say(fmt::format("no agent answers, and DaemonSet {} is gone\n", name));
      break;
    case kube::Existence::kNoAccount:
      cli::say(fmt::format(
          "no agent answers, and the API server at {} does not know the account of {} any more\n",
          config->server, name));
      break;
  }
  const auto stopped =
      dataplane::stop_redirecting(options.pin_dir, dataplane::Beside::kAgentThatHangs);
  const auto retracted = retract_plugin(options);  // in any case: the node must start pods
  return stopped ? retracted : stopped;
}

}  // namespace sidetrack::agent
