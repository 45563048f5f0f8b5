// SPDX-License-Identifier: Apache-2.0
// The kernel side in domain verbs: the only user of libbpf. Owns the pinned programs, links and
// maps of one pin folder. Not thread-safe: one thread calls it. Everything it reports is read from
// the kernel at the time of the call. Ports in host order unless named _be.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/dataplane/adopter.h"
#include "sidetrack/abi/fast.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/decide.h"
#include "sidetrack/result.h"

namespace sidetrack::dataplane {

struct Options {
  std::string pin_dir = "/sys/fs/bpf/sidetrack";
  std::string cgroup_dir;  // where the programs attach; empty = the cgroup2 root
};

struct ProgramState {
  std::string name;       // st_connect4
  std::string hook;       // cgroup/connect4
  bool attached = false;  // link -> program -> cgroup, read back
  std::uint64_t cgroup_id = 0;
  std::uint32_t program_id = 0;
  std::string detail;  // why not attached
};

struct MapFill {
  std::string name;
  std::uint64_t entries = 0;
  std::uint64_t capacity = 0;
};

// The pages of a port set that are not empty.
struct PortPage {
  std::uint32_t number = 0;  // port / ST_PORTS_PER_PAGE
  st_port_page bits{};
};
using PortPages = std::vector<PortPage>;

// A set is named by ST_PORT_SET_NONE, ST_PORT_SET_ALL or 1 + its index in PolicyContent::sets.
struct PolicyCidr {
  st_addr address{};
  std::uint8_t prefix = 0;  // 0..128, as policy::CompiledCidr
  std::uint32_t exclude_set = ST_PORT_SET_NONE;
  std::uint32_t include_set = ST_PORT_SET_NONE;
};
struct PolicyContent {
  std::vector<PortPages> sets;
  std::uint32_t exclude_set = ST_PORT_SET_NONE;
  std::uint32_t include_set = ST_PORT_SET_NONE;
  bool has_include = false;
  std::vector<PolicyCidr> cidrs;
};

struct CounterRow {
  std::string namespace_name;  // empty = not of an enrolled namespace
  st_counters counters{};
};

// How the sentinel sees calls (bpf/lib/sentinel.h). kAuto: kFentry where the kernel allows it, else
// kTracepoint.
enum class Sentinel : std::uint8_t { kOff, kAuto, kFentry, kTracepoint };

struct Explained {
  st_reason reason = ST_REASON_UNKNOWN_NETNS;
  bool observed = false;  // st_is_observed()
};

struct PairRow {
  st_pair_key key{};
  st_pair pair{};
};

class Dataplane {
 public:
  // Opens the pinned state if there is one, else makes it; loads programs, replaces those of an
  // older agent by link update. kUnsupported: this kernel cannot run it (message says what is
  // missing). kBusy: another agent has this pin folder.
  [[nodiscard]] static Result<std::unique_ptr<Dataplane>> open(const Options& options);
  ~Dataplane();
  // Whether what is pinned could be taken over by this program; changes nothing. kInvalid: it is of
  // another version.
  [[nodiscard]] static Result<void> check_pins(const std::string& pin_dir);

  // The engine that lives in this cgroup, alone: its sockets are never redirected, and it may ask
  // for original destinations. Nothing to do where that is so already. kFull: ST_ENGINE_CGROUPS are
  // in use. Returns the cgroup's id.
  [[nodiscard]] Result<std::uint64_t> attach_engine(const std::string& cgroup_dir);
  // Detaches from every other engine's cgroup, those that an earlier agent attached to included;
  // 0 = from all.
  [[nodiscard]] Result<void> keep_only_engine(std::uint64_t cgroup_id);

  // Programs whose link is gone or points elsewhere are attached again; returns the names of those
  // repaired. Engines' cgroups that no longer exist are forgotten.
  [[nodiscard]] Result<std::vector<std::string>> repair();
  // Those of engines' cgroups that no longer exist are left out.
  [[nodiscard]] std::vector<ProgramState> programs() const;
  [[nodiscard]] std::vector<MapFill> fill() const;

  // All but the engines' cgroups, which attach_engine() and keep_only_engine() set.
  [[nodiscard]] Result<void> set_config(const st_config& config);
  [[nodiscard]] Result<st_config> config() const;

  // A descriptor of st_engines to hand to an engine, which maps it (BPF_F_MMAPABLE). Owned by the
  // Dataplane.
  [[nodiscard]] int engines_fd() const;
  // The cells themselves, mapped: the kernel and the engines read and write them at the same time.
  // ST_MAX_ENGINES of them.
  [[nodiscard]] volatile st_engine* engine_cells() const;

  // Has sockops see the close of a listener of the external engine that is older than our programs;
  // where the kernel can (6.12), its cookie is then among `watched` of the engine's cell. Any
  // thread of the listener's namespace, one at a time: it waits for the lock of every TCP socket.
  // kUnsupported: this kernel does not take the program.
  [[nodiscard]] Result<void> watch_listener(std::uint64_t cookie) const;

  // Policies: content in, id out. Equal content shares one id. A released policy stays until
  // collect() finds it unused for `kGraceMs`, so that a connect() under way never sees half of it.
  [[nodiscard]] Result<std::uint32_t> acquire_policy(const std::string& fingerprint,
                                                     const PolicyContent& content);
  void collect_policies();
  // Whether the policy with this id is in the kernel as it was written, going by its row alone.
  [[nodiscard]] Result<bool> holds_policy(std::uint32_t id) const;

