// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/object_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/kube/list_splitter.h"
#include "agent/kube/object_text.h"
#include "agent/kube/watch_event.h"
#include "sidetrack/files/whole_file.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::kube {
namespace {

using nlohmann::json;

constexpr off_t kMaxFileSize = 512L * 1024 * 1024;

Error broken(const std::filesystem::path& file, const std::string& why) {
  return make_error(ErrorCode::kInvalid, fmt::format("{}: {}", file.string(), why));
}

// Gives the file to `splitter` piece by piece.
Result<void> read_into(int fd, ListSplitter& splitter) {
  std::string buffer(64UL * 1024, '\0');
  for (;;) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return errno_error("read", errno);
    }
    if (got == 0) {
      return {};
    }
    ST_TRY(splitter.feed({buffer.data(), static_cast<std::size_t>(got)}));
  }
}

// What stands beside the items, for our eyes only.
Result<CachedList> read_envelope(Resource resource, const std::string& envelope,
                                 const CacheOwner& owner) {
  const auto metadata = decode_list_metadata(resource, envelope);
  const json value = json::parse(envelope, nullptr, false);
  const auto own = value.is_object() ? value.find("sidetrack") : value.end();
  if (!metadata || own == value.end() || !own->is_object()) {
    return make_error(ErrorCode::kInvalid, "is no list that an agent wrote");
  }
  const auto text = [&](const char* key) {
    const auto found = own->find(key);
    return found != own->end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (text("server") != owner.server || text("node") != owner.node) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("is of node {} at {}", text("node"), text("server")));
  }
  CachedList list{.version = metadata->resource_version};
  if (const auto saved = own->find("saved"); saved != own->end() && saved->is_number()) {
    list.saved = saved->get<double>();
  }
  return list;
}

}  // namespace

ObjectCache::ObjectCache(std::filesystem::path folder, CacheOwner owner)
    : folder_(std::move(folder)), owner_(std::move(owner)) {}

ObjectCache::~ObjectCache() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (writer_.joinable()) {
    writer_.join();
  }
}

std::filesystem::path ObjectCache::file_of(Resource resource) const {
  return folder_ / fmt::format("{}.json", names_of(resource).plural);
}

Result<std::optional<CachedList>> ObjectCache::load(Resource resource, const Put& put) const {
  if (folder_.empty()) {
    return std::optional<CachedList>();
  }
  const auto file = file_of(resource);
  const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) {
    return errno == ENOENT ? Result<std::optional<CachedList>>(std::optional<CachedList>())
                           : errno_error(file.string(), errno);
  }
  struct stat status {};
  if (fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > kMaxFileSize) {
    return broken(file, "is not a regular file of at most 512 MiB");
  }
  std::size_t count = 0;
  std::string wrong;
  ListSplitter splitter([&](std::string_view text) {
    ItemResult item = decode_item(resource, text);
    if (item.object) {
      ++count;
      drop_unused(*item.object);  // what its text has to say again, such as a slice's service
      put(std::move(item.key), std::move(*item.object));
    } else if (wrong.empty()) {
      wrong = item.issues.empty() ? "an item is no object" : item.issues.front().reason;
    }
  });
  auto read = read_into(fd.get(), splitter);
  ST_TRY(read ? Result<void>() : Result<void>(read.error().within(file.string())));
  const auto envelope = splitter.finish();
  if (!envelope || !wrong.empty() || splitter.oversized() != 0) {
    return broken(file, envelope ? wrong : envelope.error().message);
  }
  auto list = read_envelope(resource, *envelope, owner_);
  if (!list) {
    return list.error().within(file.string());
  }
  list->objects = count;
  return std::optional(*list);
}

std::string ObjectCache::head(Resource resource, const std::string& version, double now) const {
  const ResourceNames& names = names_of(resource);
  json value = {{"kind", fmt::format("{}List", names.kind)},
                {"apiVersion", names.api_version},
                {"metadata", {{"resourceVersion", version}}},
                {"sidetrack", {{"server", owner_.server}, {"node", owner_.node}, {"saved", now}}}};
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  text.pop_back();
  return text + ",\"items\":[\n";
}

void ObjectCache::save(Resource resource, std::string text) {
  if (folder_.empty()) {
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.insert_or_assign(resource, std::move(text));
  }
  if (!writer_.joinable()) {
    writer_ = std::thread([this] { work(); });
  }
  changed_.notify_one();
}

std::string ObjectCache::write_error() const {
  const std::lock_guard lock(mutex_);
  return write_error_;
}

void ObjectCache::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) {
      return;
    }
    const auto job = waiting_.extract(waiting_.begin());
    lock.unlock();
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    files::remove_leftovers(folder_);  // only this thread writes here
    const auto written = files::replace_file(file_of(job.key()), job.mapped(), {.mode = 0600});
    lock.lock();
    write_error_ = written ? "" : written.error().message;
  }
}

}  // namespace sidetrack::kube
