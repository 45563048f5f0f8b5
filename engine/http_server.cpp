// SPDX-License-Identifier: Apache-2.0
#include "engine/http_server.h"

#include <fmt/core.h>

#include <chrono>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "sidetrack/log/log.h"

namespace sidetrack::engine {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds kRequestTimeout(5);
constexpr std::chrono::seconds kListenRetry(1);
constexpr std::size_t kMostSessions = 32;
constexpr std::uint32_t kMostHeaderBytes = 8192;

using Handlers = std::map<std::string, HttpHandler>;

// One connection, one request. Lives as long as its pending operation.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, const Handlers& handlers, std::shared_ptr<std::size_t> count)
      : stream_(std::move(socket)), handlers_(handlers), count_(std::move(count)) {
    ++*count_;
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { --*count_; }

  void start() {
    parser_.header_limit(kMostHeaderBytes);
    parser_.body_limit(0);
    stream_.expires_after(kRequestTimeout);
    http::async_read(stream_, buffer_, parser_,
                     [self = shared_from_this()](const error_code& error, std::size_t) {
                       if (!error) {
                         self->answer();
                       }
                     });
  }

 private:
  void answer() {
    const auto& request = parser_.get();
    const std::string path(request.target().substr(0, request.target().find('?')));
    const auto handler = handlers_.find(path);
    HttpAnswer answer{.status = 404, .body = "not found\n"};
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
      answer = {.status = 405, .body = "GET only\n"};
    } else if (handler != handlers_.end()) {
      answer = handler->second();
    }
    response_.result(answer.status);
    response_.set(http::field::content_type,
                  path == "/metrics" ? "text/plain; version=0.0.4" : "text/plain");
    response_.keep_alive(false);
    response_.content_length(answer.body.size());
    if (request.method() != http::verb::head) {
      response_.body() = std::move(answer.body);
    }
    http::async_write(stream_, response_,
                      [self = shared_from_this()](const error_code&, std::size_t) {
                        error_code ignored;
                        self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
                      });
  }

  beast::tcp_stream stream_;
  const Handlers& handlers_;
  std::shared_ptr<std::size_t>
      count_;  // of sessions, shared with the server and the other sessions
  beast::flat_buffer buffer_;
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> response_;
};

}  // namespace

struct HttpServer::Impl {
  Impl(boost::asio::io_context& context, HttpAddress where, Handlers what)
      : address(std::move(where)), handlers(std::move(what)), acceptor(context), timer(context) {}

  [[nodiscard]] error_code open() {
    error_code error;
    const tcp::endpoint endpoint(boost::asio::ip::make_address(address.address, error),
                                 address.port);
    if (!error) {
      acceptor.open(endpoint.protocol(), error);
    }
    if (!error) {
      acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    }
    if (!error) {
      acceptor.bind(endpoint, error);
    }
    if (!error) {
      acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
    }
    if (error) {
      error_code ignored;
      acceptor.close(ignored);
    }
    return error;
  }

  [[nodiscard]] Result<void> start() {
    const error_code error = open();
    if (!error) {
      accept();
      return {};
    }
    if (error != boost::asio::error::address_in_use) {
      Error failure = errno_error(
          fmt::format("--http {}:{}: listen", address.address, address.port), error.value());
      if (failure.code != ErrorCode::kPermission) {
        failure.code = ErrorCode::kInvalid;
      }
      return failure;
    }
    log_event(
        LogLevel::kWarn, "engine", "http_busy",
        {{"address", address.address},
         {"port", std::to_string(address.port)},
         {"reason", error.message()},
         {"detail",
          "tried again every second; an engine that is being replaced may have it still, else "
          "choose another --http"}});
    later(&Impl::listen_again);
    return {};
  }

  void listen_again() {
    if (open()) {
      later(&Impl::listen_again);
      return;
    }
    log_event(LogLevel::kInfo, "engine", "http_listening",
              {{"address", address.address}, {"port", std::to_string(address.port)}});
    accept();
  }

  void later(void (Impl::*what)()) {
    timer.expires_after(kListenRetry);
    timer.async_wait([this, what](const error_code& error) {
      if (!error) {
        (this->*what)();
      }
    });
  }

  void accept() {
    acceptor.async_accept([this](const error_code& error, tcp::socket socket) {
      if (error == boost::asio::error::operation_aborted) {
        return;
      }
      if (error) {  // no file left, for one: again in a moment
        later(&Impl::accept);
        return;
      }
      if (*sessions < kMostSessions) {
        std::make_shared<Session>(std::move(socket), handlers, sessions)->start();
      }
      accept();
    });
  }

  HttpAddress address;
  Handlers handlers;
  tcp::acceptor acceptor;
  boost::asio::steady_timer timer;
  std::shared_ptr<std::size_t> sessions =
      std::make_shared<std::size_t>(0);  // outlives the server in its sessions
};

HttpServer::HttpServer(boost::asio::io_context& context, HttpAddress address,
                       std::map<std::string, HttpHandler> handlers)
    : impl_(std::make_unique<Impl>(context, std::move(address), std::move(handlers))) {}

HttpServer::~HttpServer() = default;

Result<void> HttpServer::start() {
  return impl_->start();
}

}  // namespace sidetrack::engine
