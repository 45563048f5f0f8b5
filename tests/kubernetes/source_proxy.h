// SPDX-License-Identifier: Apache-2.0
// FaultProxy: between a client and a real API server; ends TLS at both sides, because faults of
// HTTP have to be put between them. Counts requests. A rule sees each request first and may answer
// it itself, or pass it on and change what comes back.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "tests/kubernetes/source_pki.h"
#include "tests/kubernetes/source_tls_server.h"

namespace sidetrack::tests {

class FaultProxy {
 public:
  // True: the request is done with.
  using Rule = std::function<bool(const HttpRequest&, Answer&)>;
  // Gets what the server sends, in pieces, and writes what the client shall get. False: that is
  // all.
  using Filter = std::function<bool(std::string_view, Answer&)>;

  [[nodiscard]] static Result<std::unique_ptr<FaultProxy>> start(const Pki& pki,
                                                                 std::uint16_t upstream_port);
  ~FaultProxy();

  [[nodiscard]] TlsServer& server() { return *server_; }
  // Null: everything passes.
  void set_rule(Rule rule);
  // To the API server and back.
  void pass(const HttpRequest& request, Answer& answer, const Filter& filter = nullptr) const;

  // How often since reset(): "list pods", "watch pods", "stream pods".
  [[nodiscard]] std::map<std::string, int> requests();
  // Lists of all resources, also those that are streamed.
  [[nodiscard]] int lists();
  void reset();

 private:
  FaultProxy() = default;
  void handle(const HttpRequest& request, Answer& answer);

  std::uint16_t upstream_port_ = 0;
  std::mutex mutex_;
  Rule rule_;
  std::map<std::string, int> requests_;
  std::unique_ptr<TlsServer> server_;  // last: its threads use the rest
};

}  // namespace sidetrack::tests
