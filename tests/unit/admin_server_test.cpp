// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <vector>

#include "agent/admin/api.h"
#include "agent/admin/server.h"
#include "sidetrack/unique_fd.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack::admin {
namespace {

using test::exchange_unix;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class AdminSocket : public ::testing::Test {
 protected:
  void start(Limits limits = {}) {
    auto server = AdminServer::listen(loop_.context, path(), make_api(views_), limits);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    loop_.start();
  }
  void TearDown() override {
    loop_.stop();
    server_.reset();
  }
  [[nodiscard]] std::string path() const { return folder_.file("admin.sock"); }
  [[nodiscard]] std::string ask(const std::string& method, const std::string& target,
                                const std::string& body = "") const {
    return exchange_unix(path(),
                         method + " " + target +
                             " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
                             std::to_string(body.size()) + "\r\n\r\n" + body);
  }

  test::FakeViews views_;
  test::TemporaryFolder folder_;
  test::LoopThread loop_;
  std::unique_ptr<AdminServer> server_;
};

UniqueFd open_connection(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    fd.reset();
  }
  return fd;
}

TEST_F(AdminSocket, file_is_for_its_owner_only) {
  start();
  struct stat info {};
  ASSERT_EQ(::stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST_F(AdminSocket, answers_every_endpoint) {
  start();
  EXPECT_THAT(ask("GET", "/v1/status"), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(ask("GET", "/v1/pods?namespace=bank"), HasSubstr("\"db-0\""));
  EXPECT_THAT(ask("GET", "/v1/policy?namespace=shop&pod=web-0"), HasSubstr("\"policy_id\":5"));
  EXPECT_THAT(ask("GET", "/v1/explain?namespace=shop&pod=web-0&destination=10.0.0.1:8500"),
              HasSubstr("excluded_port"));
  EXPECT_THAT(ask("GET", "/v1/flows?namespace=shop&since=12.5&after=0"),
              HasSubstr("\"next_sequence\":1"));
  EXPECT_THAT(ask("GET", "/v1/counters"), HasSubstr("\"counters\""));
  EXPECT_EQ(views_.last_flow_query.since, 12.5);
  EXPECT_EQ(views_.last_flow_query.namespace_name, "shop");
}

TEST_F(AdminSocket, errors_have_status_code_and_message) {
  start();
  const auto missing_pod = ask("GET", "/v1/policy?namespace=shop&pod=nope");
  EXPECT_THAT(missing_pod, StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(missing_pod,
              HasSubstr(R"({"error":{"code":"not_found","message":"no pod shop/nope)"));
  EXPECT_THAT(ask("GET", "/v1/policy?namespace=shop"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("GET", "/v1/flows?after=-1"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("GET", "/v1/flows?since=nan"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("GET", "/nothing"), HasSubstr("/v1/status"));
  const auto deleted = ask("DELETE", "/v1/bypass");
  EXPECT_THAT(deleted, StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(deleted, HasSubstr("Allow: GET, POST"));
}

TEST_F(AdminSocket, bypass_is_set_by_post) {
  start();
  EXPECT_THAT(ask("POST", "/v1/bypass", R"({"on":true})"), HasSubstr(R"({"bypass":true})"));
  EXPECT_THAT(ask("GET", "/v1/bypass"), HasSubstr(R"({"bypass":true})"));
  EXPECT_THAT(ask("POST", "/v1/bypass", R"({"on":"yes"})"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("POST", "/v1/bypass", "{"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("POST", "/v1/bypass", R"({"on":false})"), HasSubstr(R"({"bypass":false})"));
}

TEST_F(AdminSocket, a_workload_is_forgotten_by_post) {
  start();
  EXPECT_THAT(ask("GET", "/v1/workloads"),
              HasSubstr(R"({"workloads":[{"reason":"fp_fionread","workload":"shop/)"));
  EXPECT_THAT(ask("POST", "/v1/workloads", R"({"forget":7})"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("POST", "/v1/workloads", R"({"forget":"nope"})"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask("POST", "/v1/workloads", R"({"forget":"shop/ReplicaSet/web-7f"})"),
              HasSubstr(R"({"workloads":[]})"));
}

TEST_F(AdminSocket, connection_is_kept_alive) {
  start();
  const auto answers =
      exchange_unix(path(),
                    "GET /v1/bypass HTTP/1.1\r\nHost: x\r\n\r\n"
                    "GET /v1/bypass HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(answers.find("HTTP/1.1 200"), answers.rfind("HTTP/1.1 200"));
}

TEST_F(AdminSocket, head_has_no_body) {
  start();
  const auto answer = ask("HEAD", "/v1/status");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(answer.substr(answer.find("\r\n\r\n")), "\r\n\r\n");
}

TEST_F(AdminSocket, malformed_requests_are_answered_400) {
  start();
  EXPECT_THAT(exchange_unix(path(), "hello\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("GET", "/a%zz"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask("GET", "/v1/status"), StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminSocket, too_large_requests_are_refused) {
  start();
  EXPECT_THAT(exchange_unix(
                  path(), "GET /v1/status HTTP/1.1\r\nX: " + std::string(20000, 'a') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(exchange_unix(
                  path(), "POST /v1/bypass HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"),
              StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask("GET", "/v1/status"), StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminSocket, connections_are_bounded) {
  start({.connections = 2});
  const auto first = open_connection(path());
  const auto second = open_connection(path());
  ASSERT_TRUE(first.valid());
  ASSERT_TRUE(second.valid());
  EXPECT_THAT(ask("GET", "/v1/status"), StartsWith("HTTP/1.1 503"));
}

TEST_F(AdminSocket, idle_connections_are_closed) {
  start({.connections = 1, .idle = std::chrono::milliseconds(50)});
  EXPECT_EQ(exchange_unix(path(), "GET /v1"), "");
  EXPECT_THAT(ask("GET", "/v1/status"), StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminSocket, other_users_get_no_answer) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root to become another user";
  }
  start();
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(path().c_str(), 0666), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(::setuid(65534) == 0 && ask("GET", "/v1/status").empty() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(AdminSocket, stale_socket_is_replaced) {
  {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path().data(), path().size());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  start();
  EXPECT_THAT(ask("GET", "/v1/status"), StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminSocket, answered_socket_is_left_alone) {
  start();
  const auto second = AdminServer::listen(loop_.context, path(), make_api(views_));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_THAT(ask("GET", "/v1/status"), StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminSocket, other_files_are_left_alone) {
  std::ofstream(path()) << "precious";
  const auto server = AdminServer::listen(loop_.context, path(), make_api(views_));
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code, ErrorCode::kExists);
}

TEST_F(AdminSocket, goes_with_its_server) {
  start();
  loop_.stop();
  server_.reset();
  EXPECT_NE(::access(path().c_str(), F_OK), 0);
}

}  // namespace
}  // namespace sidetrack::admin
