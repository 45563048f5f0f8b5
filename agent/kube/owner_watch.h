// SPDX-License-Identifier: Apache-2.0
// OwnerWatch: follows the one object that we belong to, our DaemonSet, so that its end is known
// when we end. Asking then is too late: `helm uninstall` takes our rights away together with it,
// but an open watch still tells. Everything on the thread of the client's run(), but for gone().
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <string_view>

#include "agent/kube/api_client.h"
#include "agent/kube/backoff.h"
#include "agent/kube/list_splitter.h"

namespace sidetrack::kube {

// What a line of a watch says of its object: gone (deleted, or being deleted), there, or nothing.
[[nodiscard]] std::optional<bool> is_gone(std::string_view watch_line);

class OwnerWatch : private ApiCall {
 public:
  // `target`: of the watch, such as "/apis/apps/v1/namespaces/a/daemonsets?watch=1&..."; empty:
  // nothing is followed. `client` must outlive this.
  OwnerWatch(std::string target, Random random, ApiClient& client);
  ~OwnerWatch() override;
  OwnerWatch(const OwnerWatch&) = delete;
  OwnerWatch& operator=(const OwnerWatch&) = delete;

  // When tick() wants to be called at the latest.
  [[nodiscard]] TimePoint due() const;
  void tick(TimePoint now);
  // The last word of the API server was that it is gone. Any thread.
  [[nodiscard]] bool gone() const { return gone_; }

 private:
  bool on_data(std::string_view bytes) override;
  void on_end(const ApiOutcome& outcome) override;

  std::string target_;
  ApiClient& client_;
  Backoff backoff_;
  LineSplitter lines_;
  std::optional<ApiClient::CallId> call_;
  TimePoint next_at_{};
  std::atomic<bool> gone_ = false;
};

}  // namespace sidetrack::kube
