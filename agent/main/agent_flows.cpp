// SPDX-License-Identifier: Apache-2.0
// Connections as the agent shows them: closed ones from the ring, open ones from the kernel.
#include <arpa/inet.h>

#include "agent/main/agent.h"
#include "agent/main/clocks.h"
#include "agent/main/names.h"
#include "sidetrack/decide.h"

namespace sidetrack::agent {

namespace {

constexpr std::uint64_t kLearningNs = 5'000'000'000;
constexpr std::size_t kMostEarlyFlows = 20'000;

std::string endpoint_text(const st_addr& address, std::uint16_t port_be) {
  return port_be == 0 ? "" : policy::format_endpoint(address, ntohs(port_be));
}

}  // namespace

admin::FlowView Agent::to_view(const st_flow& flow) const {
  admin::FlowView view;
  view.start = to_unix_time(flow.start_ns);
  // Not by the clock once more: the two would differ, and a short connection could end too early.
  view.end = view.start + static_cast<double>(flow.end_ns - flow.start_ns) / 1e9;
  if (const auto* owner = reconciler_.owner(flow.netns_cookie); owner != nullptr) {
    view.namespace_name = owner->namespace_name;
    view.pod = owner->name;
  } else {
    view.namespace_name = dataplane_->namespace_of(flow.namespace_slot);
  }
  view.source = endpoint_text(flow.source, flow.source_port_be);
  view.destination = endpoint_text(flow.destination, flow.destination_port_be);
  view.endpoint = endpoint_text(flow.endpoint, flow.endpoint_port_be);
  const bool refused = flow.reason < ST_REASON_COUNT &&
                       st_verdict_of(static_cast<st_reason>(flow.reason)) == ST_VERDICT_refused;
  // Our engine reports an endpoint only where it is not the address that was asked for, or where it
  // did not get there.
  const bool in_vain =
      (flow.close == ST_CLOSE_REFUSED || flow.close == ST_CLOSE_TIMEOUT) && flow.bytes_in == 0;
  if (view.endpoint.empty() && !refused && options_.engine != reconcile::EngineKind::kExternal) {
    view.endpoint = view.destination;
  }
  if (in_vain && view.endpoint == view.destination) {
    view.endpoint.clear();
  }
  view.verdict = verdict_name(flow.reason);
  view.reason = reason_name(flow.reason);
  view.path = refused ? "" : path_name(flow.path);
  view.bytes_out = flow.bytes_out;
  view.bytes_in = flow.bytes_in;
  view.close = close_name(flow.close);
  // A client is connected with the engine also where that reaches nobody.
  const bool on_tcp = flow.path == ST_PATH_DIRECT || (flow.path == ST_PATH_ENGINE && !in_vain);
  if (on_tcp && flow.fast_reason != ST_FAST_NONE) {
    view.fast_path_reason = adopt::name_of(static_cast<st_fast_reason>(flow.fast_reason));
  }
  return view;
}

admin::FlowView Agent::to_view(const st_live& live) const {
  const std::uint64_t past_engine = live.handoff_out + live.handoff_in;
  const std::uint64_t past_tcp = live.fast_out + live.fast_in;
  const st_path path = past_engine != 0       ? ST_PATH_HANDOFF
                       : past_tcp != 0        ? ST_PATH_FAST
                       : live.redirected != 0 ? ST_PATH_ENGINE
                                              : ST_PATH_DIRECT;
  // That the node's fast path is off, and why, the agent knows.
  const std::uint8_t fast_reason =
      fast_path_.on() ? live.fast_reason : static_cast<std::uint8_t>(fast_path_.reason());
  admin::FlowView view =
      to_view(st_flow{.netns_cookie = live.client.netns_cookie,
                      .start_ns = live.client.start_ns,
                      .bytes_out = live.bytes_out + live.fast_out + live.handoff_out,
                      .bytes_in = live.bytes_in + live.fast_in + live.handoff_in,
                      .source = live.source,
                      .destination = live.client.destination,
                      .source_port_be = htons(live.source_port),
                      .destination_port_be = live.client.port_be,
                      .path = static_cast<std::uint8_t>(path),
                      .reason = live.client.reason,
                      .namespace_slot = live.client.namespace_slot,
                      .close = ST_CLOSE_OPEN,
                      .fast_reason = fast_reason});
  view.end = 0;
  if (live.redirected != 0) {
    const auto report = dataplane_->report(live.cookie);
    if (report && *report && (*report)->close == ST_CLOSE_OPEN) {
      view.endpoint = endpoint_text((*report)->endpoint, (*report)->port_be);
    } else if (routes_.find(view.destination) != nullptr) {
      view.endpoint.clear();  // none of the Service's is reached yet
    }
  }
  return view;
}

// An agent that was just started finds in the ring what ended without it, before it has read its
// objects and looked at the pods' namespaces.
bool Agent::may_learn_pods() const {
  return !synced_ || clock_ns(CLOCK_MONOTONIC) < synced_ns_ + kLearningNs;
}

void Agent::on_flow(const st_flow& flow) {
  if (reconciler_.owner(flow.netns_cookie) == nullptr && may_learn_pods() &&
      early_flows_.size() < kMostEarlyFlows) {
    early_flows_.push_back(flow);
    return;
  }
  flow_log_.add(to_view(flow));
}

void Agent::tell_early_flows() {
  const bool may_learn = may_learn_pods();
  std::erase_if(early_flows_, [&](const st_flow& flow) {
    if (may_learn && reconciler_.owner(flow.netns_cookie) == nullptr) {
      return false;
    }
    flow_log_.add(to_view(flow));
    return true;
  });
}

admin::FlowPage Agent::flows(const admin::FlowQuery& query) {
  drain_rings();
  admin::FlowPage page = flow_log_.find(query);
  if (query.after_sequence != 0) {
    return page;  // who follows wants what is new
  }
  if (const auto live = dataplane_->live_sockets()) {
    for (const st_live& socket : *live) {
      admin::FlowView view = to_view(socket);
      if (query.namespace_name.empty() || view.namespace_name == query.namespace_name) {
        page.flows.push_back(std::move(view));
      }
    }
  }
  return page;
}

}  // namespace sidetrack::agent
