// SPDX-License-Identifier: Apache-2.0
// From the text of one option to its value. Pure but for check_*, which look at a path. Errors are
// kInvalid and name option and value.
#pragma once

#include <string>

#include <boost/program_options/variables_map.hpp>

#include "agent/main/options.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

[[nodiscard]] Error invalid(const std::string& option, const std::string& value,
                            const std::string& allowed);
[[nodiscard]] Result<void> parse_engine(const std::string& value, Options& options);
[[nodiscard]] Result<void> parse_listener_ports(const std::string& value, Options& options);
[[nodiscard]] Result<void> parse_compat(const std::string& value, Options& options);
[[nodiscard]] Result<void> parse_drain(const std::string& value, Options& options);
[[nodiscard]] Result<void> parse_fast_path(const boost::program_options::variables_map& values,
                                           FastPathOptions& fast_path);
// What the plugin is told.
[[nodiscard]] Result<void> parse_cni(const boost::program_options::variables_map& values,
                                     const std::string& cache_dir, CniOptions& cni);
[[nodiscard]] Result<void> check_node_name(const std::string& value);
// A folder in which the plugin, too, has files.
[[nodiscard]] Result<void> check_plugins_folder(const std::string& option,
                                                const std::string& value);
[[nodiscard]] Result<void> check_pin_dir(const std::string& value);

}  // namespace sidetrack::agent
