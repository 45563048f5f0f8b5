// SPDX-License-Identifier: Apache-2.0
#include "agent/selftest/rig.h"

#include <fmt/format.h>
#include <linux/io_uring.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "agent/dataplane/netns_cookies.h"
#include "agent/dataplane/others.h"
#include "agent/pods/netns.h"
#include "sidetrack/cgroup/process_cgroup.h"

namespace sidetrack::selftest {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{2};
constexpr std::chrono::seconds kArming{10};

Result<void> write_pid(const std::string& cgroup) {
  std::ofstream procs(cgroup + "/cgroup.procs");
  procs << getpid() << std::flush;
  return procs ? Result<void>() : errno_error("enter cgroup " + cgroup, errno);
}

// What runs that were killed left behind; `remove` says whether it could.
void remove_stale(const std::string& folder, const std::string& prefix,
                  bool (*remove)(const std::string&), std::vector<std::string>& removed) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name.rfind(prefix, 0) != 0) {
      continue;
    }
    // In a container the next run may get the same process id.
    const int pid = std::atoi(name.c_str() + prefix.size());
    if ((pid == getpid() || kill(pid, 0) != 0) && remove(entry.path())) {
      removed.push_back(entry.path());
    }
  }
}

std::string pin_prefix(const fs::path& pin_dir) {
  return pin_dir.filename().string() + "-selftest-";
}

std::uint64_t cookie_of(const UniqueFd& fd) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  getsockopt(fd.get(), SOL_SOCKET, SO_COOKIE, &cookie, &size);
  return cookie;
}

}  // namespace

std::uint64_t sent_by_tcp(const UniqueFd& fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size);
  return info.tcpi_bytes_sent + info.tcpi_notsent_bytes;
}

bool try_io_uring() {
  io_uring_params parameters{};
  return UniqueFd(static_cast<int>(syscall(SYS_io_uring_setup, 1, &parameters))).valid();
}

std::vector<std::string> clean_up(const Places& places) {
  std::vector<std::string> removed;
  const fs::path pins(places.pin_dir);
  remove_stale(
      pins.parent_path(), pin_prefix(pins),
      [](const std::string& dir) { return dataplane::Dataplane::uninstall(dir).has_value(); },
      removed);
  remove_stale(
      places.cgroup_dir, dataplane::kSelfTestCgroup,
      [](const std::string& dir) { return rmdir(dir.c_str()) == 0; }, removed);
  return removed;
}

bool becomes(const UniqueFd& fd, short events) {
  pollfd wanted{fd.get(), events, 0};
  return poll(&wanted, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) == 1;
}

Result<void> send_all(const UniqueFd& fd, const std::string& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t sent = send(fd.get(), bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
    } else if (errno != EAGAIN || !becomes(fd, POLLOUT)) {
      return errno_error("send", errno);
    }
  }
  return {};
}

Result<std::string> receive(const UniqueFd& fd, std::size_t length) {
  std::string bytes(length, '\0');
  std::size_t done = 0;
  while (done < length) {
    const ssize_t got = recv(fd.get(), bytes.data() + done, length - done, 0);
    if (got == 0) {
      break;
    }
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (errno != EAGAIN || !becomes(fd, POLLIN)) {
      return errno_error(fmt::format("receive byte {} of {}", done, length), errno);
    }
  }
  bytes.resize(done);
  return bytes;
}

Result<std::unique_ptr<Rig>> Rig::make(const Places& places) {
  std::unique_ptr<Rig> rig(new Rig);
  (void)clean_up(places);
  ST_TRY(rig->enter_cgroup(places.cgroup_dir));
  const fs::path pins(places.pin_dir);
  rig->pin_dir_ = pins.parent_path().string() + "/" + pin_prefix(pins) + std::to_string(getpid());
  auto opened = dataplane::Dataplane::open({.pin_dir = rig->pin_dir_, .cgroup_dir = rig->cgroup_});
  ST_TRY(opened);
  rig->dataplane_ = std::move(*opened);
  if (!rig->fast_path_problem().empty()) {
    return rig;
  }
  ST_TRY(rig->enter_netns(places.netns));
  // Here, where no sentinel minds: an agent's own would demote the node.
  rig->has_io_uring_ = try_io_uring();
  ST_TRY(rig->dataplane_->hold_fins(true));
  ST_TRY(rig->set_enabled(true));
  ST_TRY(rig->enrol());
  return rig;
}

