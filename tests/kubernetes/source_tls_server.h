// SPDX-License-Identifier: Apache-2.0
// TlsServer: HTTPS on a free port, a thread for each connection. What it answers is the handler's;
// it counts nothing and knows no Kubernetes. Handlers run on many threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "sidetrack/result.h"

namespace sidetrack::tests {

struct HttpRequest {
  std::string method;
  std::string target;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string head;  // as it came, up to and with the empty line
};

// How a connection ends.
enum class Ending {
  kCut,       // FIN, no close_notify: a client must cope without
  kNotified,  // close_notify and FIN, as Go's servers do
  kGone,      // the same, and by now the server has forgotten it: a reset
};

// The client's end, for the time of one request.
class Answer {
 public:
  virtual ~Answer() = default;
  // False: the client is gone, or the server stops.
  virtual bool write(std::string_view bytes) = 0;
  // Waits; false at once when the server stops.
  virtual bool pause(std::chrono::milliseconds time) = 0;
  [[nodiscard]] virtual bool alive() const = 0;
  // Until the server stops or drops its connections.
  virtual void hang() = 0;
  // The connection ends after this request.
  virtual void close_after(Ending ending = Ending::kCut) = 0;

  bool respond(int status, std::string_view body, std::string_view more_headers = "");
  // The head of an answer of chunks, each of which is one write_chunk(); the last is empty.
  bool begin_chunks();
  bool write_chunk(std::string_view bytes);
};

class TlsServer {
 public:
  using Handler = std::function<void(const HttpRequest&, Answer&)>;
  [[nodiscard]] static Result<std::unique_ptr<TlsServer>> start(const std::string& certificate,
                                                                const std::string& key,
                                                                Handler handler,
                                                                std::string address = "127.0.0.1");
  ~TlsServer();
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  [[nodiscard]] std::uint16_t port() const;
  [[nodiscard]] std::string url() const;
  // Stops listening (connections are refused) and drops those that are open.
  void go_away();
  // Listens again, on the same port.
  Result<void> come_back();
  // Ends all connections; new ones are taken.
  void drop_all();
  // Uses another certificate for new connections.
  Result<void> use_certificate(const std::string& certificate, const std::string& key);

 private:
  struct Impl;
  explicit TlsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sidetrack::tests
