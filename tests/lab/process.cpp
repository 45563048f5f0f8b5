// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "sidetrack/unique_fd.h"

extern char** environ;

namespace sidetrack::lab {
namespace {

const milliseconds kLastWords = scaled(milliseconds(2000));

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) {
    return errno_error("make a pipe", errno);
  }
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// A socket pair instead of a pipe for stdin: send() can then say MSG_NOSIGNAL, a test must not die
// of SIGPIPE.
Result<Pipe> make_input() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return errno_error("make a socket pair", errno);
  }
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::vector<std::string> environment_with(const std::map<std::string, std::string>& added) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!added.contains(std::string(text.substr(0, text.find('='))))) {
      result.emplace_back(text);
    }
  }
  for (const auto& [key, value] : added) {
    result.push_back(key + "=" + value);
  }
  return result;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (std::string& text : strings) {
    result.push_back(text.data());
  }
  result.push_back(nullptr);
  return result;
}

Result<pid_t> spawn(const ProcessSpec& spec, int input, int output, int error, int status) {
  std::vector<std::string> arguments = {lab_program("st_launch"), std::to_string(::getpid()),
                                        spec.cgroup_path, spec.netns_path};
  arguments.insert(arguments.end(), spec.arguments.begin(), spec.arguments.end());
  std::vector<std::string> environment = environment_with(spec.environment);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, error, STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions, status,
                                   STDERR_FILENO + 1);  // last: it may stand where a source stood
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  const int failure = ::posix_spawn(&pid, arguments[0].c_str(), &actions, &attributes,
                                    pointers_to(arguments).data(), pointers_to(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) {
    return errno_error("start " + arguments[0], failure);
  }
  return pid;
}

// What st_launch says until it has become the program; nothing if it has.
std::string read_launch_error(int status) {
  std::string message;
  std::array<char, 512> buffer;
  for (ssize_t count = 1; count > 0;) {
    count = ::read(status, buffer.data(), buffer.size());
    if (count > 0) {
      message.append(buffer.data(), static_cast<std::size_t>(count));
    } else if (count < 0 && errno == EINTR) {
      count = 1;
    }
  }
  return message;
}

// A thread on another CPU goes on for a moment when kill() has returned.
Result<void> wait_until_stopped(pid_t pid) {
  siginfo_t info{};
  const bool stands = eventually(kPatience, [&] {
    return ::waitid(P_PID, static_cast<id_t>(pid), &info, WSTOPPED | WEXITED | WNOWAIT | WNOHANG) !=
               0 ||
           info.si_pid == pid;
  });
  if (!stands) {
    return make_error(ErrorCode::kBusy, fmt::format("process {} does not stop", pid));
  }
  return {};
}

}  // namespace

struct Process::State {
  std::string name;
  pid_t pid = -1;
  UniqueFd pidfd;
  UniqueFd input;
  UniqueFd output;
  UniqueFd error;
  UniqueFd log;
  UniqueFd stop{::eventfd(0, EFD_CLOEXEC)};
  bool reaped = false;
  int exit_status = 0;

  std::mutex mutex;
  std::condition_variable changed;
  std::string all;
  std::string out;
  std::size_t lines_read = 0;  // bytes of `out` that read_line has given
  bool ended = false;          // both streams are at their end
  std::jthread reader;         // last: it uses all of the above

  void read_streams();
  bool take_from(UniqueFd& stream, bool is_stdout);
  bool reap(int options);
};

bool Process::State::take_from(UniqueFd& stream, bool is_stdout) {
  std::array<char, 65536> buffer;
  const ssize_t count = ::read(stream.get(), buffer.data(), buffer.size());
  if (count < 0 && errno == EINTR) {
    return true;
  }
  if (count <= 0) {
    stream.reset();
    return false;
  }
  const std::string_view text(buffer.data(), static_cast<std::size_t>(count));
  if (log.valid()) {
    (void)!::write(log.get(), text.data(), text.size());
  }
  {
    const std::lock_guard lock(mutex);
    all.append(text);
    if (is_stdout) {
      out.append(text);
    }
  }
  changed.notify_all();
  return true;
}

void Process::State::read_streams() {
  while (output.valid() || error.valid()) {
    std::array<pollfd, 3> wanted{
        {{output.get(), POLLIN, 0}, {error.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}}};
    if (::poll(wanted.data(), wanted.size(), -1) < 0 && errno != EINTR) {
      break;
    }
    if (wanted[0].revents != 0) {
      take_from(output, true);
    }
    if (wanted[1].revents != 0) {
      take_from(error, false);
    }
    if (wanted[2].revents != 0 && wanted[0].revents == 0 && wanted[1].revents == 0) {
      break;  // a grandchild may hold the pipes open for ever
    }
  }
  {
    const std::lock_guard lock(mutex);
    ended = true;
  }
  changed.notify_all();
}

