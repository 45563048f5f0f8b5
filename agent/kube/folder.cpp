// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <set>
#include <system_error>
#include <utility>

#include "agent/kube/document.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::kube {
namespace {

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

std::int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * kNanosecondsPerSecond + time.tv_nsec;
}

// What became of the objects of a file that cannot be used.
std::string with_fate(std::string reason, std::size_t kept) {
  return kept == 0 ? std::move(reason)
                   : fmt::format("{}; its {} last good objects stay in use", reason, kept);
}

// Objects of `older` that `newer` does not name, then `newer`: what a file with one bad object
// stands for.
std::vector<Object> overlay(const std::vector<Object>& older, std::vector<Object> newer) {
  std::set<std::string> named;
  for (const Object& object : newer) {
    named.insert(object_name(object));
  }
  std::vector<Object> result;
  for (const Object& object : older) {
    if (!named.contains(object_name(object))) {
      result.push_back(object);
    }
  }
  for (Object& object : newer) {
    result.push_back(std::move(object));
  }
  return result;
}

}  // namespace

ObjectFolder::ObjectFolder(std::filesystem::path path) : path_(std::move(path)) {}

bool ObjectFolder::is_object_file(std::string_view name) {
  return !name.starts_with('.') &&
         (name.ends_with(".yaml") || name.ends_with(".yml") || name.ends_with(".json"));
}

ObjectFolder::Identity ObjectFolder::identity_of(const struct stat& status) {
  return Identity{.device = status.st_dev,
                  .inode = status.st_ino,
                  .size = status.st_size,
                  .modified_ns = nanoseconds(status.st_mtim),
                  .changed_ns = nanoseconds(status.st_ctim)};
}

std::string ObjectFolder::source_name(const std::string& name) const {
  return "file " + (path_ / name).string();
}

Result<ObjectFolder::Content> ObjectFolder::read(const std::string& name) const {
  // O_NONBLOCK: a FIFO of this name must not hold the agent up.
  const UniqueFd fd(::open((path_ / name).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0) {
    return errno_error("open", errno);
  }
  if (!S_ISREG(status.st_mode)) {
    return make_error(ErrorCode::kInvalid, "is not a regular file");
  }
  Content content{.identity = identity_of(status), .text = {}};
  std::array<char, 65536> buffer{};
  while (content.text.size() <= kMaxFileBytes) {
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    if (count == 0) {
      return content;
    }
    if (count < 0 && errno != EINTR) {
      return errno_error("read", errno);
    }
    content.text.append(buffer.data(), count < 0 ? 0 : static_cast<std::size_t>(count));
  }
  return file_too_large();
}

bool ObjectFolder::changed(const std::string& name, const File& file) const {
  struct stat status {};
  const bool found = ::stat((path_ / name).c_str(), &status) == 0;
  return !found || !file.identity || *file.identity != identity_of(status);
}

void ObjectFolder::load(const std::string& name, File& file) const {
  const std::string source = source_name(name);
  Result<Content> content = read(name);
  file.whole = false;
  if (!content) {
    file.identity.reset();
    file.problems = {Problem{.object = source,
                             .key = "",
                             .value = "",
                             .reason = with_fate(content.error().message, file.objects.size())}};
    return;
  }
  file.identity = content->identity;
  // Cut, and not yet written again: who wants the objects gone removes the file.
  if (content->text.find_first_not_of(" \t\r\n") == std::string::npos) {
    file.problems = {Problem{
        .object = source,
        .key = "",
        .value = "",
        .reason = with_fate("is empty; remove it if no objects are meant", file.objects.size())}};
    return;
  }
  const TextFormat format = name.ends_with(".json") ? TextFormat::kJson : TextFormat::kYaml;
  TextObjects decoded = decode_text(content->text, format, source);
  file.problems = std::move(decoded.problems);
  if (!decoded.parsed) {
    for (Problem& problem : file.problems) {
      problem.reason = with_fate(std::move(problem.reason), file.objects.size());
    }
  } else if (decoded.complete) {
    file.whole = true;
    file.objects = std::move(decoded.objects);
  } else {
    file.objects = overlay(file.objects, std::move(decoded.objects));
  }
}

void ObjectFolder::reread(const std::string& name) {
  struct stat status {};
  const bool found = ::lstat((path_ / name).c_str(), &status) == 0;
  if (!found && errno == ENOENT) {
    std::error_code error;
    if (std::filesystem::is_directory(path_, error)) {  // else it went with the folder: last good
      files_.erase(name);
    }
    return;
  }
  if (found && S_ISDIR(status.st_mode)) {
    return;
  }
  File& file = files_[name];
  file.is_link = found && S_ISLNK(status.st_mode);
  load(name, file);
}

void ObjectFolder::rescan() {
  scan(false);
}

void ObjectFolder::reread_everything() {
  scan(true);
}

void ObjectFolder::scan(bool everything) {
  std::set<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(path_, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (is_object_file(name)) {
      names.insert(std::move(name));
    }
  }
  if (error) {
    folder_problem_ = Problem{
        .object = "folder " + path_.string(),
        .key = "",
        .value = "",
        .reason = error.message() + (files_.empty() ? "" : "; the last good objects stay in use")};
    return;
  }
  folder_problem_.reset();
  std::erase_if(files_, [&](const auto& file) { return !names.contains(file.first); });
  for (const std::string& name : names) {
    const auto known = files_.find(name);
    if (everything || known == files_.end() || changed(name, known->second)) {
      reread(name);
    }
  }
}

void ObjectFolder::rescan_links() {
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) {
    if (file.is_link && changed(name, file)) {
      names.push_back(name);
    }
  }
  for (const std::string& name : names) {
    reread(name);
  }
}

Snapshot ObjectFolder::snapshot() const {
  Snapshot result;
  std::map<std::string, std::string> owners;
  if (folder_problem_) {
    result.problems.push_back(*folder_problem_);
    result.complete = false;
  }
  for (const auto& [name, file] : files_) {
    result.complete = result.complete && file.whole;
    result.problems.insert(result.problems.end(), file.problems.begin(), file.problems.end());
    for (const Object& object : file.objects) {
      const auto [owner, is_new] = owners.emplace(object_name(object), name);
      if (!is_new) {
        result.problems.push_back(Problem{
            .object = owner->first,
            .key = "file",
            .value = owner->second,
            .reason =
                fmt::format("is also in {}, which is used because its name sorts later", name),
            .warning = true});
        owner->second = name;
      }
      put_object(result.objects, object);
    }
  }
  return result;
}

}  // namespace sidetrack::kube
