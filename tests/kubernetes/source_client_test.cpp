// SPDX-License-Identifier: Apache-2.0
// ApiClient against a TLS server that answers as the test says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "agent/kube/api_client.h"
#include "tests/kubernetes/source_pki.h"
#include "tests/kubernetes/source_tls_server.h"
#include "tests/lab/lab.h"
#include "tests/lab/temp_dir.h"
#include "tests/lab/wait.h"

namespace sidetrack::tests {
namespace {

using namespace std::chrono_literals;
using kube::ApiClient;
using kube::ApiConfig;
using kube::ApiOutcome;
using kube::ApiRequest;
using std::chrono::steady_clock;
using testing::HasSubstr;

struct Call : kube::ApiCall {
  void on_answer() override { ++answers; }
  bool on_data(std::string_view bytes) override {
    body += bytes;
    return body.size() < stop_at;
  }
  void on_end(const ApiOutcome& ended) override { outcome = ended; }

  int answers = 0;
  std::string body;
  std::size_t stop_at = std::string::npos;
  std::optional<ApiOutcome> outcome;
};

// Sockets of this process that are connected to a port of this machine.
std::vector<int> sockets_to(std::uint16_t port) {
  std::vector<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename().string());
    sockaddr_in peer{};
    socklen_t size = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0 &&
        peer.sin_family == AF_INET && ntohs(peer.sin_port) == port) {
      found.push_back(fd);
    }
  }
  return found;
}

int option_of(int socket, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(socket, level, name, &value, &size) == 0 ? value : -1;
}

class ApiClientTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = lab::TempDir::create("client");
    ASSERT_TRUE(folder);
    folder_.emplace(std::move(*folder));
    auto pki = Pki::create(folder_->path());
    if (!pki && pki.error().code == ErrorCode::kNotFound) {
      GTEST_SKIP() << pki.error().message;
    }
    ASSERT_TRUE(pki) << pki.error().message;
    pki_.emplace(std::move(*pki));
    ST_ASSERT_OK(pki_->issue("server", "/CN=server"));
    serve([](const HttpRequest&, Answer& answer) { answer.respond(200, "{}"); });
  }

  void serve(TlsServer::Handler handler, const std::string& address = "127.0.0.1") {
    client_.reset();
    server_.reset();
    auto server = TlsServer::start(pki_->file("server.crt"), pki_->file("server.key"),
                                   std::move(handler), address);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    ApiConfig config{.server = server_->url()};
    config.authority.file = folder_->file("trusted.crt");
    config.token_file = folder_->file("token");
    trust(*pki_);
    write_token("first");
    auto client = ApiClient::create(std::move(config));
    ASSERT_TRUE(client);
    client_ = std::move(*client);
  }

  void trust(const Pki& pki) {
    std::filesystem::copy_file(pki.authority(), folder_->file("trusted.crt"),
                               std::filesystem::copy_options::overwrite_existing);
  }
  void write_token(const std::string& token) { std::ofstream(folder_->file("token")) << token; }

  // Runs one call to its end.
  Call get(ApiRequest request = {.target = "/x"}) {
    Call call;
    client_->start(request, call);
    run([&] { return call.outcome.has_value(); });
    return call;
  }
  static ApiRequest event() {
    return {
        .method = "POST", .target = "/x", .body = R"({"a":1})", .content_type = "application/json"};
  }
  // Starts one whose answer has come in part and does not end.
  void start_endless(Call& call) {
    serve(say_one_and_hang);
    follow(call);
  }
  static void say_one_and_hang(const HttpRequest&, Answer& answer) {
    answer.begin_chunks();
    answer.write_chunk("one");
    answer.hang();
  }
  // As long as a watch may take.
  void follow(Call& call) {
    client_->start({.target = "/x", .deadline = 600s}, call);
    run([&] { return call.body == "one"; });
  }
  void run(const std::function<bool()>& done, std::chrono::seconds limit = 20s) {
    const auto end = steady_clock::now() + limit;
    while (!done() && steady_clock::now() < end) {
      client_->run(end);
    }
    ASSERT_TRUE(done());
  }

  std::optional<lab::TempDir> folder_;
  std::optional<Pki> pki_;
  std::unique_ptr<TlsServer> server_;
  std::unique_ptr<ApiClient> client_;
};

TEST_F(ApiClientTest, streams_the_pieces_of_an_answer_as_they_come) {
  Call call;
  start_endless(call);
  EXPECT_EQ(call.answers, 1);
  EXPECT_FALSE(call.outcome);
}

