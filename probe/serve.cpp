// SPDX-License-Identifier: Apache-2.0
#include "probe/serve.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

namespace sidetrack::probe {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;

constexpr std::chrono::seconds kIdle{60};

// IPv4 clients of a socket of both families have mapped addresses.
std::string client_text(const Tcp::endpoint& endpoint) {
  const asio::ip::address& address = endpoint.address();
  if (address.is_v4() || address.to_v6().is_v4_mapped()) {
    const auto v4 = address.is_v4()
                        ? address.to_v4()
                        : asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
    return fmt::format("{}:{}", v4.to_string(), endpoint.port());
  }
  return fmt::format("[{}]:{}", address.to_string(), endpoint.port());
}

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Tcp::socket socket, std::string body)
      : stream_(std::move(socket)), body_(std::move(body)) {}

  void read() {
    request_ = {};
    stream_.expires_after(kIdle);
    http::async_read(
        stream_, buffer_, request_,
        [self = shared_from_this()](const boost::system::error_code& error, std::size_t) {
          if (!error) {
            self->write();
          }
        });
  }

 private:
  void write() {
    response_ = {http::status::ok, request_.version(), body_};
    response_.set(http::field::content_type, "text/plain");
    response_.keep_alive(request_.keep_alive());
    response_.prepare_payload();
    http::async_write(
        stream_, response_,
        [self = shared_from_this()](const boost::system::error_code& error, std::size_t) {
          if (error) {
            return;
          }
          if (self->response_.keep_alive()) {
            self->read();
            return;
          }
          boost::system::error_code ignored;
          self->stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
        });
  }

  beast::tcp_stream stream_;
  std::string body_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response<http::string_body> response_;
};

class Listener {
 public:
  Listener(asio::io_context& context, const std::string& name) : acceptor_(context), name_(name) {}

  Result<void> open(std::uint16_t port) {
    boost::system::error_code error;
    acceptor_.open(Tcp::v6(), error);
    if (error) {  // a kernel without IPv6
      acceptor_.open(Tcp::v4(), error);
    } else {
      acceptor_.set_option(asio::ip::v6_only(false), error);
    }
    acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
    const auto local = acceptor_.local_endpoint(error).protocol();
    acceptor_.bind(Tcp::endpoint(local, port), error);
    if (!error) {
      acceptor_.listen(4096, error);
    }
    if (error) {
      return make_error(ErrorCode::kIo,
                        fmt::format("listen on port {}: {}", port, error.message()));
    }
    port_ = port;
    accept();
    return {};
  }

 private:
  void accept() {
    acceptor_.async_accept([this](const boost::system::error_code& error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted) {
        return;
      }
      boost::system::error_code gone;
      const Tcp::endpoint client = socket.remote_endpoint(gone);
      if (!error && !gone) {
        std::make_shared<Session>(std::move(socket), answer(name_, client_text(client), port_))
            ->read();
      }
      accept();
    });
  }

  Tcp::acceptor acceptor_;
  const std::string& name_;
  std::uint16_t port_ = 0;
};

constexpr std::string_view kClient = " client=";

}  // namespace

std::string answer(const std::string& name, const std::string& client, std::uint16_t port) {
  return fmt::format("{}{}{} port={}\n", name, kClient, client, port);
}

std::string client_of(const std::string& body) {
  const auto at = body.find(kClient);
  if (at == std::string::npos) {
    return "";
  }
  const auto begin = at + kClient.size();
  return body.substr(begin, body.find(' ', begin) - begin);
}

Result<void> serve(const std::string& name, const std::vector<std::uint16_t>& ports) {
  asio::io_context context(1);
  std::vector<std::unique_ptr<Listener>> listeners;
  for (const std::uint16_t port : ports) {
    listeners.push_back(std::make_unique<Listener>(context, name));
    ST_TRY(listeners.back()->open(port));
  }
  asio::signal_set signals(context, SIGTERM, SIGINT);
  signals.async_wait([&context](const boost::system::error_code&, int) { context.stop(); });
  context.run();
  return {};
}

}  // namespace sidetrack::probe
