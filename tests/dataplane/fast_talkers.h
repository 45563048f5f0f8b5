// SPDX-License-Identifier: Apache-2.0
// FastTalkers: a client that holds any number of connections to an echo server in another pod of
// its namespace, on a node with the fast path. Thread rule: one owner, but for Talk's thread.
#pragma once

#include <atomic>
#include <future>
#include <memory>
#include <string>

#include "tests/dataplane/kernel_view.h"
#include "tests/dataplane/scale_node.h"

namespace sidetrack::lab {

struct TalkersOptions {
  std::string probation{"0s"};
  std::string round_trips{"4"};
  std::string mode{"passthrough"};  // "redirect": with an engine
};

// Requests there and back on all connections of a shell, round after round, on a thread of its own.
class Talk {
 public:
  Talk(PodShell& shell, std::uint64_t connections);
  ~Talk() { stop_.store(true); }  // the future then waits for the round that runs
  Talk(const Talk&) = delete;
  Talk& operator=(const Talk&) = delete;
  [[nodiscard]] std::uint64_t rounds() const { return rounds_.load(); }
  // More rounds have begun and ended since now; or something went wrong.
  [[nodiscard]] bool goes_on();
  // Ends after the round that runs. "": every byte of every round was right, no call failed.
  std::string stop();

 private:
  std::string run();

  PodShell& shell_;
  std::uint64_t connections_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> rounds_{0};
  std::future<std::string> wrong_;
};

class FastTalkers : public ScaleNode {
 protected:
  static constexpr std::uint64_t kRequestBytes = 1024;
  static constexpr milliseconds kLong{100'000};

  // Both pods, agent (and engine), server and client.
  void start(const TalkersOptions& options);

  [[nodiscard]] FastCounts counted() const;
  // Connections of which both ends are adopted, as status has it.
  [[nodiscard]] std::uint64_t adopted() const;
  // Messages that skipped TCP, ever, by the kernel's count; by handoff, those past the engine only.
  [[nodiscard]] std::uint64_t fast_messages() const { return counted().messages; }
  [[nodiscard]] std::uint64_t handoffs() const { return counted().handoffs; }
  // Those that the mode is about.
  [[nodiscard]] std::uint64_t past_tcp() const {
    return options_.mode == "redirect" ? handoffs() : fast_messages();
  }

  void hold(std::uint64_t count);
  // A request there and back on each of `count` connections.
  void expect_exact(std::uint64_t count);
  void expect_all_adopted(std::uint64_t count);
  // Uses `count` adopted connections until all of them skip TCP both ways; in mode redirect, the
  // engine, too.
  void expect_all_fast(std::uint64_t count);
  // Bytes that expect_exact() and what calls it have sent on each connection so far, one way.
  [[nodiscard]] std::uint64_t talked_bytes() const { return rounds_ * kRequestBytes; }

  TalkersOptions options_;
  Pod* client_ = nullptr;
  Pod* server_ = nullptr;
  std::unique_ptr<EchoServer> echo_;
  std::unique_ptr<PodShell> shell_;

 private:
  std::uint64_t rounds_ = 0;
};

}  // namespace sidetrack::lab
