// SPDX-License-Identifier: Apache-2.0
// Any bytes as CNI_ARGS (to the first NUL) and stdin of the plugin.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cni/plugin/request.h"

namespace {

using namespace sidetrack::cni;

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check_result(std::string_view input, const json::Object& object) {
  const auto result = plugin::read_previous_result(input, object, "1.0.0");
  if (!result) {
    return;
  }
  const auto parsed = json::read_object(*result);
  require(parsed && parsed->find("cniVersion") != nullptr);
  const bool added = input.find(*result) == std::string_view::npos;
  require(!added || result->starts_with("{\"cniVersion\":\"1.0.0\""));
  const auto addresses = plugin::read_addresses(*result);
  require(addresses.size() <= sidetrack::wire::cni::kMaxAddresses);
  // What the plugin makes of its input it can send.
  require(
      sidetrack::wire::cni::encode(sidetrack::wire::cni::Add{.addresses = addresses}).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string_view args = bytes.substr(0, bytes.find('\0'));
  const std::string_view input = bytes.substr(args.size() == size ? 0 : args.size() + 1);

  const plugin::Pod pod = plugin::read_pod(args);
  require(sidetrack::wire::cni::encode(
              sidetrack::wire::cni::Add{
                  .pod_namespace = pod.namespace_name, .pod_name = pod.name, .pod_uid = pod.uid})
              .has_value());
  const plugin::Environment environment{.container_id = std::string(args),
                                        .ifname = std::string(args)};
  static_cast<void>(plugin::read_attachment(environment));
  const auto object = json::read_object(input);
  if (!object) {
    return 0;
  }
  const auto config = plugin::read_config(input, *object);
  require(!config || (config->timeout_ms >= 50 && config->timeout_ms <= 60'000));
  require(!config || config->deny_for_seconds <= 31'536'000);
  const auto valid = plugin::read_valid_attachments(input, *object);
  require(!valid || valid->size() <= sidetrack::wire::cni::kMaxAttachments);
  check_result(input, *object);
  return 0;
}
