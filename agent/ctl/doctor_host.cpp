// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "agent/ctl/doctor.h"
#include "agent/ctl/options.h"
#include "agent/dataplane/dataplane.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/files/mounts.h"

namespace sidetrack::ctl {
namespace {

constexpr const char* kBpfDir = "/sys/fs/bpf";

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

// Kernel options that nothing works without; only checked where the configuration is a plain file.
void check_config(const Host& host, Findings& findings) {
  const auto path = "/boot/config-" + host.kernel_release;
  const auto config = "\n" + read_all(host.root + path);
  if (config.size() == 1) {
    return;
  }
  for (const char* option :
       {"CONFIG_BPF_SYSCALL", "CONFIG_CGROUP_BPF", "CONFIG_INET", "CONFIG_NET_NS"}) {
    if (config.find(fmt::format("\n{}=y", option)) == std::string::npos) {
      findings.push_back({Severity::kError, "kernel",
                          fmt::format("{} is not set in {}", option, path),
                          "boot a kernel that has it"});
    }
  }
}

std::string mountinfo_of(const Host& host) {
  return read_all(host.root + "/proc/self/mountinfo");
}

bool is_below(const std::string& path, const std::string& folder) {
  return path == folder || (path.starts_with(folder) && path[folder.size()] == '/');
}

void check_cgroup2(const Host& host, const std::string& mountinfo, Findings& findings) {
  const auto dir = cgroup::find_hierarchy(mountinfo);
  if (!dir) {
    findings.push_back({Severity::kError, "node", dir.error().message,
                        "the programs need it to be attached to; systemd mounts it with "
                        "systemd.unified_cgroup_hierarchy=1"});
    return;
  }
  const auto id = dataplane::cgroup_id(host.root + *dir);
  if (!id) {
    findings.push_back(
        {Severity::kWarning, "node", id.error().message, "run doctor as root on the node itself"});
  } else if (*id != ST_ROOT_CGROUP_ID) {
    findings.push_back(
        {Severity::kWarning, "node",
         fmt::format("{} is cgroup {}, not the root: this process sees a part of the tree only",
                     *dir, *id),
         "run doctor on the node itself, or give the agent's container the host's cgroup "
         "namespace"});
  } else {
    findings.push_back(
        {Severity::kOk, "node", fmt::format("cgroup2 root at {} (id {})", *dir, *id), ""});
  }
}

}  // namespace

std::string cgroup2_dir(const Host& host) {
  return cgroup::find_hierarchy(mountinfo_of(host)).value_or("");
}

void check_kernel(const Host& host, Findings& findings) {
  unsigned major = 0;
  unsigned minor = 0;
  if (std::sscanf(host.kernel_release.c_str(), "%u.%u", &major, &minor) != 2) {
    findings.push_back({Severity::kWarning, "kernel",
                        "kernel release not understood: " + host.kernel_release, ""});
  } else if (major < 5 || (major == 5 && minor < 10)) {
    findings.push_back({Severity::kError, "kernel",
                        "kernel " + host.kernel_release + " is older than 5.10",
                        "boot 5.10 or newer"});
  } else {
    findings.push_back({Severity::kOk, "kernel", "kernel " + host.kernel_release, ""});
  }
  if (exists(host.root + "/sys/kernel/btf/vmlinux")) {
    findings.push_back({Severity::kOk, "kernel", "BTF is there", ""});
  } else {
    findings.push_back(
        {Severity::kError, "kernel",
         "/sys/kernel/btf/vmlinux is missing: the programs cannot be fitted to this kernel",
         "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (and mount sysfs)"});
  }
  check_config(host, findings);
}

void check_mounts(const Host& host, const std::string& pin_dir, Findings& findings) {
  const auto mountinfo = mountinfo_of(host);
  check_cgroup2(host, mountinfo, findings);
  for (const auto& mount : files::parse_mountinfo(mountinfo)) {
    if (mount.type == "bpf" && is_below(pin_dir, mount.point)) {
      findings.push_back({Severity::kOk, "node", "bpffs at " + mount.point, ""});
      return;
    }
  }
  findings.push_back({Severity::kError, "node",
                      "no bpffs holds " + pin_dir + ": nothing can stay pinned there",
                      is_below(pin_dir, kBpfDir)
                          ? fmt::format("mount -t bpf bpf {}", kBpfDir)
                          : fmt::format("if that is the agent's --pin-dir, it has to lie below a "
                                        "mounted bpffs, as {} does; else say which one is",
                                        Options{}.pin_dir)});
}

void check_sysctls(const Host& host, Findings& findings) {
  const auto sysctl = [&](const char* name) { return read_all(host.root + "/proc/sys/" + name); };
  if (sysctl("kernel/unprivileged_bpf_disabled").starts_with("0")) {
    findings.push_back({Severity::kWarning, "node",
                        "every process may load BPF programs (unprivileged_bpf_disabled is 0)",
                        "sysctl -w kernel.unprivileged_bpf_disabled=2"});
  }
  unsigned low = 0;
  unsigned high = 0;
  if (std::sscanf(sysctl("net/ipv4/ip_local_port_range").c_str(), "%u %u", &low, &high) == 2 &&
      high < low + 20000) {
    findings.push_back({Severity::kHint, "node",
                        fmt::format("only {} local ports ({}-{})", high - low + 1, low, high),
                        "pods with many connections may run out: set net.ipv4.ip_local_port_range "
                        "to 16000 60999 (a sysctl of each network namespace), or any range without "
                        "--listener-ports, which are 15900-15999 by default"});
  }
  if (sysctl("net/ipv4/tcp_tw_reuse").starts_with("0")) {
    findings.push_back({Severity::kHint, "node",
                        "closed connections keep their local port for a minute (tcp_tw_reuse is 0)",
                        "net.ipv4.tcp_tw_reuse=1 lets new outgoing connections take them (a sysctl "
                        "of each network namespace)"});
  }
}

}  // namespace sidetrack::ctl
