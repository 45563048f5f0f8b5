// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "agent/kube/kubeconfig.h"

namespace sidetrack::kube {
namespace {

using testing::HasSubstr;
using testing::Not;

// A kubeconfig with `cluster` and `user` as the bodies of its one cluster and user.
std::string config(const std::string& cluster, const std::string& user) {
  return "apiVersion: v1\nkind: Config\ncurrent-context: dev\n"
         "contexts:\n- name: other\n  context: {cluster: none, user: none}\n"
         "- name: dev\n  context: {cluster: one, user: me, namespace: shop}\n"
         "clusters:\n- name: one\n  cluster: {" +
         cluster + "}\nusers:\n- name: me\n  user: {" + user + "}\n";
}

std::string refusal(const std::string& text) {
  const auto parsed = parse_kubeconfig(text, "/etc/k");
  return parsed ? "accepted" : parsed.error().message;
}

TEST(Kubeconfig, reads_the_current_context) {
  const auto parsed = parse_kubeconfig(
      config("server: 'https://10.0.0.1:6443/', certificate-authority: ca.crt",
             "client-certificate: /abs/me.crt, client-key-data: c2VjcmV0, tokenFile: token"),
      "/etc/k");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->server, "https://10.0.0.1:6443");
  EXPECT_EQ(parsed->authority.file, "/etc/k/ca.crt");
  EXPECT_EQ(parsed->client_certificate.file, "/abs/me.crt");
  EXPECT_EQ(parsed->client_key.text, "secret");
  EXPECT_EQ(parsed->token_file, "/etc/k/token");
}

TEST(Kubeconfig, data_wins_over_files_and_a_token_file_over_a_token) {
  const auto parsed = parse_kubeconfig(
      config("server: 'https://a', certificate-authority: x, certificate-authority-data: eA==",
             "token: abc, tokenFile: /t"),
      "/");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->authority.text, "x");
  EXPECT_EQ(parsed->authority.file, "");
  EXPECT_EQ(parsed->token_file, "/t");
  EXPECT_EQ(parsed->token, "");
}

TEST(Kubeconfig, refuses_by_name_what_it_cannot_do) {
  const std::string server = "server: 'https://a'";
  EXPECT_THAT(refusal(config(server, "exec: {command: aws}")), HasSubstr("users[me].user.exec"));
  EXPECT_THAT(refusal(config(server, "auth-provider: {name: x}")), HasSubstr("auth-provider"));
  EXPECT_THAT(refusal(config(server, "username: a, password: b")), HasSubstr("is not supported"));
  EXPECT_THAT(refusal(config(server + ", insecure-skip-tls-verify: true", "token: a")),
              HasSubstr("clusters[one].cluster.insecure-skip-tls-verify"));
  EXPECT_THAT(refusal(config(server + ", proxy-url: 'http://p'", "token: a")),
              HasSubstr("proxy-url"));
  EXPECT_EQ(refusal(config(server + ", insecure-skip-tls-verify: false", "token: a")), "accepted");
}

TEST(Kubeconfig, refuses_plain_http_and_control_characters_in_the_server) {
  EXPECT_THAT(refusal(config("server: 'http://a'", "token: a")), HasSubstr("must be https://"));
  EXPECT_THAT(refusal(config("server: \"https://a\\nb\"", "token: a")),
              HasSubstr("must be https://"));
  EXPECT_THAT(refusal(config("server: 'https://'", "token: a")), HasSubstr("must be https://"));
}

TEST(Kubeconfig, says_what_is_missing) {
  EXPECT_THAT(refusal("apiVersion: v1\n"), HasSubstr("current-context is not set"));
  EXPECT_THAT(refusal("current-context: x\n"), HasSubstr("no contexts named \"x\""));
  EXPECT_THAT(refusal(config("server: 'https://a'", "client-certificate: a")),
              HasSubstr("belong together"));
  EXPECT_THAT(refusal("- a\n"), HasSubstr("is not one YAML document"));
}

TEST(Kubeconfig, keeps_secrets_out_of_messages) {
  EXPECT_THAT(refusal(config("server: 'https://a'", "client-key-data: 's3cret!'")),
              Not(HasSubstr("s3cret")));
  EXPECT_THAT(refusal("token: \"s3cret\ncurrent-context: [\n"), Not(HasSubstr("s3cret")));
}

TEST(Base64, decodes_with_and_without_padding_and_line_breaks) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("YQ=="), "a");
  EXPECT_EQ(decode_base64("YWI="), "ab");
  EXPECT_EQ(decode_base64("YW\nJj\n"), "abc");
  EXPECT_EQ(decode_base64("YWI"), "ab");
  EXPECT_EQ(decode_base64("//8="), "\xff\xff");
}

TEST(Base64, refuses_what_is_not_base64) {
  EXPECT_EQ(decode_base64("Y"), std::nullopt);
  EXPECT_EQ(decode_base64("YQ=a"), std::nullopt);
  EXPECT_EQ(decode_base64("YQ==="), std::nullopt);
  EXPECT_EQ(decode_base64("YWJj="), std::nullopt);
  EXPECT_EQ(decode_base64("a-_b"), std::nullopt);
}

TEST(InCluster, brackets_an_ipv6_host) {
  const auto v6 = in_cluster_config("fd00::1", "443", "/sa");
  const auto v4 = in_cluster_config("10.96.0.1", "6443", "/sa");
  ASSERT_TRUE(v6 && v4);
  EXPECT_EQ(v6->server, "https://[fd00::1]:443");
  EXPECT_EQ(v4->server, "https://10.96.0.1:6443");
  EXPECT_EQ(v4->authority.file, "/sa/ca.crt");
  EXPECT_EQ(v4->token_file, "/sa/token");
}

TEST(InCluster, says_that_this_is_no_pod) {
  const auto config = in_cluster_config(nullptr, "443", "/sa");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(config.error().message, HasSubstr("--kubeconfig"));
}

class TokenTest : public testing::Test {
 protected:
  TokenTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "st-token-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    config_.token_file = folder_ / "token";
  }
  ~TokenTest() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& text) { std::ofstream(config_.token_file) << text; }

  std::filesystem::path folder_;
  ApiConfig config_;
};

TEST_F(TokenTest, is_read_anew_each_time) {
  write("first\n");
  EXPECT_EQ(read_token(config_).value_or(""), "first");
  write("second");
  EXPECT_EQ(read_token(config_).value_or(""), "second");
}

TEST_F(TokenTest, must_be_one_visible_line) {
  write("a\nX-Header: b");
  ASSERT_FALSE(read_token(config_));
  EXPECT_THAT(read_token(config_).error().message, Not(HasSubstr("X-Header")));
  write("");
  EXPECT_FALSE(read_token(config_));
}

TEST_F(TokenTest, that_is_missing_is_an_error_that_names_the_file) {
  const auto token = read_token(config_);
  ASSERT_FALSE(token);
  EXPECT_EQ(token.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(token.error().message, HasSubstr(config_.token_file));
}

}  // namespace
}  // namespace sidetrack::kube