Rig::~Rig() {
  dataplane_.reset();
  if (!pin_dir_.empty()) {
    (void)dataplane::Dataplane::uninstall(pin_dir_);
  }
  if (!cgroup_.empty()) {
    (void)write_pid(home_cgroup_);
    rmdir(cgroup_.c_str());
  }
}

Result<void> Rig::enter_cgroup(const std::string& parent) {
  home_cgroup_ = cgroup::folder_of_process(getpid()).value_or(parent);
  const std::string cgroup = parent + "/" + dataplane::kSelfTestCgroup + std::to_string(getpid());
  if (mkdir(cgroup.c_str(), 0755) != 0) {
    return errno_error("make cgroup " + cgroup, errno);
  }
  cgroup_ = cgroup;
  return write_pid(cgroup);
}

Result<void> Rig::enter_netns(const std::string& path) {
  if (path.empty()) {
    if (unshare(CLONE_NEWNET) != 0) {
      return errno_error("make a network namespace", errno);
    }
  } else {
    auto netns = pods::open_netns(path);
    ST_TRY(netns);
    if (setns(netns->get(), CLONE_NEWNET) != 0) {
      return errno_error("enter netns " + path, errno);
    }
  }
  dataplane::NetnsCookies cookies(cgroup_);
  auto facts = pods::inspect_own_netns([&] { return cookies.here(); });
  ST_TRY(facts);
  netns_cookie_ = facts->cookie;
  listener_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  ifreq interface {};
  std::strcpy(interface.ifr_name, "lo");
  interface.ifr_flags = IFF_UP;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (ioctl(listener_.get(), SIOCSIFFLAGS, &interface) != 0 ||
      bind(listener_.get(), generic, size) != 0 || listen(listener_.get(), 16) != 0 ||
      getsockname(listener_.get(), generic, &size) != 0) {
    return errno_error("listen on loopback", errno);
  }
  port_ = address.sin_port;
  return {};
}

Result<void> Rig::enrol() {
  st_pod row{};
  row.mode = ST_MODE_PASSTHROUGH;
  row.fast_path = ST_FAST_PATH_AUTO;
  row.namespace_slot = 1;
  return dataplane_->upsert_pod(netns_cookie_, row);
}

Result<void> Rig::set_enabled(bool on) {
  st_fast_config config{};
  config.enabled = on ? 1 : 0;
  config.window = kWindow;
  config.round_trips = 1;
  config.loopback = 1;
  config.charges_reader = charges_reader_ ? 1 : 0;
  return dataplane_->set_fast_config(config);
}

Result<void> Rig::set_charges_reader(bool charges) {
  charges_reader_ = charges;
  return set_enabled(true);
}

Result<void> Rig::set_sentinel(dataplane::Sentinel sentinel) {
  ST_TRY(dataplane_->set_sentinel(sentinel));
  return {};
}

Result<void> Rig::let_fins_go() const {
  return dataplane_->adopter().nudge(ST_NUDGE_LET_GO);
}

const std::string& Rig::fast_path_problem() const {
  return dataplane_->fast_path_problem();
}

bool Rig::has_fentry() const {
  return dataplane_->has_fentry_sentinel();
}

Result<st_fast_reason> Rig::take_demotion() {
  auto state = dataplane_->pod_state(netns_cookie_);
  ST_TRY(state);
  const auto reason = *state ? static_cast<st_fast_reason>((*state)->demoted) : ST_FAST_NONE;
  ST_TRY(dataplane_->erase_pod(netns_cookie_));
  ST_TRY(enrol());
  return reason;
}

