// SPDX-License-Identifier: Apache-2.0
// ApiClient: HTTPS calls to one API server, many at a time, on the thread that calls run(). Answers
// stream; every call ends by itself (whole deadline, deadline of the head, dead peer). A request is
// sent again only if it went out on a kept connection that ended without a byte; else the caller
// decides. The token and the authority are read again for each call and connection.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "agent/kube/kubeconfig.h"
#include "sidetrack/result.h"

namespace sidetrack::kube {

struct ApiRequest {
  std::string method = "GET";
  std::string target;                               // "/api/v1/pods?watch=1"
  std::string body;                                 // JSON; "" = none
  std::string content_type;                         // of the body
  std::chrono::milliseconds deadline{30'000};       // until the end of the answer
  std::chrono::milliseconds head_deadline{30'000};  // until its head
  std::chrono::seconds idle_limit{0};               // without a byte, 0 = none
};

struct ApiOutcome {
  int status = 0;     // 0: no answer
  std::string error;  // why there is no whole answer; empty: there is one
  std::string body;   // of an answer that is no 2xx, cut to 64 KiB
  std::optional<std::chrono::seconds> retry_after;
  [[nodiscard]] bool ok() const { return error.empty() && status >= 200 && status < 300; }
};

// What a call tells, on the thread of run().
class ApiCall {
 public:
  virtual ~ApiCall() = default;
  // The head of a 2xx answer is here.
  virtual void on_answer() {}
  // A piece of the body of a 2xx answer. False: no more is wanted; on_end() follows.
  [[nodiscard]] virtual bool on_data(std::string_view bytes) = 0;
  virtual void on_end(const ApiOutcome& outcome) = 0;
};

class ApiClient {
 public:
  using CallId = std::uint64_t;

  // Errors: kInternal, libcurl cannot start.
  [[nodiscard]] static Result<std::unique_ptr<ApiClient>> create(ApiConfig config);
  ~ApiClient();
  ApiClient(const ApiClient&) = delete;
  ApiClient& operator=(const ApiClient&) = delete;

  // `call` must live until its on_end() or cancel(). on_end() never comes from within start().
  CallId start(const ApiRequest& request, ApiCall& call);
  // No word of it after this. Unknown ids are fine.
  void cancel(CallId id);

  // Serves the calls until `until`, wake() or, at the latest, after something was told.
  void run(std::chrono::steady_clock::time_point until);
  // Ends a run(), also one that begins later. Any thread.
  void wake();

 private:
  struct Impl;
  explicit ApiClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sidetrack::kube
