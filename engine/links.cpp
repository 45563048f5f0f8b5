// SPDX-License-Identifier: Apache-2.0
#include "engine/links.h"

#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "sidetrack/abi/fast.h"

namespace sidetrack::engine {
namespace {

constexpr std::size_t kSlots = std::size_t{2} * ST_LINKS_PER_ENGINE;
constexpr std::size_t kBytes = kSlots * sizeof(std::uint64_t);
// The last link is never given away: its slots tell whether two mappings are of one map.
constexpr std::uint32_t kUsable = ST_LINKS_PER_ENGINE - 1;

std::uint64_t cookie_of(int fd) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  return ::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

Result<std::shared_ptr<SlotCell>> map_cell(const UniqueFd& map, std::uint16_t cell) {
  if (cell >= ST_MAX_ENGINES) {
    return make_error(ErrorCode::kInvalid, fmt::format("no cell {} in st_slots", cell));
  }
  void* const memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(),
                              static_cast<off_t>(cell * kBytes));
  if (memory == MAP_FAILED) {
    return errno_error("map st_slots", errno);
  }
  auto mapped = std::make_shared<SlotCell>();
  mapped->slots = static_cast<std::uint64_t*>(memory);
  mapped->cell = cell;
  mapped->free.reserve(kUsable);
  for (std::uint32_t index = kUsable; index-- > 0;) {
    mapped->free.push_back(index);
  }
  return mapped;
}

// Whether both are the same memory: what is written to one is read from the other.
bool are_one(const SlotCell& a, const SlotCell& b) {
  const std::atomic_ref here(a.slots[kSlots - 1]);
  const std::atomic_ref there(b.slots[kSlots - 1]);
  const std::uint64_t next = there.load() + 1;
  here.store(next);
  return there.load() == next;
}

}  // namespace

SlotCell::~SlotCell() {
  if (slots != nullptr) {
    ::munmap(slots, kBytes);
  }
}

Result<void> Links::attach(const UniqueFd& map, std::uint16_t cell) {
  auto mapped = map_cell(map, cell);
  ST_TRY(mapped);
  const std::lock_guard lock(mutex_);
  cell_ = known(**mapped);
  if (!cell_) {
    cell_ = std::move(*mapped);
    cells_.push_back(cell_);
  }
  news_.clear();
  for (const auto& [index, link] : cell_->live) {
    news_.push_back(link);
  }
  if (!news_.empty() && on_news_) {
    on_news_();
  }
  attached_.store(true, std::memory_order_relaxed);
  fast_path_.store(true, std::memory_order_relaxed);
  return {};
}

// The cell that is this part of this map already, by an earlier descriptor of it.
std::shared_ptr<SlotCell> Links::known(const SlotCell& cell) {
  std::erase_if(cells_, [](const auto& other) { return other.expired(); });
  for (const auto& weak : cells_) {
    const auto other = weak.lock();
    if (other->cell == cell.cell && are_one(*other, cell)) {
      return other;
    }
  }
  return nullptr;
}

void Links::detach() {
  const std::lock_guard lock(mutex_);
  attached_.store(false, std::memory_order_relaxed);
  news_.clear();
}

void Links::on_news(std::function<void()> call) {
  const std::lock_guard lock(mutex_);
  on_news_ = std::move(call);
}

std::vector<LinkNews> Links::take_news() {
  const std::lock_guard lock(mutex_);
  return std::exchange(news_, {});
}

std::unique_ptr<LiveLink> Links::open(int client, int server,
                                      std::span<const std::uint64_t, 2> totals) {
  LinkNews news{.client_cookie = cookie_of(client), .server_cookie = cookie_of(server)};
  const std::lock_guard lock(mutex_);
  if (!attached() || cell_->free.empty() || news.client_cookie == 0 || news.server_cookie == 0) {
    return nullptr;
  }
  auto link = std::make_unique<LiveLink>();
  link->cell_ = cell_;
  link->local_index_ = cell_->free.back();
  cell_->free.pop_back();
  link->slot_ = cell_->slots + std::size_t{2} * link->local_index_;
  link->forwarded(0, totals[0]);
  link->forwarded(1, totals[1]);
  news.index = cell_->cell * ST_LINKS_PER_ENGINE + link->local_index_;
  cell_->live.emplace(link->local_index_, news);
  news_.push_back(news);
  if (news_.size() == 1 && on_news_) {
    on_news_();
  }
  return link;
}

void Links::close(std::unique_ptr<LiveLink> link) {
  const std::lock_guard lock(mutex_);
  SlotCell& cell = *link->cell_;
  const auto live = cell.live.find(link->local_index_);
  std::erase(news_, live->second);
  cell.live.erase(live);
  cell.free.push_back(link->local_index_);
}

}  // namespace sidetrack::engine
