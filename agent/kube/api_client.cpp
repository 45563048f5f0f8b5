// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/api_client.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <utility>
#include <vector>

namespace sidetrack::kube {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t kMaxErrorBody = 64UL * 1024;
constexpr long kConnectTimeoutMs = 10'000;
constexpr int kUserTimeoutMs = 30'000;  // unacknowledged bytes for so long: the peer is gone
constexpr long kKeepaliveIdleSeconds = 15;
constexpr long kKeepaliveIntervalSeconds = 5;
// Those that are kept while idle may have ended unseen, all at once: libcurl tries a request again
// on another at most five times, and then reports the first failure.
constexpr long kMaxConnections = 5;
constexpr long kReceiveBuffer = 64L * 1024;
constexpr long kMaxRetryAfter = 3600;

struct EasyFreer {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiFreer {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct ListFreer {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, EasyFreer>;
using Multi = std::unique_ptr<CURLM, MultiFreer>;
using Headers = std::unique_ptr<curl_slist, ListFreer>;

int set_user_timeout(void*, curl_socket_t socket, curlsocktype) {
  const int timeout = kUserTimeoutMs;
  // An old kernel without it still has keepalive.
  static_cast<void>(setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout)));
  return CURL_SOCKOPT_OK;
}

class Transfer {
 public:
  Transfer(ApiCall& call, const ApiRequest& request)
      : call_(&call),
        body_(request.body),
        head_limit_(steady_clock::now() + request.head_deadline) {}

  static std::size_t on_write(char* bytes, std::size_t size, std::size_t count, void* self) {
    return static_cast<Transfer*>(self)->write({bytes, size * count}) ? size * count : 0;
  }

  bool write(std::string_view bytes) {
    note_head();
    if (status_ >= 200 && status_ < 300) {
      return call_->on_data(bytes);
    }
    outcome_.body.append(bytes.substr(0, kMaxErrorBody - outcome_.body.size()));
    return true;
  }

  // Tells of the head once it is here.
  void note_head() {
    if (status_ != 0) {
      return;
    }
    long status = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
    status_ = status < 200 ? 0 : static_cast<int>(status);
    if (status_ >= 200 && status_ < 300) {
      call_->on_answer();
    }
  }

  ApiOutcome finish(CURLcode code) {
    note_head();
    outcome_.status = status_;
    if (code != CURLE_OK && outcome_.error.empty()) {
      outcome_.error = error.front() != '\0' ? error.data() : curl_easy_strerror(code);
    }
    curl_off_t wait = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_RETRY_AFTER, &wait);
    if (wait > 0) {
      outcome_.retry_after = std::chrono::seconds(std::min<curl_off_t>(wait, kMaxRetryAfter));
    }
    return std::move(outcome_);
  }

  [[nodiscard]] ApiCall& call() const { return *call_; }
  [[nodiscard]] const std::string& body() const { return body_; }
  [[nodiscard]] bool has_head() const { return status_ != 0; }
  [[nodiscard]] steady_clock::time_point head_limit() const { return head_limit_; }

  Easy easy;
  Headers headers;
  std::array<char, CURL_ERROR_SIZE> error{};

 private:
  ApiCall* call_;
  std::string body_;  // libcurl does not copy it
  steady_clock::time_point head_limit_;
  ApiOutcome outcome_;
  int status_ = 0;
};

void set_pem(CURL* easy, const Pem& pem, CURLoption file, CURLoption blob) {
  if (!pem.text.empty()) {
    curl_blob data{.data = const_cast<char*>(pem.text.data()),
                   .len = pem.text.size(),
                   .flags = CURL_BLOB_COPY};
    curl_easy_setopt(easy, blob, &data);
  } else if (!pem.file.empty()) {
    curl_easy_setopt(easy, file, pem.file.c_str());
  }
}

void set_server(CURL* easy, const ApiConfig& config) {
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(easy, CURLOPT_PROXY, "");  // the API server is near; *_proxy is for others
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
  set_pem(easy, config.authority, CURLOPT_CAINFO, CURLOPT_CAINFO_BLOB);
  set_pem(easy, config.client_certificate, CURLOPT_SSLCERT, CURLOPT_SSLCERT_BLOB);
  set_pem(easy, config.client_key, CURLOPT_SSLKEY, CURLOPT_SSLKEY_BLOB);
  curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);  // the authority's file rotates
  curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
}

void set_times(CURL* easy, const ApiRequest& request) {
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(request.deadline.count()));
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, kKeepaliveIdleSeconds);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, kKeepaliveIntervalSeconds);
  curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, set_user_timeout);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReceiveBuffer);
  if (request.idle_limit.count() > 0) {
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.idle_limit.count()));
  }
}

Headers make_headers(const ApiRequest& request, const std::string& token) {
  Headers headers;
  const auto add = [&headers](const std::string& line) {
    headers.reset(curl_slist_append(headers.release(), line.c_str()));
  };
  add("Accept: application/json");
  if (!token.empty()) {
    add("Authorization: Bearer " + token);
  }
  if (!request.body.empty()) {
    add("Content-Type: " + request.content_type);
    add("Expect:");  // no round trip before the body
  }
  return headers;
}

// libcurl wants this once for the process, before threads use it.
bool start_libcurl() {
  static const bool kStarted = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return kStarted;
}

}  // namespace

struct ApiClient::Impl {
  explicit Impl(ApiConfig server) : config(std::move(server)) {}

