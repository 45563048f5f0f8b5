// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/files_source.h"

#include <malloc.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/kube/differences.h"
#include "agent/kube/folder.h"
#include "agent/kube/folder_watch.h"

namespace sidetrack::kube {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Long enough for a rename pair or a batch of files to arrive as one change, short enough for 50 ms
// in all.
constexpr milliseconds kGather{10};
constexpr milliseconds kCheck{1000};

}  // namespace

// What lives from start() to stop(). One thread: that of `io`.
class FilesSource::Run : public std::enable_shared_from_this<FilesSource::Run> {
 public:
  using Deliver = std::function<void(std::shared_ptr<const Snapshot>)>;
  Run(asio::io_context& io, const std::filesystem::path& path, Deliver deliver)
      : path_(path),
        deliver_(std::move(deliver)),
        folder_(path),
        watch_(path),
        events_(io),
        gather_(io),
        check_(io) {}

  void start() {
    asio::post(events_.get_executor(), [self = shared_from_this()] {
      if (!self->stopped_) {
        self->rewatch();
        self->deliver();
        self->check_later();
      }
    });
  }

  void refresh() {
    everything_ = true;
    gather();
  }

  void stop() {
    stopped_ = true;
    boost::system::error_code ignored;
    events_.close(ignored);
    gather_.cancel();
    check_.cancel();
  }

 private:
  // Watches first and reads then, so that no change falls between.
  void rewatch() {
    const Result<void> watched = watch_.watch();
    watch_problem_.reset();
    if (!watched && watched.error().code != ErrorCode::kNotFound) {
      watch_problem_ =
          Problem{.object = "folder " + path_.string(),
                  .key = "",
                  .value = "",
                  .reason = watched.error().message + "; changes are seen once a second",
                  .warning = true};
    }
    watching_ = watched.has_value();
    if (watch_.fd() >= 0 && !events_.is_open()) {
      events_.assign(dup(watch_.fd()));
      wait_for_events();
    }
    folder_.rescan();
  }

  void wait_for_events() {
    events_.async_wait(asio::posix::stream_descriptor::wait_read,
                       [self = shared_from_this()](const boost::system::error_code& error) {
                         if (!error && !self->stopped_) {
                           self->take_events();
                           self->wait_for_events();
                         }
                       });
  }

  void take_events() {
    FolderEvents events = watch_.read_events();
    for (const std::string& name : events.changed) {
      being_written_.erase(name);
      if (ObjectFolder::is_object_file(name)) {
        dirty_.insert(name);
      } else {
        links_ = true;  // "..data" of a ConfigMap volume
      }
    }
    for (const std::string& name : events.created) {
      if (ObjectFolder::is_object_file(name)) {
        dirty_.erase(name);
        being_written_.emplace(name, steady_clock::now());
      }
    }
    everything_ = everything_ || events.overflow;
    rewatch_ = rewatch_ || events.gone;
    if (!dirty_.empty() || links_ || everything_ || rewatch_) {
      gather();
    }
  }

  void gather() {
    if (std::exchange(gathering_, true)) {
      return;
    }
    gather_.expires_after(kGather);
    gather_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && !self->stopped_) {
        self->gathering_ = false;
        self->apply();
      }
    });
  }

  void apply() {
    if (std::exchange(rewatch_, false)) {
      rewatch();
    }
    if (std::exchange(everything_, false)) {
      being_written_.clear();
      folder_.reread_everything();
    }
    for (const std::string& name : std::exchange(dirty_, {})) {
      folder_.reread(name);
    }
    if (std::exchange(links_, false)) {
      folder_.rescan_links();
    }
    deliver();
  }

  void check_later() {
    check_.expires_after(kCheck);
    check_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && !self->stopped_) {
        self->check();
        self->check_later();
      }
    });
  }

  void check() {
    if (!watching_ || !watch_.is_current()) {
      rewatch_ = true;
    }
    // Made, then neither closed nor renamed for a second (a link made by linkat of a nameless file
    // has no other event).
    const auto limit = steady_clock::now() - kCheck;
    std::erase_if(being_written_, [&](const auto& file) {
      const bool overdue = file.second <= limit;
      if (overdue) {
        dirty_.insert(file.first);
      }
      return overdue;
    });
    links_ = true;
    apply();
  }

  void deliver() {
    auto now = std::make_shared<Snapshot>(folder_.snapshot());
    if (watch_problem_) {
      now->problems.push_back(*watch_problem_);
    }
    now->changes = differences(delivered_ ? delivered_->objects : ObjectSet(), now->objects);
    if (stopped_ ||
        (delivered_ && now->changes == ObjectKeys() && delivered_->problems == now->problems &&
         delivered_->complete == now->complete)) {
      return;
    }
    delivered_ = std::move(now);
    deliver_(delivered_);
    // A large file's tree takes ten times its size while it is read; the C library keeps it all.
    malloc_trim(0);
  }

  std::filesystem::path path_;
  Deliver deliver_;
  ObjectFolder folder_;
  FolderWatch watch_;
  asio::posix::stream_descriptor events_;
  asio::steady_timer gather_;
  asio::steady_timer check_;
  std::shared_ptr<const Snapshot> delivered_;
  std::optional<Problem> watch_problem_;
  std::set<std::string> dirty_;
  std::map<std::string, steady_clock::time_point> being_written_;
  bool links_ = false;
  bool everything_ = false;
  bool rewatch_ = false;
  bool watching_ = false;
  bool gathering_ = false;
  bool stopped_ = false;
};

FilesSource::FilesSource(asio::io_context& io, asio::io_context& reading,
                         std::filesystem::path folder)
    : io_(io), reading_(reading), folder_(std::move(folder)) {}

FilesSource::~FilesSource() {
  stop();
}

void FilesSource::start(Listener listener) {
  stop();
  listener_ = std::make_shared<Listener>(std::move(listener));
  run_ = std::make_shared<Run>(
      reading_, folder_,
      [&io = io_, weak = std::weak_ptr(listener_)](std::shared_ptr<const Snapshot> snapshot) {
        asio::post(io, [weak, snapshot = std::move(snapshot)] {
          if (const auto wanted = weak.lock()) {
            (*wanted)(*snapshot);
          }
        });
      });
  run_->start();
}

void FilesSource::refresh() {
  if (run_) {
    asio::post(reading_, [run = run_] { run->refresh(); });
  }
}

void FilesSource::stop() {
  listener_.reset();  // what is on its way is for nobody
  if (run_) {
    asio::post(reading_, [run = std::move(run_)] { run->stop(); });
    run_.reset();
  }
}

}  // namespace sidetrack::kube
