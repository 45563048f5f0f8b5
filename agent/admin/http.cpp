// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/http.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include <boost/asio/ip/tcp.hpp>

#include "agent/sys/accept_loop.h"

namespace sidetrack::admin {
namespace {

using Tcp = boost::asio::ip::tcp;
constexpr const char* kText = "text/plain; charset=utf-8";

Response text(unsigned status, std::string body) {
  return Response{.status = status, .content_type = kText, .body = std::move(body), .allow = {}};
}

// One line for everything that keeps the agent from being ready.
std::string why_not_ready(const StatusView& status) {
  std::string why = fmt::format("not ready: the agent is {}\n", status.agent_state);
  for (const auto& program : status.programs) {
    if (!program.attached) {
      why += fmt::format("program {} is not attached to {}{}{}\n", program.name, program.hook,
                         program.detail.empty() ? "" : ": ", program.detail);
    }
  }
  for (const auto& problem : status.problems) {
    if (problem.severity == "error") {
      why += fmt::format("{}{}{}: {}\n", problem.object, problem.key.empty() ? "" : " ",
                         problem.key, problem.reason);
    }
  }
  return why;
}

Result<Tcp::endpoint> parse_endpoint(const std::string& address) {
  const auto colon = address.rfind(':');
  const auto wrong =
      make_error(ErrorCode::kInvalid, address + " is not ADDRESS:PORT (IPv6 as [ADDRESS]:PORT)");
  if (colon == std::string::npos) {
    return wrong;
  }
  auto host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  std::uint16_t port = 0;
  const char* const end = address.data() + address.size();
  const auto [stop, error] = std::from_chars(address.data() + colon + 1, end, port);
  boost::system::error_code bad;
  const auto parsed = boost::asio::ip::make_address(host, bad);
  if (error != std::errc{} || stop != end || bad) {
    return wrong;
  }
  return Tcp::endpoint(parsed, port);
}

Error listen_error(const std::string& address, const boost::system::error_code& error) {
  const std::string what = "listen at " + address + ": " + error.message();
  if (error == boost::asio::error::address_in_use) {
    return Error{ErrorCode::kBusy, error.value(), what};
  }
  if (error == boost::system::errc::address_not_available ||
      error == boost::system::errc::address_family_not_supported) {
    return Error{ErrorCode::kInvalid, error.value(), what + " (no interface here has it)"};
  }
  return Error{ErrorCode::kIo, error.value(), what};
}

}  // namespace

Handler make_health(Views& views, std::function<std::string()> metrics) {
  return [&views, metrics = std::move(metrics)](const Request& request) {
    if (request.method != "GET" && request.method != "HEAD") {
      auto response = text(405, "only GET\n");
      response.allow = "GET, HEAD";
      return response;
    }
    if (request.path == "/metrics") {
      return Response{.content_type = "text/plain; version=0.0.4; charset=utf-8",
                      .body = metrics(),
                      .allow = {}};
    }
    if (request.path == "/healthz") {
      return text(200, "ok\n");
    }
    if (request.path == "/readyz") {
      return views.ready() ? text(200, "ready\n") : text(503, why_not_ready(views.status()));
    }
    return text(404, "there are /metrics, /healthz and /readyz\n");
  };
}

struct HttpServer::Impl {
  Impl(boost::asio::io_context& context, int family, Handler handler, Limits limits)
      : sessions(context, family, std::move(handler), limits),
        loop(context, "admin", [this](UniqueFd socket) {
          sessions.start(std::move(socket));
          return sys::Accepting::kMore;
        }) {}

  Sessions sessions;
  sys::AcceptLoop loop;
  std::uint16_t port = 0;
};

Result<void> HttpServer::check(const std::string& address) {
  ST_TRY(parse_endpoint(address));
  return {};
}

Result<UniqueFd> HttpServer::bind(const std::string& address) {
  const auto endpoint = parse_endpoint(address);
  ST_TRY(endpoint);
  boost::asio::io_context context;
  Tcp::acceptor acceptor(context);
  boost::system::error_code error;
  acceptor.open(endpoint->protocol(), error);
  if (!error) {
    acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  }
  if (!error) {
    acceptor.bind(*endpoint, error);
  }
  if (!error) {
    acceptor.listen(64, error);
  }
  if (!error) {
    acceptor.non_blocking(true, error);
  }
  if (error) {
    return listen_error(address, error);
  }
  return UniqueFd(acceptor.release());
}

Result<std::unique_ptr<HttpServer>> HttpServer::listen(boost::asio::io_context& context,
                                                       const std::string& address, Handler handler,
                                                       Limits limits) {
  const auto endpoint = parse_endpoint(address);
  ST_TRY(endpoint);
  auto socket = bind(address);
  ST_TRY(socket);
  const int family = endpoint->protocol().family();
  Tcp::acceptor acceptor(context, endpoint->protocol(), socket->release());
  auto impl = std::make_unique<Impl>(context, family, std::move(handler), limits);
  boost::system::error_code error;
  impl->port = acceptor.local_endpoint(error).port();
  ST_TRY(impl->loop.start(UniqueFd(acceptor.release())));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() = default;

std::uint16_t HttpServer::port() const {
  return impl_->port;
}

}  // namespace sidetrack::admin
