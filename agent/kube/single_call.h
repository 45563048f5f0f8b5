// SPDX-License-Identifier: Apache-2.0
// SingleCall: one request whose answer is wanted as a whole. On the thread of the client's run().
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "agent/kube/api_client.h"

namespace sidetrack::kube {

class SingleCall : public ApiCall {
 public:
  // The outcome and the body of a 2xx answer (empty if it is longer than 1 MiB).
  using Done = std::function<void(const ApiOutcome&, const std::string& body)>;

  // Starts it. `client` must outlive this.
  SingleCall(ApiClient& client, const ApiRequest& request, Done done) : done_(std::move(done)) {
    client.start(request, *this);
  }
  bool on_data(std::string_view bytes) override {
    body_ += bytes;
    return body_.size() <= kMaxBody;
  }
  void on_end(const ApiOutcome& outcome) override {
    ended_ = true;
    done_(outcome, body_);
  }
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  static constexpr std::size_t kMaxBody = 1UL << 20U;

  Done done_;
  std::string body_;
  bool ended_ = false;
};

}  // namespace sidetrack::kube
