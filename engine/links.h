// SPDX-License-Identifier: Apache-2.0
// Links: which connections are relayed byte for byte, and how far. The kernel may put what an
// application sends straight into the queue of the application at the far end, past this engine, as
// long as nothing is inside the engine: it compares what was sent with the numbers that are kept
// here, in this engine's part of the map st_slots. A number may be late, never early.
//
// An index is used again only when both sockets of its last connection are closed: the kernel reads
// the number first and then looks whether the far socket still is what it was. For the same reason
// nothing has to be cleared when the engine is killed. Its sockets die before its cell is given to
// another engine, and a number without them opens no way.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

// What the agent is told of a link.
struct LinkNews {
  std::uint64_t client_cookie = 0;
  std::uint64_t server_cookie = 0;
  std::uint32_t index = 0;
  bool operator==(const LinkNews&) const = default;
};

// One cell's part of one map st_slots, and who has which link of it.
struct SlotCell {
  std::uint64_t* slots = nullptr;  // mapped
  std::uint16_t cell = 0;
  std::vector<std::uint32_t> free;         // indices within the cell
  std::map<std::uint32_t, LinkNews> live;  // by the same

  SlotCell() = default;
  ~SlotCell();
  SlotCell(const SlotCell&) = delete;
  SlotCell& operator=(const SlotCell&) = delete;
};

// A connection's link. Of the worker that owns the connection.
class LiveLink {
 public:
  // Everything that was ever forwarded from this side (0 = client), after send() returned. This
  // worker is the only writer, so that storing the sum is as good as adding, and cheaper. Release:
  // the kernel wrote the far socket's write_seq inside send(), before this store; who sees the
  // number sees that too. On x86 no two stores and no two loads change places, so a plain load in
  // the BPF program is enough; elsewhere handoff is off.
  void forwarded(unsigned from, std::uint64_t total) {
    std::atomic_ref(slot_[from]).store(total, std::memory_order_release);
  }

 private:
  friend class Links;
  std::shared_ptr<SlotCell> cell_;
  std::uint64_t* slot_ = nullptr;  // two
  std::uint32_t local_index_ = 0;  // within the cell
};

class Links {
 public:
  // The control thread.

  // Links may be made from now on in this engine's part of the map st_slots. Those that are in it
  // already are news again.
  [[nodiscard]] Result<void> attach(const UniqueFd& map, std::uint16_t cell);
  // The agent is away: no new links. What stands is kept up.
  void detach();
  // `call`, on any thread and under a lock: there is news to be taken.
  void on_news(std::function<void()> call);
  [[nodiscard]] std::vector<LinkNews> take_news();

  // Any thread.

  // Whether open() could work.
  [[nodiscard]] bool attached() const { return attached_.load(std::memory_order_relaxed); }
  // Whether sockets of this process may be in the kernel's fast path: a short read does not mean
  // then that a socket was drained.
  [[nodiscard]] bool fast_path() const { return fast_path_.load(std::memory_order_relaxed); }
  // Makes a link of a connection that has forwarded `totals` so far. Null: not attached, or none
  // is free.
  [[nodiscard]] std::unique_ptr<LiveLink> open(int client, int server,
                                               std::span<const std::uint64_t, 2> totals);
  // Both of its sockets are closed.
  void close(std::unique_ptr<LiveLink> link);

 private:
  [[nodiscard]] std::shared_ptr<SlotCell> known(const SlotCell& cell);

  std::atomic<bool> attached_{false};
  std::atomic<bool> fast_path_{false};
  std::mutex mutex_;  // guards what follows, and the contents of all cells
  std::shared_ptr<SlotCell> cell_;
  std::vector<std::weak_ptr<SlotCell>> cells_;  // this one and earlier ones that have links
  std::vector<LinkNews> news_;
  std::function<void()> on_news_;
};

}  // namespace sidetrack::engine
