// SPDX-License-Identifier: Apache-2.0
// What the parts of Dataplane share. Internal to agent/dataplane.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.h"
#include "agent/dataplane/policies.h"
#include "sidetrack/unique_fd.h"
#include "sidetrack_bpf.skel.h"

namespace sidetrack::dataplane {

// A cgroup2 folder and its id. The folder of an engine that an earlier agent attached to is not
// known until that engine says hello: empty.
struct CgroupPlace {
  std::string dir;
  std::uint64_t id = 0;
};

// Where a program belongs.
struct Hook {
  const char* program;
  const char* name;  // as in the SEC() line
  bpf_attach_type attach_type;
  bool engine;             // on the engines' cgroups instead of the common one
  bool fast_path = false;  // only while sockets are adopted
};
[[nodiscard]] const std::vector<Hook>& hooks();

struct SkeletonDeleter {
  void operator()(sidetrack_bpf* skeleton) const { sidetrack_bpf::destroy(skeleton); }
};
struct RingDeleter {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

struct LinkDeleter {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};

struct Dataplane::Impl {
  UniqueFd pin_lock;  // given back last
  Options options;
  CgroupPlace cgroup;
  std::vector<CgroupPlace> engines;
  std::unique_ptr<sidetrack_bpf, SkeletonDeleter> skeleton;
  std::unique_ptr<ring_buffer, RingDeleter> ring;
  PolicyStore policies;
  void* engine_memory = nullptr;  // kEngineBytes
  std::map<std::string, std::uint32_t> namespace_slots;
  const std::function<void(const st_flow&)>* on_flow = nullptr;  // set while drain() runs
  const std::function<void(const st_event&)>* on_event = nullptr;
  std::size_t drain_left = 0;  // records that drain() may still read
  std::unique_ptr<bpf_link, LinkDeleter> nudge_link;
  int nudge_fd = -1;
  std::string fast_path_problem;             // empty = its programs are loaded
  std::string look_problem;                  // empty = st_look is
  bool holds_fins = false;                   // st_hold_fin is to be attached
  bool has_fentry = false;                   // the fentry sentinel is loaded, too
  st_fast_generation* generation = nullptr;  // mapped, kPageBytes

  [[nodiscard]] int map_fd(const char* name) const;
  struct Parts {
    bool fast_path = true;  // with the programs that only the fast path needs
    bool looks = true;      // with st_look
  };
  [[nodiscard]] Result<void> load(const Parts& parts);
  // The most that this kernel takes: it can redirect without.
  [[nodiscard]] Result<void> load_what_loads();
  // What the older programs knew of the fast path's policy holds no longer.
  void raise_generation();
  [[nodiscard]] Result<void> open_fast_path();
  void close_fast_path();
  [[nodiscard]] Result<void> attach(const Hook& hook, const CgroupPlace& place);
  [[nodiscard]] ProgramState inspect(const Hook& hook, const CgroupPlace& place) const;
  // Calls `visit(hook, place)` for every place that a hook has, in the order of hooks().
  void for_each_place(const std::function<void(const Hook&, const CgroupPlace&)>& visit) const;
  // What an earlier agent left: `engines` from the links that are pinned.
  void find_engines();
  // Whether the engine's cgroup is still there.
  [[nodiscard]] bool lives(const CgroupPlace& engine) const;
  // Engines whose cgroup is gone, and their links.
  [[nodiscard]] Result<void> forget_dead_engines();
  [[nodiscard]] Result<void> detach_engine(std::uint64_t cgroup_id);
  // `engines` into the cells of a configuration; into st_config.
  void fill_engines(st_config& config) const;
  [[nodiscard]] Result<void> write_engines() const;
  [[nodiscard]] Result<void> read_namespaces();
  [[nodiscard]] Result<void> open_rings();
  [[nodiscard]] Result<void> map_engines();

  static constexpr std::size_t kPageBytes = 4096;
  static constexpr std::size_t kEngineBytes = sizeof(st_engine) * ST_MAX_ENGINES;
};

// Which programs of the fast path are loaded: none, or those that this kernel can run.
void choose_fast_programs(sidetrack_bpf* skeleton, bool fast_path);
// The same of the sentinels. Returns whether the fentry one is among them.
bool choose_sentinel_programs(sidetrack_bpf* skeleton, bool fast_path);
// Ends what the pins of the fast path keep alive (links, the program in the SOCKHASH).
[[nodiscard]] Result<void> stop_fast_path(const std::string& pin_dir);

// PIN_DIR/v1: the layout of maps and links has a version of its own.
[[nodiscard]] std::string version_dir(const std::string& pin_dir);
[[nodiscard]] std::string links_dir(const std::string& pin_dir);
[[nodiscard]] std::string link_path(const Options& options, const Hook& hook,
                                    std::uint64_t cgroup_id);
// Ends the link that is pinned at `path`, at once, and its pin. Nothing there is well.
[[nodiscard]] Result<void> end_link(const std::string& path);
// The cgroup that the link pinned at `path` is attached to; 0 = none any more.
[[nodiscard]] std::uint64_t linked_cgroup(const std::string& path);
// Makes the pin folders (0700), mounting bpffs on /sys/fs/bpf if nothing is there yet.
[[nodiscard]] Result<void> make_pin_dirs(const std::string& pin_dir);

}  // namespace sidetrack::dataplane
