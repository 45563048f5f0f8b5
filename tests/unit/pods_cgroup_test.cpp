// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

#include "agent/pods/pod_cgroup.h"
#include "agent/pods/processes.h"

namespace sidetrack::pods {
namespace {

using namespace std::string_literals;

constexpr const char* kUid = "1f2e3d4c-0001-4aaa-8bbb-00c0ffee0001";
constexpr const char* kId = "4c1d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";

struct Row {
  const char* what;
  std::string path;
  std::string uid;  // empty: no pod's
  std::string container;
};

class PodCgroupPath : public testing::TestWithParam<Row> {};

TEST_P(PodCgroupPath, is_read) {
  const Row& row = GetParam();
  const auto found = parse_pod_cgroup(row.path);
  ASSERT_EQ(found.has_value(), !row.uid.empty()) << row.what;
  if (found) {
    EXPECT_EQ(*found, (PodCgroup{.pod_uid = row.uid, .container_id = row.container})) << row.what;
  }
}

const std::string kSlices =
    "/kubepods.slice/kubepods-besteffort.slice/"s
    "kubepods-besteffort-pod1f2e3d4c_0001_4aaa_8bbb_00c0ffee0001.slice";
const std::string kGuaranteed =
    "/kubepods.slice/kubepods-pod1f2e3d4c_0001_4aaa_8bbb_00c0ffee0001.slice";

INSTANTIATE_TEST_SUITE_P(
    Forms, PodCgroupPath,
    testing::Values(
        Row{"cgroupfs, best effort", "/kubepods/besteffort/pod"s + kUid + "/" + kId, kUid, kId},
        Row{"cgroupfs, burstable", "/kubepods/burstable/pod"s + kUid + "/" + kId, kUid, kId},
        Row{"cgroupfs, guaranteed", "/kubepods/pod"s + kUid + "/" + kId, kUid, kId},
        Row{"cgroupfs, the pod itself", "/kubepods/pod"s + kUid, kUid, ""},
        Row{"systemd, containerd", kSlices + "/cri-containerd-" + kId + ".scope", kUid, kId},
        Row{"systemd, CRI-O", kSlices + "/crio-" + kId + ".scope", kUid, kId},
        Row{"systemd, CRI-O's monitor", kSlices + "/crio-conmon-" + kId + ".scope", kUid, kId},
        Row{"systemd, docker", kGuaranteed + "/docker-" + kId + ".scope", kUid, kId},
        Row{"systemd, the pod itself", kGuaranteed, kUid, ""},
        Row{"systemd names in a runtime without systemd",
            "/system.slice/containerd.service/kubepods-pod1f2e3d4c_0001_4aaa_8bbb_00c0ffee0001."
            "slice:cri-containerd:"s +
                kId,
            kUid, kId},
        Row{"below a kubelet in a container",
            "/docker/abc/kubelet/kubepods/pod"s + kUid + "/" + kId, kUid, kId},
        Row{"a cgroup of its own within the container",
            "/kubepods/pod"s + kUid + "/" + kId + "/init.scope", kUid, kId},
        Row{"seen from a cgroup namespace", "/../../pod"s + kUid + "/" + kId, kUid, kId},
        Row{"a static pod", "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/"s + kId,
            "0123456789abcdef0123456789abcdef", kId},
        Row{"a service", "/system.slice/podman.service", "", ""},
        Row{"a podman container", "/machine.slice/libpod-"s + kId + ".scope", "", ""},
        Row{"a slice of another's", "/user.slice/user-pod1.slice", "", ""},
        Row{"the root", "/", "", ""}, Row{"nothing", "", "", ""},
        Row{"a uid too short", "/kubepods/pod1f2e3d4c/"s + kId, "", ""},
        Row{"a uid with other letters", "/kubepods/pod1f2e3d4c-0001-4aaa-8bbb-00c0ffeeZZZZ", "",
            ""}));

TEST(ProcessCgroups, of_a_hybrid_node_name_the_pod_in_every_line) {
  const std::string path = "/kubepods/pod"s + kUid + "/" + kId;
  const auto found = parse_process_cgroups("5:memory:" + path + "\n1:name=systemd:" + path +
                                           "\n0::" + path + "\n");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->pod_uid, kUid);
}

TEST(ProcessCgroups, without_a_path_in_cgroup2_are_found_in_version_1) {
  const auto found =
      parse_process_cgroups("5:memory:/kubepods/pod"s + kUid + "/" + kId + "\n0::/\n");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->container_id, kId);
}

