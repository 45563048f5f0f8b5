// SPDX-License-Identifier: Apache-2.0
// FilesSource: the objects of a folder (docs/files-source.md), delivered at the start and within 50
// ms of a change. Everything runs on the io_context's thread. Once a second it looks for what
// inotify cannot tell: a folder that came back, a link whose target changed.
#pragma once

#include <filesystem>
#include <memory>

#include "agent/kube/source.h"

namespace boost::asio {
class io_context;
}

namespace sidetrack::kube {

class FilesSource : public Source {
 public:
  // `io` must outlive this.
  FilesSource(boost::asio::io_context& io, std::filesystem::path folder);
  FilesSource(const FilesSource&) = delete;
  FilesSource& operator=(const FilesSource&) = delete;
  ~FilesSource() override;

  // The first snapshot comes from the event loop, never from within start(), also for an empty or
  // missing folder.
  void start(Listener listener) override;
  void refresh() override;
  // No call of the listener after this; start() may follow.
  void stop() override;

 private:
  class Run;

  boost::asio::io_context& io_;
  std::filesystem::path folder_;
  // Shared with the handlers that wait in the io_context: they may run after this is gone.
  std::shared_ptr<Run> run_;
};

}  // namespace sidetrack::kube
