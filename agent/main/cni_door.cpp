// SPDX-License-Identifier: Apache-2.0
#include "agent/main/cni_door.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace sidetrack::agent {
namespace {

// Less than the plugin's own time, so that it hears why.
std::chrono::milliseconds patience(std::chrono::milliseconds timeout) {
  return timeout * 85 / 100;
}

// One sandbox can have several interfaces, and each its own DEL.
std::string key_of(const cni::AttachmentId& attachment) {
  return attachment.container_id + "/" + attachment.ifname;
}

std::string why_late(Standing standing, const std::string& pod) {
  return standing == Standing::kUnknown
             ? "the API server has not shown pod " + pod + " to the agent yet"
             : "pod " + pod + " is not in the kernel yet (sidetrackctl pods says why)";
}

}  // namespace

void CniDoor::add(cni::Attachment attachment, std::function<void(Result<void>)> done) {
  std::string uid = attachment.pod_uid;
  if (uid.empty()) {
    uid = node_.uid_of(attachment.pod_namespace, attachment.pod_name).value_or("");
  }
  if (uid.empty()) {
    done(make_error(ErrorCode::kBusy,
                    fmt::format("the runtime gives no K8S_POD_UID, and the API server has not "
                                "shown pod {}/{} to the agent yet",
                                attachment.pod_namespace, attachment.pod_name)));
    return;
  }
  table_.attach(key_of({attachment.container_id, attachment.ifname}), uid,
                std::move(attachment.netns), node_.now(), std::move(attachment.addresses));
  waiting_.push_back({.pod_namespace = std::move(attachment.pod_namespace),
                      .name = std::move(attachment.pod_name),
                      .uid = std::move(uid),
                      .done = std::move(done),
                      .deadline = node_.now() + patience(node_.timeout)});
  node_.netns_changed();
  settle();
}

void CniDoor::remove(const cni::AttachmentId& attachment) {
  if (!table_.has(key_of(attachment))) {
    return;
  }
  for (UniqueFd& netns : table_.detach(key_of(attachment))) {
    node_.leaves(std::move(netns));
  }
  node_.netns_changed();
}

Result<void> CniDoor::check(const cni::Claim& claim) {
  const std::string uid = claim.pod_uid.empty()
                              ? node_.uid_of(claim.pod_namespace, claim.pod_name).value_or("")
                              : claim.pod_uid;
  const Standing standing = node_.standing(claim.pod_namespace, claim.pod_name, uid);
  if (standing == Standing::kSettled || standing == Standing::kEngineDown) {
    return {};
  }
  return make_error(ErrorCode::kNotFound,
                    why_late(standing, claim.pod_namespace + "/" + claim.pod_name));
}

void CniDoor::keep_only(const std::set<cni::AttachmentId>& valid) {
  std::set<std::string> keys;
  for (const cni::AttachmentId& attachment : valid) {
    keys.insert(key_of(attachment));
  }
  table_.keep_only(keys);
  node_.netns_changed();
}

void CniDoor::settle() {
  const Clock::time_point now = node_.now();
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const Standing standing = node_.standing(it->pod_namespace, it->name, it->uid);
    // It may start without its engine, sooner or later: the end of its time is no reason not to.
    const bool is_in =
        standing == Standing::kSettled ||
        (standing == Standing::kEngineDown && now >= std::min(engines_back_at_, it->deadline));
    if (!is_in && now < it->deadline) {
      ++it;
      continue;
    }
    // Out of the list before it is answered: whoever hears of it may ask the next thing.
    const Waiting one = std::move(*it);
    it = waiting_.erase(it);
    one.done(is_in ? Result<void>()
                   : make_error(ErrorCode::kBusy,
                                why_late(standing, one.pod_namespace + "/" + one.name)));
  }
  // All wait equally long: the first is due first. A short timeout is over between two ticks.
  if (!waiting_.empty()) {
    node_.wake_at(waiting_.front().deadline);
  }
}

}  // namespace sidetrack::agent