  // The slot of a namespace's counters, found or made. kFull: all are in use (the caller counts
  // under slot 0).
  [[nodiscard]] Result<std::uint32_t> namespace_slot(std::string_view name);
  // The other way round; empty = no namespace is counted there.
  [[nodiscard]] std::string namespace_of(std::uint32_t slot) const;

  [[nodiscard]] Result<void> upsert_pod(std::uint64_t netns_cookie, const st_pod& row);
  [[nodiscard]] Result<void> erase_pod(std::uint64_t netns_cookie);
  [[nodiscard]] Result<std::optional<st_pod>> pod(std::uint64_t netns_cookie) const;
  [[nodiscard]] Result<std::vector<std::pair<std::uint64_t, st_pod>>> pods() const;
  // All zero: none. erase_pod() takes it along.
  [[nodiscard]] Result<void> set_tuning(std::uint64_t netns_cookie, const st_tuning& tuning);
  [[nodiscard]] Result<st_tuning> tuning(std::uint64_t netns_cookie) const;
  [[nodiscard]] Result<std::optional<st_pod_state>> pod_state(std::uint64_t netns_cookie) const;

  // The pure decide() on rows read back from the kernel's maps.
  [[nodiscard]] Result<Explained> explain(std::uint64_t netns_cookie, const st_connect& connect,
                                          std::uint16_t port) const;

  [[nodiscard]] Result<std::vector<CounterRow>> counters() const;
  // Connections of clients that are open.
  [[nodiscard]] Result<std::vector<st_live>> live_sockets() const;
  // What the engine said of a client's connection that is open.
  [[nodiscard]] Result<std::optional<st_report>> report(std::uint64_t client_cookie) const;
  // Why this kernel cannot tell them; empty = it can.
  [[nodiscard]] const std::string& look_problem() const;

  // Ring buffers: drain when the descriptor is readable, and several times a second, as flow
  // records wake nobody. Callbacks run inside drain(), which ends also while more is written.
  [[nodiscard]] int ring_fd() const;
  void drain(const std::function<void(const st_flow&)>& on_flow,
             const std::function<void(const st_event&)>& on_event);

  // The fast path. Why this kernel cannot have it; empty = it can.
  [[nodiscard]] const std::string& fast_path_problem() const;
  // Takes effect at once, for open connections too.
  [[nodiscard]] Result<void> set_fast_config(const st_fast_config& config);
  // Off; the other settings stay: what waits past TCP is counted by them until it is read.
  [[nodiscard]] Result<void> disable_fast_path();
  // Changes with everything that decides what may skip TCP: rows of pods, switches, demotions,
  // marks.
  [[nodiscard]] std::uint64_t fast_generation() const;
  // Says that somebody looks after adopted readers: several times a second, once begun.
  void fast_beat();
  [[nodiscard]] bool has_fentry_sentinel() const;
  // Attached links are pinned and go on without the agent; those of an older agent are replaced.
  // Returns which one watches now. kUnsupported: not kFentry on this kernel.
  [[nodiscard]] Result<Sentinel> set_sentinel(Sentinel sentinel);
  // Whether the FIN of an adopted socket waits while its reader has bytes in both queues
  // (bpf/fin.bpf.c): to be on before any sends past TCP.
  [[nodiscard]] Result<void> hold_fins(bool on);
  // A descriptor of st_slots to hand to an engine. Owned by the Dataplane.
  [[nodiscard]] int slots_fd() const;
  // Valid as long as the Dataplane is.
  [[nodiscard]] Adopter adopter() const;
  [[nodiscard]] Result<bool> has_adopted() const;
  // Empty, too, where this kernel cannot have the fast path.
  [[nodiscard]] Result<std::vector<st_fast_live>> adopted() const;
  // All rows of st_pairs; some may be missing or twice in a list that is read while they change.
  [[nodiscard]] Result<std::vector<PairRow>> pairs() const;
  // All marks, by socket cookie: as pairs(), those of closed sockets among them.
  [[nodiscard]] Result<std::vector<std::pair<std::uint64_t, st_mark>>> marks() const;
  // What is kept of sockets that are adopted no longer.
  [[nodiscard]] Result<void> drop_old_marks();
  [[nodiscard]] Result<st_fast_counters> fast_counters() const;

  // Detaches and unpins everything of this pin folder; returns what was removed, a line each.
  // kBusy: an agent has it.
  [[nodiscard]] static Result<std::vector<std::string>> uninstall(const std::string& pin_dir);

  struct Impl;  // agent/dataplane/impl.h

 private:
  explicit Dataplane(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The cgroup id (kernfs inode number) of a cgroup2 folder.
[[nodiscard]] Result<std::uint64_t> cgroup_id(const std::string& dir);
// The folder of a cgroup; `near` is any folder of the hierarchy. An error where it is gone, not to
// be seen from here, or the process may not open handles (CAP_DAC_READ_SEARCH).
[[nodiscard]] Result<std::string> cgroup_folder(std::uint64_t id, const std::string& near);

}  // namespace sidetrack::dataplane