  void end(CallId id, CURLcode code, std::string error);
  void end_finished();
  void end_headless();
  [[nodiscard]] std::chrono::milliseconds next_wait(steady_clock::time_point until) const;
  [[nodiscard]] CallId find(CURL* easy) const;

  ApiConfig config;
  Multi multi;
  // Before `multi` goes, each transfer must have been taken out of it: ~ApiClient().
  std::map<CallId, std::unique_ptr<Transfer>> transfers;
  std::vector<std::pair<CallId, std::string>> stillborn;  // could not be started, not yet told
  CallId last_id = 0;
};

Result<std::unique_ptr<ApiClient>> ApiClient::create(ApiConfig config) {
  auto impl = std::make_unique<Impl>(std::move(config));
  if (start_libcurl()) {
    impl->multi.reset(curl_multi_init());
  }
  if (!impl->multi) {
    return make_error(ErrorCode::kInternal, "libcurl cannot start");
  }
  curl_multi_setopt(impl->multi.get(), CURLMOPT_MAXCONNECTS, kMaxConnections);
  return std::unique_ptr<ApiClient>(new ApiClient(std::move(impl)));
}

ApiClient::ApiClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ApiClient::~ApiClient() {
  while (!impl_->transfers.empty()) {
    cancel(impl_->transfers.begin()->first);
  }
}

ApiClient::CallId ApiClient::start(const ApiRequest& request, ApiCall& call) {
  const CallId id = ++impl_->last_id;
  auto transfer = std::make_unique<Transfer>(call, request);
  transfer->easy.reset(curl_easy_init());
  CURL* const easy = transfer->easy.get();
  auto token = read_token(impl_->config);
  if (easy == nullptr || !token) {
    impl_->stillborn.emplace_back(id, token ? "libcurl: out of memory" : token.error().message);
    impl_->transfers.emplace(id, std::move(transfer));
    return id;
  }
  transfer->headers = make_headers(request, *token);
  curl_easy_setopt(easy, CURLOPT_URL, (impl_->config.server + request.target).c_str());
  curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers.get());
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "sidetrack-agent");
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error.data());
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::on_write);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer.get());
  if (!transfer->body().empty()) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body().data());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(transfer->body().size()));
  }
  set_server(easy, impl_->config);
  set_times(easy, request);
  curl_multi_add_handle(impl_->multi.get(), easy);
  impl_->transfers.emplace(id, std::move(transfer));
  return id;
}

void ApiClient::cancel(CallId id) {
  const auto found = impl_->transfers.find(id);
  if (found != impl_->transfers.end()) {
    curl_multi_remove_handle(impl_->multi.get(), found->second->easy.get());
    impl_->transfers.erase(found);
  }
}

void ApiClient::Impl::end(CallId id, CURLcode code, std::string error) {
  const auto found = transfers.find(id);
  if (found == transfers.end()) {
    return;
  }
  // The call may start others, or cancel this one, from its on_end().
  const std::unique_ptr<Transfer> transfer = std::move(found->second);
  transfers.erase(found);
  ApiOutcome outcome;
  if (transfer->easy) {
    curl_multi_remove_handle(multi.get(), transfer->easy.get());
    outcome = transfer->finish(code);
  }
  if (!error.empty()) {
    outcome.error = std::move(error);
  }
  transfer->call().on_end(outcome);
}

ApiClient::CallId ApiClient::Impl::find(CURL* easy) const {
  const auto found = std::find_if(transfers.begin(), transfers.end(), [easy](const auto& entry) {
    return entry.second->easy.get() == easy;
  });
  return found == transfers.end() ? 0 : found->first;
}

void ApiClient::Impl::end_finished() {
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi.get(), &left)) {
    if (message->msg == CURLMSG_DONE) {
      end(find(message->easy_handle), message->data.result, {});
    }
  }
}

void ApiClient::Impl::end_headless() {
  const auto now = steady_clock::now();
  std::vector<CallId> late;
  for (const auto& [id, transfer] : transfers) {
    transfer->note_head();
    if (!transfer->has_head() && transfer->head_limit() <= now) {
      late.push_back(id);
    }
  }
  for (const CallId id : late) {
    end(id, CURLE_OPERATION_TIMEDOUT, "the API server does not answer");
  }
}

milliseconds ApiClient::Impl::next_wait(steady_clock::time_point until) const {
  if (!stillborn.empty()) {
    return milliseconds(0);
  }
  for (const auto& [id, transfer] : transfers) {
    if (!transfer->has_head()) {
      until = std::min(until, transfer->head_limit());
    }
  }
  const auto wait = std::chrono::ceil<milliseconds>(until - steady_clock::now());
  return std::clamp(wait, milliseconds(0), milliseconds(60'000));
}

void ApiClient::run(steady_clock::time_point until) {
  const auto wait = impl_->next_wait(until);
  // Also waits when there is no transfer, and no longer than libcurl's own timers want (a new
  // transfer: not at all).
  curl_multi_poll(impl_->multi.get(), nullptr, 0, static_cast<int>(wait.count()), nullptr);
  int running = 0;
  curl_multi_perform(impl_->multi.get(), &running);
  impl_->end_finished();
  impl_->end_headless();
  for (auto& [id, error] : std::exchange(impl_->stillborn, {})) {
    impl_->end(id, CURLE_FAILED_INIT, std::move(error));
  }
}

void ApiClient::wake() {
  curl_multi_wakeup(impl_->multi.get());
}

}  // namespace sidetrack::kube
