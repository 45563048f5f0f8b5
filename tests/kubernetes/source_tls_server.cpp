// SPDX-License-Identifier: Apache-2.0
#include "tests/kubernetes/source_tls_server.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <condition_variable>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

namespace sidetrack::tests {

namespace asio = boost::asio;
namespace ssl = boost::asio::ssl;
using asio::ip::tcp;
using Stream = ssl::stream<tcp::socket>;

namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

HttpRequest parse_head(const std::string& head) {
  HttpRequest request;
  request.head = head;
  std::size_t at = head.find("\r\n");
  const std::string line = head.substr(0, at);
  const std::size_t first = line.find(' ');
  const std::size_t second = line.rfind(' ');
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, second - first - 1);
  while ((at += 2) < head.size()) {
    const std::size_t end = head.find("\r\n", at);
    const std::string header = head.substr(at, end - at);
    const std::size_t colon = header.find(": ");
    if (colon != std::string::npos) {
      request.headers[lower(header.substr(0, colon))] = header.substr(colon + 2);
    }
    at = end;
  }
  return request;
}

}  // namespace

bool Answer::respond(int status, std::string_view body, std::string_view more_headers) {
  return write(
      fmt::format("HTTP/1.1 {} x\r\nContent-Type: application/json\r\nContent-Length: "
                  "{}\r\n{}\r\n{}",
                  status, body.size(), more_headers, body));
}

bool Answer::begin_chunks() {
  return write(
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: "
      "chunked\r\n\r\n");
}

bool Answer::write_chunk(std::string_view bytes) {
  return write(fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes));
}

struct TlsServer::Impl {
  // Shared by the thread of one connection and whoever ends it.
  struct Connection {
    explicit Connection(tcp::socket socket, std::shared_ptr<ssl::context> tls)
        : context(std::move(tls)), stream(std::move(socket), *context) {}
    std::shared_ptr<ssl::context> context;
    Stream stream;
    std::atomic<bool> dropped = false;
  };
  class Writer;

  void accept(const std::shared_ptr<tcp::acceptor>& listener);
  void serve(Connection& connection);
  void end(Connection& connection, Ending ending);
  void start_listening(std::uint16_t on_port);
  void drop();

  asio::io_context io;
  std::string address;
  Handler handler;
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<ssl::context> context;
  std::shared_ptr<tcp::acceptor> acceptor;
  std::thread listener;
  std::list<std::pair<std::shared_ptr<Connection>, std::thread>> connections;
  std::uint16_t port = 0;
};

class TlsServer::Impl::Writer : public Answer {
 public:
  Writer(Impl& impl, Connection& connection) : impl_(impl), connection_(connection) {}
  bool write(std::string_view bytes) override {
    boost::system::error_code error;
    asio::write(connection_.stream, asio::buffer(bytes), error);
    return !error && !connection_.dropped;
  }
  bool pause(std::chrono::milliseconds time) override {
    std::unique_lock lock(impl_.mutex);
    return !impl_.changed.wait_for(lock, time, [this] { return connection_.dropped.load(); });
  }
  [[nodiscard]] bool alive() const override {
    pollfd peer{
        .fd = connection_.stream.next_layer().native_handle(), .events = POLLRDHUP, .revents = 0};
    return !connection_.dropped && poll(&peer, 1, 0) == 0;
  }
  void hang() override {
    std::unique_lock lock(impl_.mutex);
    impl_.changed.wait(lock, [this] { return connection_.dropped.load(); });
  }
  void close_after(Ending ending) override { ending_ = ending; }
  [[nodiscard]] std::optional<Ending> ending() const { return ending_; }

 private:
  Impl& impl_;
  Connection& connection_;
  std::optional<Ending> ending_;
};