bool Process::State::reap(int options) {
  if (!reaped) {
    int status = 0;
    pid_t answer = -1;
    do {
      answer = ::waitpid(pid, &status, options);
    } while (answer < 0 && errno == EINTR);
    if (answer == pid) {
      reaped = true;
      exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
  }
  return reaped;
}

Process::Process(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Process>> Process::start(const ProcessSpec& spec) {
  auto input = make_input();
  auto output = make_pipe();
  auto error = make_pipe();
  auto status = make_pipe();
  if (!input || !output || !error || !status) {
    return errno_error("make pipes for " + spec.arguments.front(), errno);
  }
  auto state = std::make_unique<State>();
  if (!spec.log_file.empty()) {
    state->log =
        UniqueFd(::open(spec.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!state->log.valid()) {
      return errno_error("open " + spec.log_file, errno);
    }
  }
  auto pid =
      spawn(spec, input->read.get(), output->write.get(), error->write.get(), status->write.get());
  ST_TRY(pid);
  status->write.reset();
  if (const std::string failure = read_launch_error(status->read.get()); !failure.empty()) {
    ::waitpid(*pid, nullptr, 0);
    return make_error(ErrorCode::kInternal, failure);
  }
  state->name = spec.arguments.front();
  state->pid = *pid;
  state->pidfd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, *pid, 0)));
  state->input = std::move(input->write);
  state->output = std::move(output->read);
  state->error = std::move(error->read);
  state->reader = std::jthread([raw = state.get()] { raw->read_streams(); });
  return std::unique_ptr<Process>(new Process(std::move(state)));
}

Process::~Process() {
  kill_hard();
  const std::uint64_t one = 1;
  (void)!::write(state_->stop.get(), &one, sizeof(one));
}

pid_t Process::pid() const {
  return state_->pid;
}

bool Process::running() {
  return !state_->reap(WNOHANG);
}

Result<int> Process::wait(milliseconds within) {
  if (!state_->reaped) {
    const Clock::time_point deadline = Clock::now() + within;
    pollfd wanted{state_->pidfd.get(), POLLIN, 0};
    int ready = -1;
    do {
      ready = ::poll(&wanted, 1, poll_timeout(deadline));
    } while (ready < 0 && errno == EINTR);
    if (ready <= 0 || !state_->reap(0)) {
      return make_error(ErrorCode::kBusy,
                        fmt::format("{} (pid {}) still runs after {} ms; output: {}", state_->name,
                                    state_->pid, within.count(), output()));
    }
    // Its last words may still be in the pipe. Only a grandchild that lives on can hold that open.
    (void)wait_for_end_of_output(kLastWords);
  }
  return state_->exit_status;
}

Result<void> Process::signal(int number) {
  if (state_->reaped) {
    return make_error(ErrorCode::kNotFound, state_->name + " has ended");
  }
  if (::kill(state_->pid, number) != 0) {
    return errno_error("signal " + state_->name, errno);
  }
  return number == SIGSTOP ? wait_until_stopped(state_->pid) : Result<void>{};
}

Result<int> Process::terminate(milliseconds within) {
  if (!state_->reaped) {
    (void)signal(SIGTERM);
    if (!wait(within)) {
      kill_hard();
    }
  }
  return state_->exit_status;
}

void Process::kill_hard() {
  if (!state_->reaped) {
    ::kill(state_->pid, SIGKILL);
    state_->reap(0);
  }
}

Result<void> Process::wait_for_output(std::string_view text, milliseconds within) {
  std::unique_lock lock(state_->mutex);
  const auto seen = [&] { return state_->all.find(text) != std::string::npos; };
  state_->changed.wait_for(lock, within, [&] { return seen() || state_->ended; });
  if (seen()) {
    return {};
  }
  return make_error(state_->ended ? ErrorCode::kNotFound : ErrorCode::kBusy,
                    fmt::format("{} {} without saying \"{}\"; output: {}", state_->name,
                                state_->ended ? "ended" : fmt::format("ran {} ms", within.count()),
                                text, state_->all));
}

Result<void> Process::wait_for_end_of_output(milliseconds within) {
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_for(lock, within, [&] { return state_->ended; })) {
    return make_error(ErrorCode::kBusy, state_->name + " or a child of it holds its output open");
  }
  return {};
}

std::string Process::output() const {
  const std::lock_guard lock(state_->mutex);
  return state_->all;
}

std::string Process::standard_output() const {
  const std::lock_guard lock(state_->mutex);
  return state_->out;
}

Result<void> Process::write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::send(state_->input.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return errno_error("write to " + state_->name, errno);
    }
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

void Process::close_input() {
  state_->input.reset();
}

Result<std::string> Process::read_line(milliseconds within) {
  std::unique_lock lock(state_->mutex);
  std::size_t end = std::string::npos;
  const auto complete = [&] {
    end = state_->out.find('\n', state_->lines_read);
    return end != std::string::npos;
  };
  state_->changed.wait_for(lock, within, [&] { return complete() || state_->ended; });
  if (!complete()) {
    return make_error(state_->ended ? ErrorCode::kNotFound : ErrorCode::kBusy,
                      fmt::format("no line from {} within {} ms; output: {}", state_->name,
                                  within.count(), state_->all));
  }
  std::string line = state_->out.substr(state_->lines_read, end - state_->lines_read);
  state_->lines_read = end + 1;
  return line;
}

}  // namespace sidetrack::lab
