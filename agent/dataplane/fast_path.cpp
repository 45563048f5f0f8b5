// SPDX-License-Identifier: Apache-2.0
#include <bpf/btf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <ctime>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

// bpf_rdonly_cast is a kfunc since 6.2; with it sk_msg reads its peer by plain loads.
bool kernel_has_cast() {
  btf* kernel = btf__load_vmlinux_btf();
  const bool found =
      kernel != nullptr && btf__find_by_name_kind(kernel, "bpf_rdonly_cast", BTF_KIND_FUNC) > 0;
  btf__free(kernel);
  return found;
}

void add(st_fast_counters& sum, const st_fast_counters& part) {
  for (std::size_t i = 0; i < std::size(sum.refused); ++i) {
    sum.refused[i] += part.refused[i];
  }
  sum.messages += part.messages;
  sum.handoffs += part.handoffs;
  sum.paired += part.paired;
  sum.adopted += part.adopted;
  sum.released += part.released;
}

std::string adopted_path(const std::string& pin_dir) {
  return version_dir(pin_dir) + "/maps/st_adopted";
}

// Adopted sockets send by TCP from their next message on that finds nothing waiting.
Result<void> switch_off(const std::string& pin_dir) {
  const std::string maps = version_dir(pin_dir) + "/maps/";
  const UniqueFd config(bpf_obj_get((maps + "st_fast_config").c_str()));
  const UniqueFd generation(bpf_obj_get((maps + "st_fast_generation").c_str()));
  if (!config.valid() || !generation.valid()) {
    return {};  // never had one
  }
  // The rest stays: with no window left, what waits would be passed by.
  auto settings = map_lookup<st_fast_config>(config.get(), "st_fast_config", std::uint32_t{0});
  ST_TRY(settings);
  (*settings)->enabled = 0;
  ST_TRY(map_update(config.get(), "st_fast_config", std::uint32_t{0}, **settings));
  auto cell =
      map_lookup<st_fast_generation>(generation.get(), "st_fast_generation", std::uint32_t{0});
  ST_TRY(cell);
  return map_update(generation.get(), "st_fast_generation", std::uint32_t{0},
                    st_fast_generation{.value = (*cell)->value + 1});
}

// Runs the program of an iterator on all of the calling thread's namespace.
Result<void> walk_tcp_sockets(int link_fd) {
  const UniqueFd iterator(bpf_iter_create(link_fd));
  if (!iterator.valid()) {
    return errno_error("create iterator over TCP sockets", errno);
  }
  char nothing[64];
  ssize_t size = 0;
  do {
    size = read(iterator.get(), nothing, sizeof(nothing));
  } while (size > 0 || (size < 0 && (errno == EINTR || errno == EAGAIN)));
  return size == 0 ? Result<void>() : errno_error("walk TCP sockets", errno);
}

}  // namespace

void choose_fast_programs(sidetrack_bpf* skeleton, bool fast_path) {
  const bool cast = kernel_has_cast();
  const auto load = [](bpf_program* program, bool on) { bpf_program__set_autoload(program, on); };
  load(skeleton->progs.st_msg, fast_path && cast);
  load(skeleton->progs.st_msg_probe, fast_path && !cast);
  load(skeleton->progs.st_hold_fin, fast_path);
  load(skeleton->progs.st_adopt, fast_path);
  load(skeleton->progs.st_look_fast, fast_path);
  load(skeleton->progs.st_nudge, fast_path);
  load(skeleton->progs.st_watch_engine, fast_path);  // the same kernels take it
}

Result<void> Dataplane::Impl::open_fast_path() {
  void* memory = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                      map_fd("st_fast_generation"), 0);
  if (memory == MAP_FAILED) {
    return map_error("st_fast_generation", "map into memory", errno);
  }
  generation = static_cast<st_fast_generation*>(memory);
  if (!fast_path_problem.empty()) {
    return {};
  }
  // Sockets that are in keep the program that they came in with.
  const bpf_program* program =
      kernel_has_cast() ? skeleton->progs.st_msg : skeleton->progs.st_msg_probe;
  if (bpf_prog_attach(bpf_program__fd(program), map_fd("st_adopted"), BPF_SK_MSG_VERDICT, 0) != 0) {
    fast_path_problem = errno_error("attach sk_msg to st_adopted", errno).message;
    return {};
  }
  nudge_link.reset(bpf_program__attach_iter(skeleton->progs.st_nudge, nullptr));
  if (!nudge_link) {
    fast_path_problem = errno_error("attach iterator over TCP sockets", errno).message;
    return {};
  }
  nudge_fd = bpf_link__fd(nudge_link.get());
  return {};
}

void Dataplane::Impl::close_fast_path() {
  if (generation != nullptr) {
    munmap(generation, kPageBytes);
    generation = nullptr;
  }
}

void Dataplane::Impl::raise_generation() {
  std::atomic_ref(generation->value).fetch_add(1);
}

const std::string& Dataplane::fast_path_problem() const {
  return impl_->fast_path_problem;
}

Result<void> Dataplane::set_fast_config(const st_fast_config& config) {
  ST_TRY(map_update(impl_->map_fd("st_fast_config"), "st_fast_config", std::uint32_t{0}, config));
  impl_->raise_generation();
  return {};
}

