// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/doctor.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <optional>
#include <ostream>

#include <nlohmann/json.hpp>

#include "agent/ctl/client.h"
#include "agent/ctl/commands.h"
#include "agent/ctl/hooks.h"
#include "agent/ctl/render.h"
#include "agent/dataplane/dataplane.h"
#include "agent/dataplane/pinned.h"

namespace sidetrack::ctl {
namespace {

using nlohmann::json;

Host this_host() {
  utsname names{};
  ::uname(&names);
  return Host{.root = "", .kernel_release = names.release, .is_root = ::geteuid() == 0};
}

// The agent's status, or nothing and a finding.
std::optional<json> ask_agent(const Client& client, const std::string& pin_dir,
                              Findings& findings) {
  const auto status = client.get("/v1/status", "agent");
  if (!status) {
    const Own own = pinned_programs(pin_dir).empty() ? Own::kMissing : Own::kFound;
    check_no_agent(status.error(), own, findings);
    return std::nullopt;
  }
  const auto pods = client.get("/v1/pods", "pods");
  check_status(*status, pods ? *pods : json::object(), findings);
  return *status;
}

void check_hooks(const Host& host, const std::string& pin_dir, const std::optional<json>& status,
                 Findings& findings) {
  auto ours = pinned_programs(pin_dir);
  std::string cgroup = cgroup2_dir(host);
  if (status) {
    for (const auto& program : list_of(*status, "programs")) {
      ours.insert(static_cast<std::uint32_t>(count_of(program, "program_id")));
    }
    if (const auto named = text_of(list_of(*status, "agent"), "cgroup"); !named.empty()) {
      cgroup = named;
    }
  } else if (!ours.empty()) {
    findings.push_back({Severity::kOk, "programs",
                        std::to_string(ours.size()) + " programs are pinned at " + pin_dir +
                            ", those of the fast path included",
                        ""});
    if (const auto attached_to = dataplane::pinned_cgroup(pin_dir);
        attached_to != 0 && !cgroup.empty()) {
      // Where it cannot be found, what the root of the hierarchy says is better than nothing.
      cgroup = dataplane::cgroup_folder(attached_to, cgroup).value_or(cgroup);
    }
  }
  if (cgroup.empty()) {
    return;  // check_mounts() says so
  }
  if (const auto others = dataplane::other_installations(cgroup, pin_dir)) {
    const Own own = status || !ours.empty() ? Own::kFound : Own::kMissing;
    check_others(*others, own, pin_dir, findings);
  }
  const auto programs = hooked_programs(cgroup);
  if (!programs) {
    findings.push_back(
        {Severity::kWarning, "programs", programs.error().message, "run doctor as root"});
    return;
  }
  check_foreign(*programs, ours, findings);
}

void check_bypass(const std::string& pin_dir, const std::optional<json>& status,
                  Findings& findings) {
  const auto cell = dataplane::bypass(pin_dir);
  const bool on = cell ? *cell : status && flag_of(*status, "bypass");
  if (on) {
    findings.push_back({Severity::kWarning, "node", "bypass is on: all new connections go direct",
                        "sidetrackctl bypass off"});
  }
}

}  // namespace

int run_doctor(const Options& options, const Streams& streams) {
  const auto host = this_host();
  Findings findings;
  if (!host.is_root) {
    findings.push_back({Severity::kWarning, "doctor",
                        "not run as root: the agent, the pinned maps and the programs on the hooks "
                        "cannot be looked at",
                        "sudo sidetrackctl doctor"});
  }
  check_kernel(host, findings);
  std::string pin_dir = options.pin_dir;
  std::optional<json> status;
  if (host.is_root) {
    status = ask_agent(Client(admin_socket(options)), pin_dir, findings);
    if (status && !text_of(list_of(*status, "agent"), "pin_dir").empty()) {
      pin_dir = text_of(list_of(*status, "agent"), "pin_dir");
    }
    check_hooks(host, pin_dir, status, findings);
    check_bypass(pin_dir, status, findings);
  }
  check_mounts(host, pin_dir, findings);
  check_sysctls(host, findings);
  streams.out << (options.format == Format::kTable ? render_findings(findings, streams.painter)
                                                   : serialise(to_json(findings), options.format));
  return is_healthy(findings) ? kExitFine : kExitFindings;
}

}  // namespace sidetrack::ctl
