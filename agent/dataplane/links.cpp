// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/dataplane/impl.h"
#include "agent/dataplane/pinned.h"

namespace sidetrack::dataplane {

namespace {

struct LinkInfo {
  std::uint32_t program_id = 0;
  std::uint64_t cgroup_id = 0;
};

Result<LinkInfo> link_info(int fd) {
  bpf_link_info info{};
  std::uint32_t size = sizeof(info);
  if (bpf_obj_get_info_by_fd(fd, &info, &size) != 0) {
    return errno_error("read link", errno);
  }
  // A link whose cgroup is gone, or that was detached by force, says cgroup 0.
  return LinkInfo{.program_id = info.prog_id, .cgroup_id = info.cgroup.cgroup_id};
}

// A link can be alive and yet not run: ask the cgroup which programs it has.
bool cgroup_has(int cgroup_fd, bpf_attach_type type, std::uint32_t program_id) {
  std::uint32_t ids[64] = {};
  std::uint32_t count = 64;
  std::uint32_t flags = 0;
  if (bpf_prog_query(cgroup_fd, type, 0, &flags, ids, &count) != 0) {
    return false;
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    if (ids[i] == program_id) {
      return true;
    }
  }
  return false;
}

}  // namespace

const std::vector<Hook>& hooks() {
  static const std::vector<Hook> kHooks = {
      // sockops and the names before connect: a connection is only redirected when all that follows
      // is in place.
      {"st_sockops", "sockops", BPF_CGROUP_SOCK_OPS, false},
      {"st_getsockopt", "cgroup/getsockopt", BPF_CGROUP_GETSOCKOPT, true},
      {"st_setsockopt", "cgroup/setsockopt", BPF_CGROUP_SETSOCKOPT, true},
      {"st_getpeername4", "cgroup/getpeername4", BPF_CGROUP_INET4_GETPEERNAME, false},
      {"st_getpeername6", "cgroup/getpeername6", BPF_CGROUP_INET6_GETPEERNAME, false},
      {"st_getsockname4", "cgroup/getsockname4", BPF_CGROUP_INET4_GETSOCKNAME, false},
      {"st_getsockname6", "cgroup/getsockname6", BPF_CGROUP_INET6_GETSOCKNAME, false},
      {"st_connect4", "cgroup/connect4", BPF_CGROUP_INET4_CONNECT, false},
      {"st_connect6", "cgroup/connect6", BPF_CGROUP_INET6_CONNECT, false},
      {"st_hold_fin", "cgroup_skb/egress", BPF_CGROUP_INET_EGRESS, false, true},
  };
  return kHooks;
}

std::string link_path(const Options& options, const Hook& hook, std::uint64_t cgroup_id) {
  const std::string path = links_dir(options.pin_dir) + "/" + hook.program;
  return hook.engine ? fmt::format("{}_{}", path, cgroup_id) : path;
}

Result<void> end_link(const std::string& path) {
  if (const UniqueFd link(bpf_obj_get(path.c_str())); link.valid()) {
    (void)bpf_link_detach(link.get());  // of a cgroup that is gone there is nothing to detach
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return errno_error("remove " + path, errno);
  }
  return {};
}

std::uint64_t linked_cgroup(const std::string& path) {
  const UniqueFd link(bpf_obj_get(path.c_str()));
  const auto info = link.valid() ? link_info(link.get()) : Result(LinkInfo{});
  return info ? info->cgroup_id : 0;
}

std::uint64_t pinned_cgroup(const std::string& pin_dir) {
  for (const Hook& hook : hooks()) {
    const std::uint64_t id =
        hook.engine ? 0 : linked_cgroup(links_dir(pin_dir) + "/" + hook.program);
    if (id != 0) {
      return id;
    }
  }
  return 0;
}

void Dataplane::Impl::for_each_place(
    const std::function<void(const Hook&, const CgroupPlace&)>& visit) const {
  for (const Hook& hook : hooks()) {
    if (!hook.engine) {
      if (!hook.fast_path || holds_fins) {
        visit(hook, cgroup);
      }
      continue;
    }
    for (const CgroupPlace& engine : engines) {
      visit(hook, engine);
    }
  }
}

ProgramState Dataplane::Impl::inspect(const Hook& hook, const CgroupPlace& place) const {
  ProgramState state;
  state.name = hook.program;
  state.hook = hook.name;
  const UniqueFd link(bpf_obj_get(link_path(options, hook, place.id).c_str()));
  if (!link.valid()) {
    state.detail = "its link is not pinned";
    return state;
  }
  const auto info = link_info(link.get());
  if (!info) {
    state.detail = info.error().message;
    return state;
  }
  state.program_id = info->program_id;
  state.cgroup_id = info->cgroup_id;
  if (info->cgroup_id != place.id) {
    state.detail = fmt::format("attached to cgroup {}, not {}", info->cgroup_id, place.id);
    return state;
  }
  // Whether the cgroup of an engine that has not come back to us lists it is for the link to say.
  const UniqueFd cgroup_fd(::open(place.dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  state.attached =
      place.dir.empty() ||
      (cgroup_fd.valid() && cgroup_has(cgroup_fd.get(), hook.attach_type, info->program_id));
  if (!state.attached) {
    state.detail = "the cgroup does not list it";
  }
  return state;
}

Result<void> Dataplane::Impl::attach(const Hook& hook, const CgroupPlace& place) {
  const std::string path = link_path(options, hook, place.id);
  const std::string what = std::string("attach ") + hook.name;
  const int program =
      bpf_program__fd(bpf_object__find_program_by_name(skeleton->obj, hook.program));
  if (inspect(hook, place).attached) {
    const UniqueFd link(bpf_obj_get(path.c_str()));
    if (bpf_link_update(link.get(), program, nullptr) != 0) {
      return errno_error(what + ": replace the older program", errno);
    }
    return {};
  }
  const UniqueFd cgroup_fd(::open(place.dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup_fd.valid()) {
    return errno_error(what + ": open " + place.dir, errno);
  }
  // The old pin, if any, holds a link that does not run where it should. It goes first: a connect()
  // that met both programs would be redirected by one and taken for one to loopback by the other.
  if (auto ended = end_link(path); !ended) {
    return ended.error().within(what);
  }
  const UniqueFd link(bpf_link_create(program, cgroup_fd.get(), hook.attach_type, nullptr));
  if (!link.valid()) {
    return errno_error(what + " to " + place.dir, errno);
  }
  if (bpf_obj_pin(link.get(), path.c_str()) != 0) {
    return errno_error(what + ": pin " + path, errno);
  }
  return {};
}

Result<void> Dataplane::hold_fins(bool on) {
  for (const Hook& hook : hooks()) {
    if (hook.fast_path) {
      impl_->holds_fins = on;
      ST_TRY(on ? impl_->attach(hook, impl_->cgroup)
                : end_link(link_path(impl_->options, hook, impl_->cgroup.id)));
    }
  }
  return {};
}

std::vector<ProgramState> Dataplane::programs() const {
  std::vector<ProgramState> states;
  impl_->for_each_place([&](const Hook& hook, const CgroupPlace& place) {
    // One that has ended leaves its links until the next repair(), and nobody misses them.
    if (!hook.engine || impl_->lives(place)) {
      states.push_back(impl_->inspect(hook, place));
    }
  });
  return states;
}

Result<std::vector<std::string>> Dataplane::repair() {
  ST_TRY(impl_->forget_dead_engines());
  std::vector<std::string> repaired;
  Result<void> outcome;
  impl_->for_each_place([&](const Hook& hook, const CgroupPlace& place) {
    if (!outcome || place.dir.empty() || impl_->inspect(hook, place).attached) {
      return;
    }
    outcome = impl_->attach(hook, place);
    repaired.emplace_back(hook.program);
  });
  ST_TRY(outcome);
  return repaired;
}

}  // namespace sidetrack::dataplane
