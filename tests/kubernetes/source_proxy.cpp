// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/source_proxy.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <optional>
#include <span>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

#include "tests/kubernetes/source_canned.h"

namespace sidetrack::tests {

namespace asio = boost::asio;
using asio::ip::tcp;
using Stream = asio::ssl::stream<tcp::socket>;

namespace {

// The next bytes; 0 at the end of the stream, or once the client is gone.
std::size_t read_some(asio::io_context& io, Stream& stream, std::span<char> buffer,
                      const Answer& answer) {
  std::optional<std::size_t> got;
  stream.async_read_some(asio::buffer(buffer.data(), buffer.size()),
                         [&got](const boost::system::error_code& error, std::size_t count) {
                           got = error ? 0 : count;
                         });
  while (!got) {
    io.restart();
    io.run_one_for(std::chrono::milliseconds(20));
    if (!got && !answer.alive()) {
      stream.next_layer().close();
    }
  }
  return *got;
}

}  // namespace

Result<std::unique_ptr<FaultProxy>> FaultProxy::start(const Pki& pki, std::uint16_t upstream_port) {
  ST_TRY(pki.issue("proxy", "/CN=proxy"));
  std::unique_ptr<FaultProxy> proxy(new FaultProxy());
  proxy->upstream_port_ = upstream_port;
  auto server = TlsServer::start(pki.file("proxy.crt"), pki.file("proxy.key"),
                                 [raw = proxy.get()](const HttpRequest& request, Answer& answer) {
                                   raw->handle(request, answer);
                                 });
  ST_TRY(server);
  proxy->server_ = std::move(*server);
  return proxy;
}

FaultProxy::~FaultProxy() {
  server_.reset();
}

void FaultProxy::set_rule(Rule rule) {
  const std::lock_guard lock(mutex_);
  rule_ = std::move(rule);
}

void FaultProxy::handle(const HttpRequest& request, Answer& answer) {
  Rule rule;
  {
    const std::lock_guard lock(mutex_);
    ++requests_[fmt::format("{} {}", verb_of(request), resource_of(request))];
    rule = rule_;
  }
  if (!rule || !rule(request, answer)) {
    pass(request, answer);
  }
}

void FaultProxy::pass(const HttpRequest& request, Answer& answer, const Filter& filter) const {
  asio::io_context io;
  asio::ssl::context tls(asio::ssl::context::tls_client);
  Stream stream(io, tls);
  boost::system::error_code error;
  stream.next_layer().connect({asio::ip::make_address("127.0.0.1"), upstream_port_}, error);
  if (!error) {
    stream.handshake(Stream::client, error);
  }
  // One request on each connection to the server: the answer ends with it.
  std::string head = request.head;
  head.insert(head.size() - 2, "Connection: close\r\n");
  asio::write(stream, asio::buffer(head + request.body), error);
  answer.close_after();
  std::array<char, 16384> buffer{};
  while (const std::size_t got = error ? 0 : read_some(io, stream, buffer, answer)) {
    const std::string_view bytes(buffer.data(), got);
    if (!(filter ? filter(bytes, answer) : answer.write(bytes))) {
      return;
    }
  }
}

std::map<std::string, int> FaultProxy::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

int FaultProxy::lists() {
  int count = 0;
  for (const auto& [what, times] : requests()) {
    count += what.starts_with("list ") || what.starts_with("stream ") ? times : 0;
  }
  return count;
}

void FaultProxy::reset() {
  const std::lock_guard lock(mutex_);
  requests_.clear();
}

}  // namespace sidetrack::tests