Result<void> Dataplane::disable_fast_path() {
  auto config = map_lookup<st_fast_config>(impl_->map_fd("st_fast_config"), "st_fast_config",
                                           std::uint32_t{0});
  ST_TRY(config);
  (*config)->enabled = 0;
  return set_fast_config(**config);
}

std::uint64_t Dataplane::fast_generation() const {
  return std::atomic_ref(impl_->generation->value).load();
}

void Dataplane::fast_beat() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  std::atomic_ref(impl_->generation->beat_ns)
      .store(static_cast<__u64>(now.tv_sec) * 1'000'000'000U + static_cast<__u64>(now.tv_nsec));
}

int Dataplane::slots_fd() const {
  return impl_->map_fd("st_slots");
}

Adopter Dataplane::adopter() const {
  return Adopter(bpf_program__fd(impl_->skeleton->progs.st_adopt), impl_->nudge_fd,
                 &impl_->skeleton->bss->st_nudged_cookie);
}

Result<st_fast_reason> Adopter::run(const st_adopt_request& request) const {
  st_adopt_request row = request;
  const auto answer = run_on(program_fd_, "st_adopt", std::span(&row, 1));
  ST_TRY(answer);
  if (*answer >= ST_FAST_COUNT) {
    return make_error(ErrorCode::kInternal, "st_adopt returned " + std::to_string(*answer));
  }
  return static_cast<st_fast_reason>(*answer);
}

Result<std::vector<PairRow>> Dataplane::pairs() const {
  std::vector<PairRow> rows;
  ST_TRY((for_each_row<st_pair_key, st_pair>(impl_->map_fd("st_pairs"), "st_pairs",
                                             [&](const st_pair_key& key, const st_pair& pair) {
                                               rows.push_back({.key = key, .pair = pair});
                                             })));
  return rows;
}

Result<std::vector<std::pair<std::uint64_t, st_mark>>> Dataplane::marks() const {
  std::vector<std::pair<std::uint64_t, st_mark>> rows;
  for (const char* map : {"st_kept_marks", "st_marks"}) {
    ST_TRY((for_each_row<std::uint64_t, st_mark>(
        impl_->map_fd(map), map,
        [&](std::uint64_t cookie, const st_mark& mark) { rows.emplace_back(cookie, mark); })));
  }
  return rows;
}

Result<void> Dataplane::drop_old_marks() {
  std::vector<std::uint64_t> marked;
  ST_TRY((for_each_row<std::uint64_t, st_mark>(
      impl_->map_fd("st_kept_marks"), "st_kept_marks",
      [&](std::uint64_t cookie, const st_mark&) { marked.push_back(cookie); })));
  for (const std::uint64_t cookie : marked) {
    const auto adopted =
        map_lookup<std::uint64_t>(impl_->map_fd("st_adopted"), "st_adopted", cookie);
    ST_TRY(adopted);
    if (!*adopted) {
      ST_TRY(map_delete(impl_->map_fd("st_kept_marks"), "st_kept_marks", cookie));
    }
  }
  return {};
}

Result<void> Adopter::nudge(std::uint64_t cookie) const {
  *nudged_cookie_ = cookie;
  return walk_tcp_sockets(nudge_link_fd_);
}

Result<void> Dataplane::watch_listener(std::uint64_t cookie) const {
  const bpf_program* program = impl_->skeleton->progs.st_watch_engine;
  if (!bpf_program__autoload(program)) {
    return make_error(ErrorCode::kUnsupported, impl_->fast_path_problem);
  }
  const std::unique_ptr<bpf_link, LinkDeleter> link(bpf_program__attach_iter(program, nullptr));
  if (!link) {
    return errno_error("attach iterator over TCP sockets", errno);
  }
  impl_->skeleton->bss->st_watched_cookie = cookie;
  return walk_tcp_sockets(bpf_link__fd(link.get()));
}

Result<st_fast_counters> Dataplane::fast_counters() const {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) {
    return errno_error("count CPUs", -cpus);
  }
  std::vector<st_fast_counters> cells(static_cast<std::size_t>(cpus));
  const std::uint32_t zero = 0;
  if (bpf_map_lookup_elem(impl_->map_fd("st_fast_counters"), &zero, cells.data()) != 0) {
    return map_error("st_fast_counters", "lookup", errno);
  }
  st_fast_counters sum{};
  for (const st_fast_counters& cell : cells) {
    add(sum, cell);
  }
  return sum;
}

Result<void> stop_fast_path(const std::string& pin_dir) {
  ST_TRY(switch_off(pin_dir));
  // The map holds the program and the program the map: without this neither would ever go.
  const UniqueFd map(bpf_obj_get(adopted_path(pin_dir).c_str()));
  if (map.valid() && bpf_prog_detach(map.get(), BPF_SK_MSG_VERDICT) != 0 && errno != ENOENT &&
      errno != EINVAL) {
    return errno_error("detach sk_msg from " + adopted_path(pin_dir), errno);
  }
  return {};
}

}  // namespace sidetrack::dataplane