Result<void> Rig::adopt(const Ends& ends) const {
  auto rows = dataplane_->pairs();
  ST_TRY(rows);
  for (const dataplane::PairRow& row : *rows) {
    if (row.pair.end[ST_SIDE_CLIENT].cookie != cookie_of(ends.client) ||
        row.pair.end[ST_SIDE_SERVER].cookie != cookie_of(ends.server)) {
      continue;
    }
    for (const st_adopt_op op : {ST_ADOPT_INSERT, ST_ADOPT_ARM}) {
      for (const st_pair_side side : {ST_SIDE_CLIENT, ST_SIDE_SERVER}) {
        st_adopt_request request{};
        request.op = op;
        request.key = row.key;
        request.self = row.pair.end[side];
        request.peer = row.pair.end[side == ST_SIDE_CLIENT ? ST_SIDE_SERVER : ST_SIDE_CLIENT];
        request.side = static_cast<std::uint8_t>(side);
        request.kind = row.pair.kind;
        auto answer = dataplane_->adopter().run(request);
        ST_TRY(answer);
        if (*answer != ST_FAST_NONE) {
          return make_error(ErrorCode::kInternal,
                            fmt::format("a socket was refused, reason {}", int{*answer}));
        }
      }
    }
    return dataplane_->adopter().nudge(0);  // room for what waits past TCP
  }
  return make_error(ErrorCode::kNotFound, "the two ends of a connection were not found");
}

Result<bool> Rig::is_fast(const UniqueFd& from, const UniqueFd& to) const {
  const std::uint64_t before = sent_by_tcp(from);
  ST_TRY(send_all(from, "x"));
  ST_TRY(receive(to, 1));
  return sent_by_tcp(from) == before;
}

Result<void> Rig::prepare(unsigned connections) {
  while (adopted_.size() < connections) {
    auto ends = open_adopted();
    ST_TRY(ends);
    adopted_.push_back(std::move(*ends));
  }
  return {};
}

Result<Ends> Rig::open_adopted() {
  Ends ends;
  ends.client = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = port_;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(ends.client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return errno_error("connect", errno);
  }
  int on = 1;
  ioctl(ends.client.get(), FIONBIO, &on);
  setsockopt(ends.client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (!becomes(listener_, POLLIN)) {
    return make_error(ErrorCode::kIo, "the listener sees no connection");
  }
  ends.server = UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  setsockopt(ends.server.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  for (int i = 0; i < 4; ++i) {
    ST_TRY(is_fast(ends.client, ends.server));
    ST_TRY(is_fast(ends.server, ends.client));
  }
  ST_TRY(adopt(ends));
  return ends;
}

Result<Ends> Rig::open_fast() {
  ST_TRY(prepare(1));
  Ends ends = std::move(adopted_.back());
  adopted_.pop_back();
  for (const auto deadline = Clock::now() + kArming; Clock::now() < deadline;) {
    auto there = is_fast(ends.client, ends.server);
    ST_TRY(there);
    auto back = is_fast(ends.server, ends.client);
    ST_TRY(back);
    if (*there && *back) {
      return ends;
    }
    poll(nullptr, 0, 10);  // arming takes a second
  }
  return make_error(ErrorCode::kInternal, "an adopted connection still uses TCP");
}

Result<st_fast_reason> Rig::look(const UniqueFd& fd) const {
  auto rows = dataplane_->pairs();
  ST_TRY(rows);
  for (const dataplane::PairRow& row : *rows) {
    for (const st_pair_end& end : row.pair.end) {
      if (end.cookie == cookie_of(fd)) {
        return dataplane_->adopter().run({.op = ST_ADOPT_LOOK, .self = end});
      }
    }
  }
  return make_error(ErrorCode::kNotFound, "the connection is not known");
}

}  // namespace sidetrack::selftest
