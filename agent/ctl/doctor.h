// SPDX-License-Identifier: Apache-2.0
// The checks of `doctor`, in two halves: what this process sees of the node itself, and what the
// agent's status says.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/ctl/finding.h"
#include "agent/dataplane/others.h"

namespace sidetrack::ctl {

// A BPF program on one of our hooks.
struct HookedProgram {
  std::string hook;  // "cgroup/connect4"
  std::uint32_t id = 0;
  std::string name;
};

// Where the node's files are: "" in earnest, a made-up tree in tests.
struct Host {
  std::string root;
  std::string kernel_release;
  bool is_root = true;
};

// Kernel release, BTF, cgroup2, bpffs, sysctls. Reads files only.
void check_kernel(const Host& host, Findings& findings);
void check_mounts(const Host& host, const std::string& pin_dir, Findings& findings);
void check_sysctls(const Host& host, Findings& findings);
// Where the whole of cgroup2 is mounted; "" if there is none.
[[nodiscard]] std::string cgroup2_dir(const Host& host);

// The agent's status (docs/api.md, /v1/status) and pods.
void check_status(const nlohmann::json& status, const nlohmann::json& pods, Findings& findings);

// Whether there is an agent, or pins of one, where doctor was told to look.
enum class Own : std::uint8_t { kFound, kMissing };
// No agent answers: what goes on without it.
void check_no_agent(const Error& error, Own own, Findings& findings);
// Other installations of Sidetrack on the agent's cgroup. With kMissing they are no others: the one
// that is meant may be among them, under another folder than `pin_dir`, that doctor was told.
void check_others(const std::vector<dataplane::OtherInstallation>& others, Own own,
                  const std::string& pin_dir, Findings& findings);

// Names the programs that are not ours, but for those of another Sidetrack: check_others() does.
void check_foreign(const std::vector<HookedProgram>& programs, const std::set<std::uint32_t>& ours,
                   Findings& findings);

}  // namespace sidetrack::ctl
