// SPDX-License-Identifier: Apache-2.0
// What the programs tell by themselves: flow records and events.
#include <linux/bpf.h>

#include <cerrno>
#include <cstring>

#include "agent/dataplane/impl.h"

namespace sidetrack::dataplane {

namespace {

// What the rings can hold: who writes as fast as we read does not keep us here, and what was there
// when a drain began is told by it.
constexpr std::size_t kMostRecords = ST_FLOW_RING_BYTES / (sizeof(st_flow) + BPF_RINGBUF_HDR_SZ) +
                                     ST_EVENT_RING_BYTES / (sizeof(st_event) + BPF_RINGBUF_HDR_SZ);

// What a handler returns: less than 0 ends the drain; the record counts as read.
int end_of(Dataplane::Impl& impl) {
  return --impl.drain_left == 0 ? -ECANCELED : 0;
}

int handle_flow(void* context, void* data, std::size_t size) {
  auto* impl = static_cast<Dataplane::Impl*>(context);
  if (size >= sizeof(st_flow) && impl->on_flow != nullptr) {
    st_flow flow{};
    std::memcpy(&flow, data, sizeof(flow));
    (*impl->on_flow)(flow);
  }
  return end_of(*impl);
}

int handle_event(void* context, void* data, std::size_t size) {
  auto* impl = static_cast<Dataplane::Impl*>(context);
  if (size >= sizeof(st_event) && impl->on_event != nullptr) {
    st_event event{};
    std::memcpy(&event, data, sizeof(event));
    (*impl->on_event)(event);
  }
  return end_of(*impl);
}

}  // namespace

// Events first: a drain that ends early leaves flow records.
Result<void> Dataplane::Impl::open_rings() {
  ring.reset(ring_buffer__new(map_fd("st_events"), handle_event, this, nullptr));
  if (!ring) {
    return errno_error("open ring st_events", errno);
  }
  if (const int error = ring_buffer__add(ring.get(), map_fd("st_flows"), handle_flow, this);
      error != 0) {
    return errno_error("open ring st_flows", -error);
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
  impl_->drain_left = kMostRecords;
  ring_buffer__consume(impl_->ring.get());
  impl_->on_flow = nullptr;
  impl_->on_event = nullptr;
}

}  // namespace sidetrack::dataplane
