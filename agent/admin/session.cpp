// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/session.h"

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>

#include "agent/admin/json.h"
#include "sidetrack/version.h"

namespace sidetrack::admin {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Socket = asio::generic::stream_protocol::socket;
using Stream = beast::basic_stream<asio::generic::stream_protocol>;

struct Sessions::State {
  Handler handler;
  Limits limits;
  std::set<Session*> live;
};

namespace {

Response failure(unsigned status, ErrorCode code, std::string message) {
  return Response{.status = status,
                  .body = dump(admin::to_json(make_error(code, std::move(message)))),
                  .allow = {}};
}

// What to tell the client of a request that could not be read; nothing = just close.
std::optional<Response> answer_to(const beast::error_code& error) {
  if (error == http::error::header_limit) {
    return failure(431, ErrorCode::kInvalid, "the request header is too large");
  }
  if (error == http::error::body_limit) {
    return failure(413, ErrorCode::kInvalid, "the request body is too large");
  }
  const bool malformed = error.category() == make_error_code(http::error::bad_method).category() &&
                         error != http::error::end_of_stream &&
                         error != http::error::partial_message;
  if (malformed) {
    return failure(400, ErrorCode::kInvalid, "this is not an HTTP/1.1 request: " + error.message());
  }
  return std::nullopt;
}

}  // namespace

// One connection: read a request, answer it, again. Keeps itself alive through its pending
// operation.
class Sessions::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Socket socket, std::shared_ptr<State> state)
      : stream_(std::move(socket)), state_(std::move(state)) {
    state_->live.insert(this);
  }
  ~Session() { state_->live.erase(this); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void read() {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(state_->limits.header_bytes));
    parser_->body_limit(state_->limits.body_bytes);
    stream_.expires_after(state_->limits.idle);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](beast::error_code error, std::size_t) {
                       self->on_read(error);
                     });
  }

  void close() { stream_.close(); }

 private:
  void on_read(const beast::error_code& error) {
    if (error) {
      if (auto answer = answer_to(error)) {
        write(std::move(*answer), Next::kClose);
      }
      return;
    }
    const auto& message = parser_->get();
    auto request = parse_target({message.target().data(), message.target().size()});
    const auto next = message.keep_alive() ? Next::kRead : Next::kClose;
    if (!request) {
      write(failure(400, ErrorCode::kInvalid, "the request target is malformed"), next);
      return;
    }
    request->method = std::string(message.method_string());
    request->body = message.body();
    write(state_->handler(*request), next);
  }

  enum class Next { kRead, kClose };

  void write(Response response, Next next) {
    message_ = http::response<http::string_body>();
    message_.version(11);
    message_.result(response.status);
    message_.set(http::field::content_type, response.content_type);
    message_.set(http::field::cache_control, "no-store");
    message_.set(http::field::server,
                 "sidetrack-agent/" + version());  // a client of another says so
    if (!response.allow.empty()) {
      message_.set(http::field::allow, response.allow);
    }
    message_.keep_alive(next == Next::kRead);
    message_.body() = std::move(response.body);
    message_.prepare_payload();
    if (parser_->is_header_done() && parser_->get().method() == http::verb::head) {
      message_.body().clear();  // Content-Length stays that of the body left out
    }
    stream_.expires_after(state_->limits.idle);
    http::async_write(
        stream_, message_, [self = shared_from_this(), next](beast::error_code error, std::size_t) {
          if (error) {
            return;
          }
          if (next == Next::kRead) {
            self->read();
          } else {
            beast::error_code ignored;
            self->stream_.socket().shutdown(asio::socket_base::shutdown_send, ignored);
          }
        });
  }

  Stream stream_;
  std::shared_ptr<State> state_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> message_;
};

Sessions::Sessions(asio::io_context& context, int family, Handler handler, Limits limits)
    : context_(context),
      family_(family),
      state_(std::make_shared<State>(
          State{.handler = std::move(handler), .limits = limits, .live = {}})) {}

Sessions::~Sessions() {
  for (auto* session : std::set<Session*>(state_->live)) {
    session->close();
  }
  // A callback that is already queued must find a handler that does not reach into what is gone.
  state_->handler = [](const Request&) {
    return failure(503, ErrorCode::kBusy, "the agent is stopping");
  };
}

void Sessions::start(UniqueFd fd) {
  Socket socket(context_);
  beast::error_code error;
  socket.assign(asio::generic::stream_protocol(family_, 0), fd.get(), error);
  if (error) {
    return;  // out of memory, as when the connection could not be accepted
  }
  static_cast<void>(fd.release());
  if (state_->live.size() < state_->limits.connections) {
    std::make_shared<Session>(std::move(socket), state_)->read();
    return;
  }
  static constexpr std::string_view kFull =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 68\r\n"
      "Connection: close\r\n\r\n"
      R"({"error":{"code":"busy","message":"too many connections are open"}})"
      "\n";
  socket.non_blocking(true, error);
  socket.write_some(asio::buffer(kFull.data(), kFull.size()), error);
}

std::size_t Sessions::count() const {
  return state_->live.size();
}

}  // namespace sidetrack::admin
