// SPDX-License-Identifier: Apache-2.0
#include "probe/kernel_view.h"

#include <functional>

#include <nlohmann/json.hpp>

namespace sidetrack::probe {
namespace {

using nlohmann::json;

template <class T>
Result<T> read(const std::string& body, const std::function<T(const json&)>& fields) {
  try {
    return fields(json::parse(body));
  } catch (const json::exception& error) {
    return make_error(ErrorCode::kInvalid, std::string("answer of the agent: ") + error.what());
  }
}

}  // namespace

Result<Explanation> read_explanation(const std::string& body) {
  return read<Explanation>(body, [](const json& value) {
    return Explanation{.verdict = value.at("verdict").get<std::string>(),
                       .reason = value.at("reason").get<std::string>(),
                       .agrees_with_kernel = value.at("agrees_with_kernel").get<bool>()};
  });
}

Result<std::uint64_t> read_count(const std::string& body, const std::string& namespace_name,
                                 const std::string& reason) {
  return read<std::uint64_t>(body, [&](const json& value) -> std::uint64_t {
    for (const json& row : value.at("counters")) {
      if (row.at("namespace") == namespace_name) {
        return row.at("connections").value(reason, std::uint64_t{0});
      }
    }
    return 0;
  });
}

Result<std::string> read_path(const std::string& body, const std::string& source,
                              const std::string& destination) {
  return read<std::string>(body, [&](const json& value) -> std::string {
    for (const json& flow : value.at("flows")) {
      if (flow.at("source") == source && flow.at("destination") == destination) {
        return flow.at("path").get<std::string>();
      }
    }
    return "";
  });
}

}  // namespace sidetrack::probe
