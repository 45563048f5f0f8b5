// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/client.h"

#include <fmt/format.h>

#include <cerrno>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>

#include "agent/admin/json.h"
#include "sidetrack/version.h"

namespace sidetrack::ctl {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using Local = boost::asio::local::stream_protocol;

constexpr std::uint64_t kMaxAnswerBytes = 256ULL << 20U;

// One exchange; the stream's timer bounds it as a whole.
class Exchange {
 public:
  Exchange(http::verb method, const std::string& target, const std::string& body)
      : request_(method, target, 11, body) {
    request_.set(http::field::host, "sidetrack");
    request_.keep_alive(false);
    request_.prepare_payload();
    parser_.body_limit(kMaxAnswerBytes);
  }

  beast::error_code run(const std::string& path, std::chrono::milliseconds deadline) {
    stream_.expires_after(deadline);
    stream_.async_connect(Local::endpoint(path), [this](beast::error_code error) {
      if (proceeds(error)) {
        http::async_write(stream_, request_, [this](beast::error_code write_error, std::size_t) {
          if (proceeds(write_error)) {
            read();
          }
        });
      }
    });
    context_.run();
    return error_;
  }

  [[nodiscard]] unsigned status() const { return parser_.get().result_int(); }
  [[nodiscard]] const std::string& body() const { return parser_.get().body(); }
  [[nodiscard]] std::string server() const {
    return std::string(parser_.get()[http::field::server]);
  }

 private:
  void read() {
    http::async_read(stream_, buffer_, parser_,
                     [this](beast::error_code error, std::size_t) { error_ = error; });
  }
  bool proceeds(const beast::error_code& error) {
    error_ = error;
    return !error;
  }

  boost::asio::io_context context_;
  beast::basic_stream<Local> stream_{context_};
  http::request<http::string_body> request_;
  http::response_parser<http::string_body> parser_;
  beast::flat_buffer buffer_;
  beast::error_code error_;
};

Error unreachable(const std::string& path, const beast::error_code& error) {
  std::string hint;
  if (error == boost::system::errc::permission_denied) {
    hint = "Only root may talk to the agent: run this with sudo.";
  } else if (error == beast::error::timeout) {
    hint =
        "The agent accepts but does not answer: look at its log, and at what it does (its state "
        "may be T or D).";
  } else {
    hint =
        "Is sidetrack-agent running on this node? Start it, or say where its sockets are with "
        "--state-dir DIR "
        "(doctor and bypass work without it).";
  }
  return Error{
      ErrorCode::kIo, error == beast::error::timeout ? ETIMEDOUT : error.value(),
      fmt::format("the agent cannot be reached at {}: {}. {}", path, error.message(), hint)};
}

ErrorCode code_for(unsigned status) {
  switch (status) {
    case 404:
      return ErrorCode::kNotFound;
    case 400:
      return ErrorCode::kInvalid;
    case 403:
      return ErrorCode::kPermission;
    case 503:
      return ErrorCode::kBusy;
    default:
      return ErrorCode::kInternal;
  }
}

// Agent and sidetrackctl of different versions understand each other but for what one of them does
// not have.
std::string about_versions(const std::string& server) {
  constexpr std::string_view kAgent = "sidetrack-agent/";
  if (!server.starts_with(kAgent) || server.substr(kAgent.size()) == version()) {
    return "";
  }
  return fmt::format(
      " (the agent is version {}, this sidetrackctl {}: use the one in the agent's container)",
      server.substr(kAgent.size()), version());
}

Result<nlohmann::json> answer_of(Exchange& exchange, const std::string& socket_path,
                                 std::chrono::milliseconds deadline, const std::string& key) {
  if (socket_path.size() > 107) {
    return make_error(ErrorCode::kInvalid,
                      "socket path " + socket_path + " is longer than 107 bytes");
  }
  if (const auto error = exchange.run(socket_path, deadline)) {
    return unreachable(socket_path, error);
  }
  auto body = nlohmann::json::parse(exchange.body(), nullptr, false);
  const bool is_ours = body.is_object() && body.contains(key);
  if (exchange.status() == 200 && is_ours) {
    return body;
  }
  std::string message =
      exchange.status() == 200
          ? fmt::format("what answers at {} is no agent of a version that we know: no \"{}\" in it",
                        socket_path, key)
          : fmt::format("the agent answered {}", exchange.status());
  if (body.is_object() && body.contains("error") && body["error"].is_object()) {
    message = body["error"].value("message", message);
  }
  return make_error(code_for(exchange.status()), message + about_versions(exchange.server()));
}

}  // namespace

Result<nlohmann::json> Client::get(const std::string& target, const std::string& key) const {
  Exchange exchange(http::verb::get, target, "");
  return answer_of(exchange, socket_path_, deadline_, key);
}

Result<nlohmann::json> Client::post(const std::string& target, const nlohmann::json& body,
                                    const std::string& key) const {
  Exchange exchange(http::verb::post, target, admin::dump(body));
  return answer_of(exchange, socket_path_, deadline_, key);
}

}  // namespace sidetrack::ctl
