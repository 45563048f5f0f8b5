// SPDX-License-Identifier: Apache-2.0
// Installer: keeps the plugin installed while the agent runs. Copies the program, puts our entry
// last into the network configuration in force, and does so again whenever somebody else changed
// that (inotify, and a look every 10 s). Against a program that keeps undoing it, it works ever
// more slowly and says so once. It never leaves a configuration that names a missing program. One
// thread (the io_context's); callbacks run on it and must not destroy the installer.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "cni/install/folder.h"
#include "cni/install/settings.h"
#include "sidetrack/result.h"

namespace sidetrack::cni::install {

struct Pace {
  std::chrono::milliseconds debounce{100};       // from an event to the look at the folder
  std::chrono::milliseconds slowest{10'000};     // the same, in a fight
  std::chrono::milliseconds look_again{10'000};  // without any event
  std::chrono::milliseconds window{60'000};      // in which rewrites are counted
  unsigned fight = 4;                            // rewrites within it that make a fight
};

struct Status {
  std::string file;     // path of the configuration that carries our entry; empty: none does
  std::string network;  // name of the network
  std::string problem;  // why none does, or what is wrong; empty: nothing
  std::map<Cause, std::uint64_t> rewrites;  // ours, by what made them necessary
  bool operator==(const Status&) const = default;
};

struct Callbacks {
  // Another program keeps undoing what we write: its name where that is known, the file and its
  // main plugin, what it changes, how often. Once until there was peace for as long as `window`.
  std::function<void(const std::string&)> on_conflict;
  // File or problem are others than before.
  std::function<void(const Status&)> on_change;
};

class Installer {
 public:
  Installer(boost::asio::io_context& context, Settings settings, Callbacks callbacks,
            const Pace& pace = {});
  ~Installer();
  Installer(const Installer&) = delete;
  Installer& operator=(const Installer&) = delete;

  // Installs now, if there is a configuration, and follows it from then on. Call it when the
  // agent's socket listens. What is wrong is in status(), and tried again.
  void start();
  // Leaves all as it is.
  void stop();

  [[nodiscard]] const Status& status() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with what waits on the loop
};

struct Uninstalled {
  std::vector<std::string> left;  // what could not be removed, and why: for a person to read
};

// Removes the list of enrolled namespaces (nobody is refused from then on), takes the entry out
// (retract), waits for runtimes to load the configuration without it, removes the program and the
// copies in the cache. The program stays while any file in the folder names it, or may: pods could
// neither start nor end without it. Blocking.
[[nodiscard]] Uninstalled uninstall(
    const Settings& settings, std::chrono::milliseconds reload = std::chrono::milliseconds(3000));

}  // namespace sidetrack::cni::install
