// SPDX-License-Identifier: Apache-2.0
// The folder in which a container runtime looks for network configurations: one look at it, which
// puts our entry where it belongs or takes it out. Blocking; one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cni/install/settings.h"
#include "sidetrack/result.h"

namespace sidetrack::cni::install {

// The list that embeds what must not be edited: a single configuration, a symbolic link.
inline constexpr const char* kOwnList = "00-sidetrack.conflist";

// What a runtime loads, in its order: *.conf, *.conflist and *.json by bytes; the first counts.
[[nodiscard]] Result<std::vector<std::string>> configurations(const std::filesystem::path& folder);

// Why something was written.
enum class Cause : std::uint8_t {
  kNone,          // nothing was
  kEntryMissing,  // there was no entry of ours
  kEntryMoved,    // it was not the last one, or there were two
  kEntryChanged,  // it said something else
  kCopyOutdated,  // our list did not fit the configuration it embeds
};
[[nodiscard]] std::string_view name_of(Cause cause);

struct Applied {
  std::string file;     // the name of the file that carries our entry now
  std::string source;   // the name of the configuration in force: the same, or what `file` embeds
  std::string network;  // its name
  ino_t inode = 0;      // of `source` when it was read
  std::string main;     // type of its first plugin that is not ours
  std::string last;     // type of the last plugin before, if that was not ours
  Cause cause = Cause::kNone;
};

// Puts the entry into the configuration in force. kNotFound: there is none yet; kInvalid,
// kUnsupported: the one in force cannot be extended and was left alone; kBusy: somebody changed it
// meanwhile, look again; else what failed. What is right already is not written.
[[nodiscard]] Result<Applied> apply(const Settings& settings);

// Takes our entry out of every configuration of the folder, and our own list away. What nobody else
// has changed is then as it was, byte for byte. The first error is returned after all were tried.
[[nodiscard]] Result<void> retract(const Settings& settings);

struct Mention {
  std::string name;     // of the file
  std::string problem;  // why it cannot be read; empty: it names our plugin
};
// The files in the folder, loaded or not, that still name our plugin, or may: those that cannot be
// read, or that somebody would have to correct. What is too large for a configuration and has no
// name of one is none. Fails if the folder cannot be listed.
[[nodiscard]] Result<std::vector<Mention>> mentioning(const Settings& settings);

}  // namespace sidetrack::cni::install
