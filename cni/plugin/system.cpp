// SPDX-License-Identifier: Apache-2.0
#include "cni/plugin/system.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <utility>
#include <vector>

#include "sidetrack/wire/framing.h"

namespace sidetrack::cni::plugin {
namespace {

constexpr std::size_t kMaxListBytes = std::size_t{1} << 20;
constexpr off_t kMaxLogBytes = off_t{10} << 20;

// At most a minute: what waits asks again.
std::chrono::milliseconds left_until(Deadline deadline) {
  using std::chrono::milliseconds;
  return std::clamp(std::chrono::ceil<milliseconds>(deadline - Clock::now()), milliseconds(0),
                    milliseconds(60'000));
}

// kBusy: nothing happened by the deadline.
Result<void> wait_for(int fd, short events, Deadline deadline) {
  pollfd waited{.fd = fd, .events = events, .revents = 0};
  for (;;) {
    const auto left = left_until(deadline);
    const int ready = ::poll(&waited, 1, static_cast<int>(left.count()));
    if (ready > 0) {
      return {};
    }
    if (ready < 0 && errno != EINTR) {
      return errno_error("poll", errno);
    }
    if (ready == 0 && Clock::now() >= deadline) {
      return make_error(ErrorCode::kBusy, "no answer in time");
    }
  }
}

// connect() waits in the kernel while the agent's backlog is full; SO_SNDTIMEO bounds it, which no
// poll() could.
Result<UniqueFd> connect_to(const std::string& path, Deadline deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return make_error(ErrorCode::kInvalid, "the path is empty or longer than 107 bytes");
  }
  path.copy(address.sun_path, path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return errno_error("socket", errno);
  }
  const auto left = std::max(left_until(deadline), std::chrono::milliseconds(1));
  const timeval patience{.tv_sec = left.count() / 1000, .tv_usec = (left.count() % 1000) * 1000};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) {
    return errno_error("socket", errno);
  }
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EAGAIN || errno == EINTR) {
      return make_error(ErrorCode::kBusy, "it does not accept connections in time");
    }
    return errno_error("connect", errno);
  }
  if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0) {
    return errno_error("socket", errno);
  }
  return fd;
}

Result<void> send(int socket, wire::FrameWriter& writer, Deadline deadline) {
  for (;;) {
    ST_TRY(writer.flush(socket));
    if (writer.empty()) {
      return {};
    }
    ST_TRY(wait_for(socket, POLLOUT, deadline));
  }
}

Result<wire::cni::Message> receive(int socket, Deadline deadline) {
  wire::FrameReader reader;
  for (;;) {
    ST_TRY(wait_for(socket, POLLIN, deadline));
    const auto received = reader.read(socket);
    if (!received) {
      return received.error();
    }
    if (!received->frames.empty()) {
      return wire::cni::decode(received->frames.front().body);
    }
    if (received->closed) {
      return make_error(ErrorCode::kIo, "it closed the connection without an answer");
    }
  }
}

}  // namespace

Result<std::string> read_all(int fd, std::size_t limit, Deadline deadline) {
  std::string text;
  std::array<char, 16384> buffer{};
  for (;;) {
    ST_TRY(wait_for(fd, POLLIN, deadline));
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
      continue;
    }
    if (got < 0) {
      return errno_error("read", errno);
    }
    if (got == 0) {
      return text;
    }
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > limit) {
      return make_error(ErrorCode::kInvalid,
                        "it has more than " + std::to_string(limit) + " bytes");
    }
  }
}

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote < 0) {
      return errno_error("write", errno);
    }
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return {};
}

Result<UniqueFd> open_netns(const std::string& path) {
  const std::string what = "CNI_NETNS " + (path.empty() ? "is not set" : path);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) {
    return errno_error(what, errno);
  }
  struct statfs filesystem {};
  if (::fstatfs(fd.get(), &filesystem) != 0 || filesystem.f_type != NSFS_MAGIC ||
      ::ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return make_error(ErrorCode::kInvalid, what + ": not a network namespace");
  }
  return fd;
}

Result<wire::cni::Message> ask(const std::string& socket, const wire::cni::Message& request,
                               UniqueFd netns, Deadline deadline) {
  const auto body = wire::cni::encode(request);
  if (!body) {
    return body.error();
  }
  wire::FrameWriter writer;
  std::vector<UniqueFd> fds;
  if (netns.valid()) {
    fds.push_back(std::move(netns));
  }
  ST_TRY(writer.push(*body, std::move(fds)));
  const auto connection = connect_to(socket, deadline);
  if (!connection) {
    return connection.error();
  }
  ST_TRY(send(connection->get(), writer, deadline));
  return receive(connection->get(), deadline);
}

bool lists(const std::string& file, std::string_view name) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return false;
  }
  // A regular file does not make anybody wait.
  const auto text = read_all(fd.get(), kMaxListBytes, Deadline::max());
  std::string_view rest = text ? std::string_view(*text) : std::string_view();
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    if (line == name) {
      return true;
    }
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  return false;
}

std::chrono::seconds age_in_this_boot(std::chrono::seconds touched, std::chrono::seconds now,
                                      std::chrono::seconds since_boot) {
  return now - std::clamp(touched, now - since_boot, now);
}

std::chrono::seconds untouched_for(const std::string& file) {
  const auto read = [](clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return std::chrono::seconds(time.tv_sec);
  };
  struct stat status {};
  return ::stat(file.c_str(), &status) != 0
             ? std::chrono::seconds::zero()
             : age_in_this_boot(std::chrono::seconds(status.st_mtim.tv_sec), read(CLOCK_REALTIME),
                                read(CLOCK_BOOTTIME));
}

Result<void> append_line(const std::string& file, std::string_view line) {
  const UniqueFd fd(::open(
      file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    return errno_error(file, errno);
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return make_error(ErrorCode::kInvalid, file + ": not a regular file");
  }
  if (status.st_size >= kMaxLogBytes) {
    return {};
  }
  std::array<char, 32> when{};
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::strftime(when.data(), when.size(), "%Y-%m-%dT%H:%M:%SZ ", &parts);
  // One write: lines of plugins that run at the same time do not mix.
  const auto wrote = write_all(fd.get(), when.data() + std::string(line) + "\n");
  return wrote ? Result<void>() : wrote.error().within(file);
}

}  // namespace sidetrack::cni::plugin