TEST(ProcessCgroups, of_other_processes_name_no_pod) {
  EXPECT_FALSE(parse_process_cgroups("0::/init.scope\n").has_value());
  EXPECT_FALSE(parse_process_cgroups("").has_value());
  EXPECT_FALSE(parse_process_cgroups("garbage\n:\n::\n").has_value());
}

TEST(Sandbox, of_gvisor_is_known_by_its_program) {
  EXPECT_EQ(sandbox_of("runsc-sandbox\0--root=/run/runsc\0boot"s), "gvisor");
  EXPECT_EQ(sandbox_of("/usr/local/bin/runsc-gofer\0"s), "gvisor");
}

TEST(Sandbox, of_kata_is_known_by_where_its_sockets_are) {
  EXPECT_EQ(
      sandbox_of("/usr/bin/qemu-system-x86_64\0-name\0sandbox-1\0-qmp\0unix:path=/run/vc/vm/1/q"s),
      "kata");
  EXPECT_EQ(sandbox_of("/opt/kata/bin/cloud-hypervisor\0--api-socket\0/run/vc/vm/1/clh.sock"s),
            "kata");
}

TEST(Sandbox, is_not_what_runs_a_virtual_machine_in_an_ordinary_container) {
  EXPECT_EQ(sandbox_of("/usr/bin/qemu-system-x86_64\0-name\0guest=vm1"s), "");
  EXPECT_EQ(sandbox_of("nginx: worker"s), "");
  EXPECT_EQ(sandbox_of(""), "");
}

TEST(Sandbox, own_process_is_its_pause_program) {
  EXPECT_TRUE(is_pause("/pause\0"s));
  EXPECT_FALSE(is_pause("/pause\0now\0"s));
  EXPECT_FALSE(is_pause("/app/pause\0"s));
}

TEST(Processes, say_when_they_were_started) {
  const std::string stat =
      "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 7 0 360050 1000 20 1";
  using std::chrono::milliseconds;
  const milliseconds never{0};
  EXPECT_EQ(start_of(stat, 100, never)->time_since_epoch(), milliseconds(3'600'500));
  EXPECT_FALSE(start_of("42 (a) S 1", 100, never).has_value());
  EXPECT_FALSE(start_of("", 100, never).has_value());
}

TEST(Processes, started_earlier_by_our_clock_if_the_machine_was_suspended) {
  const std::string stat = "42 (a) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 7 0 360050 1000";
  EXPECT_EQ(start_of(stat, 100, std::chrono::hours(1))->time_since_epoch(),
            std::chrono::milliseconds(500));
}

TEST(Processes, of_this_machine_started_before_now) {
  std::ifstream file("/proc/self/stat");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto started = start_of(text, sysconf(_SC_CLK_TCK), suspended_since_boot());
  ASSERT_TRUE(started.has_value());
  EXPECT_LT(*started, std::chrono::steady_clock::now() + std::chrono::seconds(1));
  EXPECT_GT(*started, std::chrono::steady_clock::now() - std::chrono::minutes(10));
}

TEST(Sandbox, outside_of_a_pods_cgroup_is_known_by_its_program_alone) {
  EXPECT_EQ(outside_sandbox_of("/opt/kata/bin/qemu-system-x86_64\0-name\0sandbox-1"s), "kata");
  EXPECT_EQ(outside_sandbox_of("/firecracker\0--id\0abc"s), "kata");
  EXPECT_EQ(outside_sandbox_of("cloud-hypervisor"), "kata");
  EXPECT_EQ(outside_sandbox_of("/usr/bin/containerd-shim-kata-v2\0-namespace"s), "kata");
  EXPECT_EQ(outside_sandbox_of("runsc-sandbox\0boot"s), "gvisor");
  EXPECT_EQ(outside_sandbox_of("/usr/bin/containerd-shim-runc-v2\0-namespace"s), "");
  EXPECT_EQ(outside_sandbox_of("/usr/sbin/sshd\0/run/vc/"s), "");
}

}  // namespace
}  // namespace sidetrack::pods
