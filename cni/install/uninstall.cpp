// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <system_error>
#include <thread>

#include "cni/install/installer.h"
#include "sidetrack/files/whole_file.h"

namespace sidetrack::cni::install {

Uninstalled uninstall(const Settings& settings, std::chrono::milliseconds reload) {
  Uninstalled done;
  files::remove_leftovers(settings.conf_dir);
  files::remove_leftovers(settings.bin_dir);
  // The plugin may still be called without an agent: it must not refuse anybody's pods then.
  if (const std::string& list = settings.entry.enrolled_namespaces; !list.empty()) {
    if (const auto removed = files::remove_file(list); !removed) {
      done.left.push_back(removed.error().message);
    }
  }
  const std::filesystem::path program = settings.bin_dir / settings.entry.type;
  const auto before = mentioning(settings);
  if (!before) {
    done.left.push_back(before.error().message + "; therefore " + program.string() + " stays");
    return done;
  }
  if (const auto retracted = retract(settings); !retracted) {
    done.left.push_back(retracted.error().message);
  }
  const auto still = mentioning(settings).value_or(*before);
  for (const Mention& one : still) {
    done.left.push_back((one.problem.empty()
                             ? (settings.conf_dir / one.name).string() + " still names "
                             : one.problem + ": it may still name ") +
                        settings.entry.type + "; therefore " + program.string() + " stays");
  }
  if (!still.empty()) {
    return done;
  }
  // No runtime says when it has loaded a configuration; they do so on the event of the rename.
  if (!before->empty()) {
    std::this_thread::sleep_for(reload);
  }
  if (!mentioning(settings).value_or(*before).empty()) {  // an agent puts its entry back
    done.left.push_back(program.string() + ": it is named again in " + settings.conf_dir.string());
    return done;
  }
  if (std::error_code error; !std::filesystem::is_directory(settings.bin_dir, error)) {
    done.left.push_back("the program, wherever it is: there is no folder " +
                        settings.bin_dir.string());
  } else if (const auto removed = files::remove_file(program); !removed) {
    done.left.push_back(removed.error().message);
  }
  std::error_code ignored;
  std::filesystem::remove_all(settings.cache_dir / "cni", ignored);
  return done;
}

}  // namespace sidetrack::cni::install
