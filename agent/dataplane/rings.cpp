// SPDX-License-Identifier: Apache-2.0
// What the programs tell by themselves: flow records and events.
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

}  // namespace sidetrack::dataplane
