// SPDX-License-Identifier: Apache-2.0
#include "cni/install/installer.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <utility>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "cni/install/binary.h"
#include "cni/install/writers.h"
#include "sidetrack/files/whole_file.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::cni::install {
namespace {

using boost::system::error_code;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kEvents = IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO |
                                  IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

}  // namespace

struct Installer::Impl : std::enable_shared_from_this<Installer::Impl> {
  Impl(boost::asio::io_context& context, Settings wanted, Callbacks calls, const Pace& times)
      : settings(std::move(wanted)),
        callbacks(std::move(calls)),
        pace(times),
        events(context),
        timer(context) {}

  void start();
  void stop();
  void watch();
  void wait_for_events();
  void drain();
  void schedule(milliseconds delay);
  void look();
  [[nodiscard]] Result<Applied> install();
  void note_rewrite(const Applied& applied);
  [[nodiscard]] std::string conflict_text(const Applied& applied) const;
  [[nodiscard]] milliseconds delay() const;

  Settings settings;
  Callbacks callbacks;
  Pace pace;
  Status status;
  Binary binary;
  Writers writers;
  boost::asio::posix::stream_descriptor events;
  boost::asio::steady_timer timer;
  int watch_id = -1;
  bool stopped = false;
  Clock::time_point due = Clock::time_point::max();
  std::string source;                      // the configuration that was in force last
  std::deque<Clock::time_point> rewrites;  // within the window, but for the first
  bool fighting = false;
};

void Installer::Impl::start() {
  files::remove_leftovers(settings.conf_dir);
  files::remove_leftovers(settings.bin_dir);
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd >= 0) {
    events.assign(fd);
    wait_for_events();
  }
  look();
}

void Installer::Impl::stop() {
  stopped = true;
  error_code ignored;
  events.close(ignored);
  timer.cancel();
}

// The folder of that path: it may be another one than before, or not be there yet.
void Installer::Impl::watch() {
  writers.watch(settings.conf_dir);
  if (!events.is_open()) {
    return;
  }
  const int id = ::inotify_add_watch(events.native_handle(), settings.conf_dir.c_str(), kEvents);
  if (id != watch_id && watch_id >= 0) {
    ::inotify_rm_watch(events.native_handle(), watch_id);
  }
  watch_id = id;
}

void Installer::Impl::wait_for_events() {
  events.async_wait(boost::asio::posix::descriptor_base::wait_read,
                    [weak = weak_from_this()](const error_code& error) {
                      const auto self = weak.lock();
                      if (self && !error && !self->stopped) {
                        self->drain();
                        self->schedule(self->delay());
                        self->wait_for_events();
                      }
                    });
}

// What happened does not matter: look() sees what there is. Whoever did it may end at any moment.
void Installer::Impl::drain() {
  writers.read();
  alignas(inotify_event) std::array<char, 16384> buffer{};
  while (::read(events.native_handle(), buffer.data(), buffer.size()) > 0) {
  }
}

// An earlier look stays: events that keep coming must not put it off.
void Installer::Impl::schedule(milliseconds delay) {
  const auto when = Clock::now() + delay;
  if (when >= due) {
    return;
  }
  due = when;
  timer.expires_at(when);
  timer.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (self && !error && !self->stopped) {
      self->look();
    }
  });
}

// Doubles with each rewrite of the last minute.
milliseconds Installer::Impl::delay() const {
  const auto doubled = pace.debounce * (1U << std::min<std::size_t>(rewrites.size(), 16));
  return std::min<milliseconds>(doubled, pace.slowest);
}

// Without the program no configuration may name it.
Result<Applied> Installer::Impl::install() {
  if (auto copied = binary.ensure(settings); !copied) {
    const auto retracted = retract(settings);
    return retracted ? copied.error() : retracted.error().within(copied.error().message);
  }
  return apply(settings);
}

void Installer::Impl::look() {
  due = Clock::time_point::max();
  watch();
  while (!rewrites.empty() && rewrites.front() + pace.window < Clock::now()) {
    rewrites.pop_front();
  }
  fighting = fighting && !rewrites.empty();

  writers.read();
  const Status before = status;
  const auto applied = install();
  if (!applied && applied.error().code == ErrorCode::kBusy) {
    schedule(delay());
    return;
  }
  if (applied) {
    status.file = (settings.conf_dir / applied->file).string();
    status.network = applied->network;
    status.problem.clear();
  } else {
    status.file.clear();
    status.network.clear();
    status.problem = applied.error().message;
  }
  schedule(pace.look_again);
  if (applied && applied->cause != Cause::kNone) {
    note_rewrite(*applied);
  }
  writers.forget();
  if (callbacks.on_change && (before.file != status.file || before.problem != status.problem)) {
    callbacks.on_change(status);
  }
}

void Installer::Impl::note_rewrite(const Applied& applied) {
  ++status.rewrites[applied.cause];
  const bool first = source.empty();
  const std::string text = conflict_text(applied);
  source = applied.source;
  if (first) {
    return;
  }
  rewrites.push_back(Clock::now());
  if (rewrites.size() >= pace.fight && !std::exchange(fighting, true) && callbacks.on_conflict) {
    callbacks.on_conflict(text);
  }
}

std::string Installer::Impl::conflict_text(const Applied& applied) const {
  const std::string path = (settings.conf_dir / applied.source).string();
  std::string what;
  if (source != applied.source) {
    what = "it puts " + path + " before " + source;
  } else if (applied.cause == Cause::kEntryMissing) {
    what = "it takes our entry out of " + path;
  } else if (applied.cause == Cause::kEntryMoved) {
    what = "it puts " + (applied.last.empty() ? "our entry twice" : applied.last + " last") +
           " into " + path;
  } else {
    what = "it changes " + path;
  }
  const std::string who = writers.of(applied.inode);
  return (who.empty() ? "another program" : who) +
         " keeps rewriting the network configuration (network " + applied.network +
         ", main plugin " + applied.main + "): " + what + "; written anew " +
         std::to_string(rewrites.size() + 1) + " times in " +
         std::to_string(pace.window.count() / 1000) +
         " s, from now on more slowly: pods that start meanwhile are enrolled a little later. With "
         "Cilium set cni.exclusive=false";
}

Installer::Installer(boost::asio::io_context& context, Settings settings, Callbacks callbacks,
                     const Pace& pace)
    : impl_(std::make_shared<Impl>(context, std::move(settings), std::move(callbacks), pace)) {}

Installer::~Installer() {
  impl_->stop();
}

void Installer::start() {
  impl_->start();
}

void Installer::stop() {
  impl_->stop();
}

const Status& Installer::status() const {
  return impl_->status;
}

}  // namespace sidetrack::cni::install
