// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/http_get.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace sidetrack::lab {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

template <typename Protocol>
struct Exchange {
  asio::io_context context{1};
  beast::basic_stream<Protocol, asio::io_context::executor_type> stream{context};
  http::request<http::string_body> request;
  http::response<http::string_body> response;
  beast::flat_buffer buffer;
  error_code failure;

  void run(const typename Protocol::endpoint& endpoint, milliseconds within) {
    stream.expires_after(within);
    stream.async_connect(endpoint, [this](error_code connected) {
      if (failed(connected)) {
        return;
      }
      http::async_write(stream, request, [this](error_code written, std::size_t) {
        if (failed(written)) {
          return;
        }
        http::async_read(stream, buffer, response,
                         [this](error_code read, std::size_t) { failed(read); });
      });
    });
    context.run();
  }

  bool failed(error_code code) {
    failure = code;
    return code.failed();
  }
};

template <typename Protocol>
Result<HttpAnswer> exchange(const typename Protocol::endpoint& endpoint,
                            const HttpRequest& request) {
  Exchange<Protocol> exchange;
  exchange.request = {http::string_to_verb(request.method), request.target, 11};
  exchange.request.set(http::field::host, "localhost");
  exchange.request.set(http::field::connection, "close");
  if (!request.body.empty()) {
    exchange.request.set(http::field::content_type, "application/json");
    exchange.request.body() = request.body;
  }
  exchange.request.prepare_payload();
  exchange.run(endpoint, request.within);
  if (exchange.failure) {
    return make_error(ErrorCode::kIo,
                      request.method + " " + request.target + ": " + exchange.failure.message());
  }
  return HttpAnswer{.status = exchange.response.result_int(), .body = exchange.response.body()};
}

}  // namespace

Result<HttpAnswer> http_over_unix(const std::string& socket_path, const HttpRequest& request) {
  using Protocol = asio::local::stream_protocol;
  return exchange<Protocol>(Protocol::endpoint(socket_path), request);
}

Result<HttpAnswer> http_over_tcp(const std::string& address, std::uint16_t port,
                                 const HttpRequest& request) {
  error_code failure;
  const auto parsed = asio::ip::make_address(address, failure);
  if (failure) {
    return make_error(ErrorCode::kInvalid, "not an address: " + address);
  }
  using Protocol = asio::ip::tcp;
  return exchange<Protocol>(Protocol::endpoint(parsed, port), request);
}

}  // namespace sidetrack::lab
