// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstring>

#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

int handle_flow(void* context, void* data, std::size_t size) {
  const auto* impl = static_cast<Dataplane::Impl*>(context);
  if (size >= sizeof(st_flow) && impl->on_flow != nullptr) {
    st_flow flow{};
    std::memcpy(&flow, data, sizeof(flow));
    (*impl->on_flow)(flow);
  }
  return 0;
}

int handle_event(void* context, void* data, std::size_t size) {
  const auto* impl = static_cast<Dataplane::Impl*>(context);
  if (size >= sizeof(st_event) && impl->on_event != nullptr) {
    st_event event{};
    std::memcpy(&event, data, sizeof(event));
    (*impl->on_event)(event);
  }
  return 0;
}

template <typename Row>
std::vector<Row> rows_of(const std::vector<unsigned char>& bytes) {
  std::vector<Row> rows(bytes.size() / sizeof(Row));
  if (!rows.empty()) {
    std::memcpy(rows.data(), bytes.data(), rows.size() * sizeof(Row));
  }
  return rows;
}

}  // namespace

Result<void> Dataplane::Impl::open_rings() {
  ring.reset(ring_buffer__new(map_fd("st_flows"), handle_flow, this, nullptr));
  if (!ring) {
    return errno_error("open ring st_flows", errno);
  }
  if (const int error = ring_buffer__add(ring.get(), map_fd("st_events"), handle_event, this);
      error != 0) {
    return errno_error("open ring st_events", -error);
  }
  return {};
}

int Dataplane::ring_fd() const {
  return ring_buffer__epoll_fd(impl_->ring.get());
}

void Dataplane::drain(const std::function<void(const st_flow&)>& on_flow,
                      const std::function<void(const st_event&)>& on_event) {
  impl_->on_flow = &on_flow;
  impl_->on_event = &on_event;
  ring_buffer__consume(impl_->ring.get());
  impl_->on_flow = nullptr;
  impl_->on_event = nullptr;
}

Result<std::vector<unsigned char>> iterate(bpf_program* program, int map_fd) {
  bpf_iter_link_info info{};
  info.map.map_fd = static_cast<std::uint32_t>(map_fd);
  bpf_iter_attach_opts options{};
  options.sz = sizeof(options);
  options.link_info = &info;
  options.link_info_len = sizeof(info);
  bpf_link* link = bpf_program__attach_iter(program, &options);
  if (link == nullptr) {
    return errno_error("list sockets: attach iterator", errno);
  }
  const UniqueFd iterator(bpf_iter_create(bpf_link__fd(link)));
  const int error = errno;
  bpf_link__destroy(link);
  if (!iterator.valid()) {
    return errno_error("list sockets: create iterator", error);
  }
  std::vector<unsigned char> bytes;
  unsigned char buffer[16384];
  for (;;) {
    const ssize_t size = read(iterator.get(), buffer, sizeof(buffer));
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) {
      continue;
    }
    if (size < 0) {
      return errno_error("list sockets: read iterator", errno);
    }
    if (size == 0) {
      break;
    }
    bytes.insert(bytes.end(), buffer, buffer + size);
  }
  return bytes;
}

Result<std::vector<st_live>> Dataplane::live_sockets() const {
  auto redirected = iterate(impl_->skeleton->progs.st_iterate, impl_->map_fd("st_sockets"));
  ST_TRY(redirected);
  auto observed = iterate(impl_->skeleton->progs.st_iterate_observed, impl_->map_fd("st_observed"));
  ST_TRY(observed);
  redirected->insert(redirected->end(), observed->begin(), observed->end());
  return rows_of<st_live>(*redirected);
}

Result<std::vector<st_fast_live>> Dataplane::adopted() const {
  auto bytes = iterate(impl_->skeleton->progs.st_iterate_fast, impl_->map_fd("st_fast_sockets"));
  ST_TRY(bytes);
  return rows_of<st_fast_live>(*bytes);
}

}  // namespace sidetrack::dataplane
