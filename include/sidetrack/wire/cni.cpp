// SPDX-License-Identifier: Apache-2.0
#include "sidetrack/wire/cni.h"

#include "sidetrack/wire/codec.h"

namespace sidetrack::wire {
namespace cni {
namespace {

constexpr codec::Kinds<Message> kKinds{"add", "del", "check", "gc", "status", "ok", "failed"};

}  // namespace

template <typename V>
static void fields(V& visit, AttachmentId& m) {
  visit("container_id", m.container_id);
  visit("ifname", m.ifname);
}
template <typename V>
static void fields(V& visit, Add& m) {
  visit("version", m.version);
  fields(visit, m.attachment);
  visit("namespace", m.pod_namespace);
  visit("name", m.pod_name);
  visit("uid", m.pod_uid);
  visit("addresses", m.addresses, kMaxAddresses);
}
template <typename V>
static void fields(V& visit, Del& m) {
  visit("version", m.version);
  fields(visit, m.attachment);
}
template <typename V>
static void fields(V& visit, Check& m) {
  visit("version", m.version);
  fields(visit, m.attachment);
  visit("namespace", m.pod_namespace);
  visit("name", m.pod_name);
  visit("uid", m.pod_uid);
}
template <typename V>
static void fields(V& visit, Gc& m) {
  visit("version", m.version);
  visit("valid", m.valid, kMaxAttachments);
}
template <typename V>
static void fields(V& visit, Status& m) {
  visit("version", m.version);
}
template <typename V>
static void fields(V& visit, Ok& m) {
  visit("version", m.version);
}
template <typename V>
static void fields(V& visit, Failed& m) {
  visit("version", m.version);
  visit("code", m.code);
  visit("message", codec::Reason{m.message});
  visit("details", codec::Reason{m.details});
}

}  // namespace cni

template <>
struct codec::Item<cni::AttachmentId> {
  static std::string refusal(const cni::AttachmentId& id) {
    const std::string container = Item<std::string>::refusal(id.container_id);
    return container.empty() ? Item<std::string>::refusal(id.ifname) : container;
  }
  static json write(const cni::AttachmentId& id) {
    return json::array({id.container_id, id.ifname});
  }
  static bool read(const json& value, cni::AttachmentId& out) {
    return value.is_array() && value.size() == 2 &&
           Item<std::string>::read(value[0], out.container_id) &&
           Item<std::string>::read(value[1], out.ifname);
  }
};

namespace cni {

std::string_view kind_of(const Message& message) {
  return kKinds.at(message.index());
}

std::size_t descriptors_of(const Message& message) {
  return std::holds_alternative<Add>(message) ? 1 : 0;
}

std::uint32_t version_of(const Message& message) {
  return std::visit([](const auto& m) { return m.version; }, message);
}

Result<std::string> encode(const Message& message) {
  return codec::encode(message, kKinds);
}

Result<Message> decode(std::string_view body) {
  return codec::decode<Message>(body, kKinds);
}

}  // namespace cni
}  // namespace sidetrack::wire