void TlsServer::Impl::serve(Connection& connection) {
  boost::system::error_code error;
  connection.stream.handshake(Stream::server, error);
  std::string buffer;
  std::optional<Ending> ending;
  while (!error && !connection.dropped) {
    const std::size_t end =
        asio::read_until(connection.stream, asio::dynamic_buffer(buffer, 65536), "\r\n\r\n", error);
    if (error) {
      break;
    }
    HttpRequest request = parse_head(buffer.substr(0, end));
    buffer.erase(0, end);
    const auto length = request.headers.find("content-length");
    const std::size_t body = length == request.headers.end() ? 0 : std::stoul(length->second);
    if (buffer.size() < body) {
      asio::read(connection.stream, asio::dynamic_buffer(buffer),
                 asio::transfer_exactly(body - buffer.size()), error);
    }
    request.body = buffer.substr(0, body);
    buffer.erase(0, body);
    Writer writer(*this, connection);
    handler(request, writer);
    ending = writer.ending();
    if (ending) {
      break;
    }
  }
  end(connection, ending.value_or(Ending::kCut));
}

void TlsServer::Impl::end(Connection& connection, Ending ending) {
  tcp::socket& socket = connection.stream.next_layer();
  boost::system::error_code error;
  if (ending != Ending::kCut) {
    socket.shutdown(tcp::socket::shutdown_receive, error);  // not to wait for the client's word
    connection.stream.shutdown(error);
  }
  ::shutdown(socket.native_handle(), SHUT_RDWR);
  if (ending == Ending::kGone) {
    const std::lock_guard lock(mutex);  // drop() may use it
    socket.set_option(asio::socket_base::linger(true, 0), error);
    socket.close(error);
  }
}

void TlsServer::Impl::accept(const std::shared_ptr<tcp::acceptor>& from) {
  for (;;) {
    boost::system::error_code error;
    tcp::socket socket(io);
    from->accept(socket, error);
    if (error) {
      return;
    }
    socket.set_option(tcp::no_delay(true), error);
    const std::lock_guard lock(mutex);
    auto connection = std::make_shared<Connection>(std::move(socket), context);
    connections.emplace_back(connection, std::thread([this, connection] { serve(*connection); }));
  }
}

void TlsServer::Impl::start_listening(std::uint16_t on_port) {
  acceptor =
      std::make_shared<tcp::acceptor>(io, tcp::endpoint(asio::ip::make_address(address), on_port));
  port = acceptor->local_endpoint().port();
  listener = std::thread([this, from = acceptor] { accept(from); });
}

void TlsServer::Impl::drop() {
  decltype(connections) old;
  {
    const std::lock_guard lock(mutex);
    old.swap(connections);
    for (auto& [connection, thread] : old) {
      connection->dropped = true;
      ::shutdown(connection->stream.next_layer().native_handle(), SHUT_RDWR);
    }
  }
  changed.notify_all();
  for (auto& [connection, thread] : old) {
    thread.join();
  }
}

Result<std::unique_ptr<TlsServer>> TlsServer::start(const std::string& certificate,
                                                    const std::string& key, Handler handler,
                                                    std::string address) {
  auto impl = std::make_unique<Impl>();
  impl->address = std::move(address);
  impl->handler = std::move(handler);
  std::unique_ptr<TlsServer> server(new TlsServer(std::move(impl)));
  ST_TRY(server->use_certificate(certificate, key));
  server->impl_->start_listening(0);
  return server;
}

TlsServer::TlsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TlsServer::~TlsServer() {
  go_away();
}

std::uint16_t TlsServer::port() const {
  return impl_->port;
}

std::string TlsServer::url() const {
  return fmt::format("https://{}:{}", impl_->address, impl_->port);
}

void TlsServer::go_away() {
  if (impl_->listener.joinable()) {
    ::shutdown(impl_->acceptor->native_handle(), SHUT_RDWR);  // ends the accept()
    impl_->listener.join();
    impl_->acceptor->close();
  }
  drop_all();
}

Result<void> TlsServer::come_back() {
  try {
    impl_->start_listening(impl_->port);
  } catch (const std::exception& error) {
    return make_error(ErrorCode::kIo, error.what());
  }
  return {};
}

void TlsServer::drop_all() {
  impl_->drop();
}

Result<void> TlsServer::use_certificate(const std::string& certificate, const std::string& key) {
  try {
    auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
    context->use_certificate_chain_file(certificate);
    context->use_private_key_file(key, ssl::context::pem);
    const std::lock_guard lock(impl_->mutex);
    impl_->context = std::move(context);
  } catch (const std::exception& error) {
    return make_error(ErrorCode::kInvalid, error.what());
  }
  return {};
}

}  // namespace sidetrack::tests
