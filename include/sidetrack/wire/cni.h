// SPDX-License-Identifier: Apache-2.0
// The messages between the CNI plugin and the agent (docs/cni.md): a connection per invocation of
// the plugin, one request, one answer, each the body of one frame (framing.h); `add` carries the
// pod's netns as a descriptor. Both ends may be of another build: `version` is of the protocol.
// Thread rule: plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sidetrack/result.h"
#include "sidetrack/wire/limits.h"

namespace sidetrack::wire::cni {

inline constexpr std::uint32_t kProtocolVersion = 1;
inline constexpr std::size_t kMaxAddresses = 64;      // of one pod
inline constexpr std::size_t kMaxAttachments = 4096;  // of one `gc`

// The plugin's time for all of ADD or CHECK (`timeoutMs`).
inline constexpr std::uint32_t kMinTimeoutMs = 50;
inline constexpr std::uint32_t kMaxTimeoutMs = 60'000;
inline constexpr std::uint32_t kDefaultTimeoutMs = 2000;

// How long the plugin refuses pods after the last sign of life of an agent (`denyForSeconds`); 0:
// for ever.
inline constexpr std::uint32_t kDefaultDenyForSeconds = 3600;
inline constexpr std::uint32_t kMaxDenyForSeconds = 365 * 24 * 3600;

// Error codes of the CNI spec (SPEC.md, "Error"); 100 and above are ours.
inline constexpr std::uint32_t kTryAgainLater = 11;
inline constexpr std::uint32_t kNotAvailable = 50;  // STATUS: no ADD can be served
inline constexpr std::uint32_t kNotEnrolled = 100;  // the agent could not enrol the pod
inline constexpr std::uint32_t kProtocolError =
    102;  // agent and plugin do not understand each other

// What CNI calls an attachment: one interface of one container.
struct AttachmentId {
  std::string container_id;
  std::string ifname;
  bool operator==(const AttachmentId&) const = default;
  auto operator<=>(const AttachmentId&) const = default;
};

// Plugin to agent.

// A pod's network exists, none of its processes does. Descriptor: its netns. Answered when the pod
// is enrolled or needs not be.
struct Add {
  std::uint32_t version = kProtocolVersion;
  AttachmentId attachment;
  std::string pod_namespace;
  std::string pod_name;
  std::string pod_uid;                 // empty: the runtime does not say
  std::vector<std::string> addresses;  // without prefix length: "10.0.0.7", "fd00::7"
  bool operator==(const Add&) const = default;
};
// The attachment goes away. Also for one that was never added.
struct Del {
  std::uint32_t version = kProtocolVersion;
  AttachmentId attachment;
  bool operator==(const Del&) const = default;
};
// Is this pod as `add` left it?
struct Check {
  std::uint32_t version = kProtocolVersion;
  AttachmentId attachment;
  std::string pod_namespace;
  std::string pod_name;
  std::string pod_uid;
  bool operator==(const Check&) const = default;
};
// These attachments exist, no other does.
struct Gc {
  std::uint32_t version = kProtocolVersion;
  std::vector<AttachmentId> valid;
  bool operator==(const Gc&) const = default;
};
// Can pods be added?
struct Status {
  std::uint32_t version = kProtocolVersion;
  bool operator==(const Status&) const = default;
};

// Agent to plugin.

struct Ok {
  std::uint32_t version = kProtocolVersion;
  bool operator==(const Ok&) const = default;
};
struct Failed {
  std::uint32_t version = kProtocolVersion;
  std::uint32_t code = kNotEnrolled;
  std::string message;
  std::string details;  // what to do
  bool operator==(const Failed&) const = default;
};

using Message = std::variant<Add, Del, Check, Gc, Status, Ok, Failed>;

// The name of a message's kind on the wire: "add".
[[nodiscard]] std::string_view kind_of(const Message& message);

// How many descriptors the frame of this message carries; any other number is an error.
[[nodiscard]] std::size_t descriptors_of(const Message& message);

// The version that the sender stated.
[[nodiscard]] std::uint32_t version_of(const Message& message);

// The frame body. `message` and `details` are cut to kMaxText, invalid UTF-8 is left out. kInvalid:
// a name or list over its limit.
[[nodiscard]] Result<std::string> encode(const Message& message);

// Unknown fields are ignored. kUnsupported: an unknown kind; kInvalid: everything else.
[[nodiscard]] Result<Message> decode(std::string_view body);

}  // namespace sidetrack::wire::cni
