// SPDX-License-Identifier: Apache-2.0
#include "probe/http.h"

#include <fmt/format.h>
#include <sys/un.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

namespace sidetrack::probe {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;
using Local = asio::local::stream_protocol;

template <class Protocol>
using Stream = beast::basic_stream<Protocol, asio::any_io_executor>;

Error io(const std::string& what, const boost::system::error_code& error) {
  return make_error(ErrorCode::kIo, fmt::format("{}: {}", what, error.message()));
}

std::string text(const Tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", address, endpoint.port())
                                    : fmt::format("{}:{}", address, endpoint.port());
}

// Runs until the one operation that was started is done: its deadline is the stream's.
template <class Start>
boost::system::error_code run(asio::io_context& context, Start start) {
  boost::system::error_code outcome;
  start([&outcome](const boost::system::error_code& error, auto&&...) { outcome = error; });
  context.restart();
  context.run();
  return outcome;
}

template <class Protocol>
Result<http::response<http::string_body>> get(asio::io_context& context, Stream<Protocol>& stream,
                                              const std::string& host, const std::string& target) {
  http::request<http::empty_body> request(http::verb::get, target, 11);
  request.set(http::field::host, host);
  request.set(http::field::connection, "close");
  beast::flat_buffer buffer;
  http::response<http::string_body> response;
  if (auto error =
          run(context, [&](auto done) { http::async_write(stream, request, std::move(done)); });
      error) {
    return io("ask " + host, error);
  }
  if (auto error = run(
          context, [&](auto done) { http::async_read(stream, buffer, response, std::move(done)); });
      error) {
    return io("answer of " + host, error);
  }
  return response;
}

Result<Tcp::endpoint> first_address(asio::io_context& context, const std::string& host,
                                    std::uint16_t port) {
  boost::system::error_code error;
  const auto found = Tcp::resolver(context).resolve(host, std::to_string(port), error);
  if (error || found.empty()) {
    return make_error(ErrorCode::kNotFound,
                      fmt::format("no address of {}: {}", host, error.message()));
  }
  return found.begin()->endpoint();
}

}  // namespace

Result<std::string> resolve(const std::string& host, std::uint16_t port) {
  asio::io_context context;
  auto endpoint = first_address(context, host, port);
  ST_TRY(endpoint);
  return text(*endpoint);
}

Result<Exchange> ask_server(const std::string& host, std::uint16_t port,
                            std::chrono::milliseconds deadline) {
  asio::io_context context;
  auto endpoint = first_address(context, host, port);
  ST_TRY(endpoint);
  Stream<Tcp> stream(context);
  stream.expires_after(deadline);
  if (auto error =
          run(context, [&](auto done) { stream.async_connect(*endpoint, std::move(done)); });
      error) {
    return io("connect to " + text(*endpoint), error);
  }
  boost::system::error_code error;
  const Tcp::endpoint own = stream.socket().local_endpoint(error);
  if (error) {
    return io("own address", error);
  }
  auto response = get(context, stream, text(*endpoint), "/");
  ST_TRY(response);
  if (response->result() != http::status::ok) {
    return make_error(ErrorCode::kIo,
                      fmt::format("{} answers {} {} ({})", text(*endpoint), response->result_int(),
                                  std::string_view(response->reason()),
                                  std::string_view((*response)[http::field::server])));
  }
  return Exchange{
      .destination = text(*endpoint), .source = text(own), .body = std::move(response->body())};
}

Result<std::string> ask_socket(const std::string& path, const std::string& target,
                               std::chrono::milliseconds deadline) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return make_error(ErrorCode::kInvalid, "socket path is too long: " + path);
  }
  asio::io_context context;
  Stream<Local> stream(context);
  stream.expires_after(deadline);
  if (auto error =
          run(context,
              [&](auto done) { stream.async_connect(Local::endpoint(path), std::move(done)); });
      error) {
    return io("connect to the agent at " + path, error);
  }
  auto response = get(context, stream, "agent", target);
  ST_TRY(response);
  if (response->result() != http::status::ok) {
    return make_error(ErrorCode::kIo, fmt::format("the agent answers {} with {}: {}", target,
                                                  response->result_int(), response->body()));
  }
  return std::move(response->body());
}

}  // namespace sidetrack::probe