// A watch may be silent for minutes: nothing else says that its server is gone.
TEST_F(ApiClientTest, asks_the_kernel_to_notice_a_peer_that_is_gone_within_half_a_minute) {
  Call call;
  start_endless(call);
  const std::vector<int> sockets = sockets_to(server_->port());
  ASSERT_EQ(sockets.size(), 1U);
  EXPECT_EQ(option_of(sockets[0], IPPROTO_TCP, TCP_USER_TIMEOUT), 30'000);
  EXPECT_EQ(option_of(sockets[0], SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option_of(sockets[0], IPPROTO_TCP, TCP_KEEPIDLE), 15);
  EXPECT_EQ(option_of(sockets[0], IPPROTO_TCP, TCP_KEEPINTVL), 5);
}

// Nobody says that the peer is gone: its packets and those to it vanish.
TEST_F(ApiClientTest, ends_a_silent_answer_whose_server_vanished_after_half_a_minute) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  ST_ASSERT_VALUE(const auto lab, lab::Lab::create("vanish"));
  ST_ASSERT_VALUE(const lab::Pod* const client, lab->add_pod("client"));
  ST_ASSERT_VALUE(const lab::Pod* const server, lab->add_pod("server"));
  ST_ASSERT_OK(pki_->issue("server", "/CN=server", server->v4));
  ST_ASSERT_OK(server->netns.run([&]() -> Result<void> {
    serve(say_one_and_hang, server->v4);
    return {};
  }));
  Call call;
  ST_ASSERT_OK(client->netns.run([&]() -> Result<void> {
    follow(call);
    return {};
  }));
  ASSERT_FALSE(HasFatalFailure());
  ST_ASSERT_OK(server->netns.ip("link set eth0 down"));
  run([&] { return call.outcome.has_value(); }, 40s);
  ASSERT_TRUE(call.outcome);
  EXPECT_FALSE(call.outcome->ok());
  EXPECT_NE(call.outcome->error, "");
}

TEST_F(ApiClientTest, tells_a_whole_answer_from_one_that_is_cut_off) {
  serve([](const HttpRequest& request, Answer& answer) {
    answer.begin_chunks();
    answer.write_chunk("one");
    if (request.target == "/whole") {
      answer.write_chunk("");
    } else {
      answer.write("5\r\ntw");
      answer.close_after();
    }
  });
  const Call whole = get({.target = "/whole"});
  EXPECT_TRUE(whole.outcome->ok()) << whole.outcome->error;
  const Call cut = get({.target = "/cut"});
  EXPECT_EQ(cut.outcome->status, 200);
  EXPECT_NE(cut.outcome->error, "");
  EXPECT_FALSE(cut.outcome->ok());
}

class EndedConnection : public ApiClientTest, public testing::WithParamInterface<Ending> {
 protected:
  // Runs so many calls at once; then the server ends their connections, and the client's kernel
  // knows.
  void end_after(std::ptrdiff_t calls) {
    std::latch asked(calls);
    std::latch idle(1);
    serve([&](const HttpRequest&, Answer& answer) {
      if (asked.try_wait()) {
        answer.respond(200, "{}");
        return;
      }
      asked.arrive_and_wait();
      answer.respond(200, "{}");
      idle.wait();
      answer.close_after(GetParam());
    });
    std::vector<Call> all(static_cast<std::size_t>(calls));
    for (Call& call : all) {
      client_->start(event(), call);
    }
    run([&] {
      return std::ranges::all_of(all, [](const Call& one) { return one.outcome.has_value(); });
    });
    const std::vector<int> sockets = sockets_to(server_->port());
    EXPECT_FALSE(sockets.empty());
    idle.count_down();
    for (const int socket : sockets) {
      pollfd end{.fd = socket, .events = POLLRDHUP, .revents = 0};
      EXPECT_TRUE(lab::eventually(lab::kPatience, [&] {
        return poll(&end, 1, 0) == 1 && (GetParam() != Ending::kGone || (end.revents & POLLERR));
      }));
    }
  }
};

// An API server ends a connection that has been idle for a while, and all of them when it restarts.
TEST_P(EndedConnection, is_not_used_again) {
  for (const std::ptrdiff_t calls : {1, 20}) {
    end_after(calls);
    const Call next = get(event());
    EXPECT_TRUE(next.outcome->ok()) << next.outcome->error;
  }
}

// Nobody can see that before.
TEST_P(EndedConnection, under_a_request_is_followed_by_another) {
  for (const ApiRequest& request : {ApiRequest{.target = "/x"}, event()}) {
    std::vector<std::string> asked;
    serve([&](const HttpRequest& heard, Answer& answer) {
      asked.push_back(heard.body);
      if (asked.size() == 2) {
        answer.close_after(GetParam());
      } else {
        answer.respond(200, "{}");
      }
    });
    EXPECT_TRUE(get(request).outcome->ok());
    const Call second = get(request);
    EXPECT_TRUE(second.outcome->ok()) << second.outcome->error;
    EXPECT_EQ(asked, std::vector(3, request.body));
  }
}

INSTANTIATE_TEST_SUITE_P(ApiClient, EndedConnection,
                         testing::Values(Ending::kCut, Ending::kNotified, Ending::kGone),
                         [](const auto& one) {
                           return one.param == Ending::kCut        ? "cut"
                                  : one.param == Ending::kNotified ? "notified"
                                                                   : "gone";
                         });

TEST_F(ApiClientTest, tells_of_a_new_connection_that_ends_without_an_answer) {
  std::atomic<int> asked = 0;
  serve([&](const HttpRequest&, Answer& answer) {
    ++asked;
    answer.close_after();
  });
  EXPECT_NE(get().outcome->error, "");
  EXPECT_EQ(asked, 1);
}

TEST_F(ApiClientTest, gives_the_body_and_the_time_to_wait_of_an_error) {
  serve([](const HttpRequest&, Answer& answer) {
    answer.respond(429, R"({"reason":"TooManyRequests"})", "Retry-After: 7\r\n");
  });
  const Call call = get();
  EXPECT_EQ(call.outcome->status, 429);
  EXPECT_EQ(call.outcome->error, "");
  EXPECT_EQ(call.outcome->body, R"({"reason":"TooManyRequests"})");
  EXPECT_EQ(call.outcome->retry_after, 7s);
  EXPECT_EQ(call.body, "");
  EXPECT_EQ(call.answers, 0);
}

TEST_F(ApiClientTest, ends_a_call_that_gets_no_head) {
  serve([](const HttpRequest&, Answer& answer) { answer.hang(); });
  const auto begin = steady_clock::now();
  const Call call = get({.target = "/x", .deadline = 60s, .head_deadline = 300ms});
  EXPECT_EQ(call.outcome->status, 0);
  EXPECT_THAT(call.outcome->error, HasSubstr("does not answer"));
  EXPECT_GE(steady_clock::now() - begin, 300ms);
  EXPECT_LT(steady_clock::now() - begin, 10s);
}

TEST_F(ApiClientTest, ends_a_call_at_its_deadline_though_bytes_keep_coming) {
  serve([](const HttpRequest&, Answer& answer) {
    answer.begin_chunks();
    while (answer.write_chunk("x") && answer.pause(20ms)) {
    }
  });
  const Call call = get({.target = "/x", .deadline = 500ms});
  EXPECT_EQ(call.outcome->status, 200);
  EXPECT_NE(call.outcome->error, "");
  EXPECT_NE(call.body, "");
}

TEST_F(ApiClientTest, says_that_nobody_listens) {
  server_->go_away();
  const Call call = get();
  EXPECT_EQ(call.outcome->status, 0);
  EXPECT_NE(call.outcome->error, "");
}

TEST_F(ApiClientTest, sends_the_token_that_is_in_the_file_now) {
  std::mutex mutex;
  std::vector<std::string> tokens;
  serve([&](const HttpRequest& request, Answer& answer) {
    const std::lock_guard lock(mutex);
    tokens.push_back(request.headers.at("authorization"));
    answer.respond(200, "{}");
  });
  get();
  write_token("second\n");
  get();
  EXPECT_THAT(tokens, testing::ElementsAre("Bearer first", "Bearer second"));
  std::filesystem::remove(folder_->file("token"));
  EXPECT_THAT(get().outcome->error, HasSubstr("token"));
}

TEST_F(ApiClientTest, trusts_the_authority_that_is_in_the_file_now_and_no_other) {
  EXPECT_TRUE(get().outcome->ok());
  std::filesystem::create_directory(folder_->path() / "next");
  ST_ASSERT_VALUE(const Pki next, Pki::create(folder_->path() / "next", "other"));
  ST_ASSERT_OK(next.issue("server", "/CN=server"));
  ST_ASSERT_OK(server_->use_certificate(next.file("server.crt"), next.file("server.key")));
  server_->drop_all();
  EXPECT_EQ(get().outcome->status, 0) << "signed by an authority that is not trusted";
  trust(next);
  EXPECT_TRUE(get().outcome->ok()) << get().outcome->error;
}

TEST_F(ApiClientTest, does_not_follow_a_redirection_with_the_token) {
  serve([](const HttpRequest& request, Answer& answer) {
    answer.respond(request.target == "/x" ? 302 : 200, "{}", "Location: /stolen\r\n");
  });
  EXPECT_EQ(get().outcome->status, 302);
}

TEST_F(ApiClientTest, posts_a_body) {
  serve([](const HttpRequest& request, Answer& answer) {
    answer.respond(200,
                   request.method + " " + request.headers.at("content-type") + " " + request.body);
  });
  const Call call = get(event());
  EXPECT_EQ(call.body, R"(POST application/json {"a":1})");
}

TEST_F(ApiClientTest, ends_a_call_whose_reader_has_enough) {
  serve([](const HttpRequest&, Answer& answer) {
    answer.begin_chunks();
    answer.write_chunk("12345");
    answer.hang();
  });
  Call call;
  call.stop_at = 5;
  client_->start({.target = "/x"}, call);
  run([&] { return call.outcome.has_value(); });
  EXPECT_FALSE(call.outcome->ok());
}

TEST_F(ApiClientTest, says_nothing_of_a_call_after_it_was_cancelled) {
  Call call;
  client_->cancel(client_->start({.target = "/x"}, call));
  EXPECT_TRUE(get().outcome->ok());
  EXPECT_EQ(call.answers, 0);
  EXPECT_FALSE(call.outcome);
}

TEST_F(ApiClientTest, is_woken_by_another_thread) {
  std::thread waker([this] { client_->wake(); });
  const auto begin = steady_clock::now();
  client_->run(begin + 20s);
  waker.join();
  EXPECT_LT(steady_clock::now() - begin, 10s);
}

}  // namespace
}  // namespace sidetrack::tests
