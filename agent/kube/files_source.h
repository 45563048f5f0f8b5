// SPDX-License-Identifier: Apache-2.0
// FilesSource: the objects of a folder (docs/files-source.md), delivered at the start and within 50
// ms of a change. It reads where `reading` runs (a large file takes seconds); the listener runs on
// the thread of `io`, as all calls must. Once a second it looks for what inotify cannot tell: a
// folder that came back, a link whose target changed.
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
  // Both must outlive this; they may be the same.
  FilesSource(boost::asio::io_context& io, boost::asio::io_context& reading,
              std::filesystem::path folder);
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
  boost::asio::io_context& reading_;
  std::filesystem::path folder_;
  std::shared_ptr<Listener> listener_;
  std::shared_ptr<Run> run_;  // shared with the handlers that wait in `reading`
};

}  // namespace sidetrack::kube
