// SPDX-License-Identifier: Apache-2.0
// HTTP clients: the same bytes with and without the redirect.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/e2e/pair.h"

namespace sidetrack::lab {
namespace {

class HttpClients : public Pair {
 protected:
  void SetUp() override {
    Pair::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    v4_ = server_->v4;
    v6_ = server_->v6;
    url_ = fmt::format("http://{}:8080", v4_);
    url6_ = fmt::format("http://[{}]:8080", v6_);
  }

  // nginx in a pod, with this `server` and the folder `root` for what it writes.
  void start_nginx(const Pod& pod, const std::string& root, const std::string& server) {
    const std::string configuration = root + "/nginx.conf";
    std::ofstream(configuration) << fmt::format(R"(
daemon off; master_process off; user root; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 200; }}
http {{
  access_log off; client_max_body_size 64m; keepalive_requests 10000;
  client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
  uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
  server {{ {1} }}
}}
)",
                                                root, server);
    serve_in(pod, {"nginx", "-c", configuration, "-e", root + "/error.log"}, "");
  }

  // nginx on port 8080: /data (1 MB), PUT to /upload/, POST to /post, or to /take/ as to /upload/.
  void serve_nginx() {
    (void)make_file("data", 1'000'000);
    const std::string root = folder_->path().string();
    start_nginx(*server_, root, "listen 8080; listen [::]:8080; root " + root + R"(;
    location /upload/ { dav_methods PUT; create_full_put_path on; }
    location /take/ { proxy_method PUT; proxy_pass http://127.0.0.1:8080/upload/; }
    location = /post { proxy_pass http://127.0.0.1:8080/posted; }
    location = /posted { return 200 "$request_method $content_length $http_content_type"; })");
    wait_for_listener(8080);
  }

  // nginx in both clients' pods, on their loopback: a client of the servers.
  void proxy_by_nginx() {
    for (const Pod* pod : {plain_, web_}) {
      const std::string root = folder_->file(pod->name);
      std::filesystem::create_directory(root);
      start_nginx(*pod, root,
                  fmt::format("listen 127.0.0.1:8090; location / {{ proxy_pass http://{0}:8080; }} "
                              "location = /reset {{ proxy_pass http://{0}:7211/; }} "
                              "location = /cut {{ proxy_pass http://{0}:7212/; }} "
                              "location = /refused {{ proxy_pass http://{0}:9/; }}",
                              v4_));
      wait_for_listener(*pod, 8090);
    }
  }

  // For a shell: `command` with $fault and $url, for each server of probe_server.py that fails.
  Client for_each_fault(const std::string& command,
                        const std::string& faults = "reset:7211 cut:7212 refused:9") const {
    return {{"sh", "-c",
             fmt::format("for each in {}; do fault=${{each%:*}}; url=http://{}:${{each#*:}}/; "
                         "{}; done",
                         faults, v4_, command)}};
  }

  std::string v4_;
  std::string v6_;
  std::string url_;
  std::string url6_;
};

TEST_F(HttpClients, curl_gets_over_ipv4_and_ipv6_with_keep_alive) {
  serve_nginx();
  const std::vector<std::string> urls = {url_ + "/data",  url_ + "/data",  url_ + "/data",
                                         url6_ + "/data", url6_ + "/data", url_ + "/missing"};
  std::vector<std::string> arguments = {
      "curl", "-s", "--max-time",
      "40",   "-w", "%{http_code} %{num_connects} %{remote_ip} %{remote_port}\n"};
  arguments.insert(arguments.end(), urls.begin(), urls.end());
  expect_same({arguments});
  serve_probes();
  expect_same_complaints(
      "curl", for_each_fault("curl -s --max-time 20 -o /dev/null -w \"$fault %{exitcode} "
                             "%{size_download} %{errormsg}\\n\" $url || true"));
}

TEST_F(HttpClients, curl_posts_and_puts_20_megabytes) {
  serve_nginx();
  const std::string file = make_file("big", 20'000'000);
  expect_same({{"curl", "-sS", "--max-time", "40", "-X", "POST", "-H", "Content-Type: text/x",
                "--data-binary", "@" + file, url_ + "/post"}});
  // Shows as hash what came back of what was put: the upload's bytes, both ways.
  const std::string script = fmt::format(
      "curl -sS --max-time 40 -T {0} -o /dev/null -w '%{{response_code}}' {1}/upload/$$ && "
      "curl -sS --max-time 40 {1}/upload/$$ | cmp - {0} && echo ' same'",
      file, url_);
  const Outcomes outcomes = run_both({{"sh", "-c", script}});
  EXPECT_EQ(outcomes.direct.standard_output, "201 same\n") << outcomes.direct.output;
  EXPECT_EQ(outcomes.redirected.standard_output, "201 same\n") << outcomes.redirected.output;
}

TEST_F(HttpClients, nginx_as_a_client) {
  serve_nginx();
  serve_probes();
  proxy_by_nginx();
  const std::string file = make_file("form", 5'000'000);
  const std::string script = fmt::format(
      "curl -sS --max-time 40 {0}/data | cmp - {1}/data && echo same && "
      "curl -sS --max-time 40 --data-binary @{2} -w '%{{response_code}} ' {0}/take/$$ && "
      "curl -sS --max-time 40 {0}/upload/$$ | cmp - {2} && echo same && "
      "for fault in reset cut refused; do curl -s --max-time 20 -o /dev/null -w \"$fault "
      "%{{exitcode}} %{{http_code}}\\n\" {0}/$fault || true; done",
      "http://127.0.0.1:8090", folder_->path().string(), file);
  const Outcomes outcomes = run_both({{"sh", "-c", script}});
  const char* const kAll = "same\n201 same\nreset 18 200\ncut 18 200\nrefused 0 502\n";
  EXPECT_EQ(outcomes.direct.output, kAll);
  EXPECT_EQ(outcomes.redirected.output, kAll);
}

TEST_F(HttpClients, wget) {
  serve_nginx();
  const std::string file = make_file("form", 3'000'000);
  expect_same({{"wget", "-qO-", "--tries=1", "--timeout=40", url_ + "/data", url6_ + "/data"}});
  expect_same(
      {{"wget", "-qO-", "--tries=1", "--timeout=40", "--post-file=" + file, url_ + "/post"}});
  serve_probes();
  expect_same_complaints(
      "wget", for_each_fault("said=$(LC_ALL=C wget -O /dev/null --tries=1 --timeout=20 $url 2>&1); "
                             "echo $fault $? $(echo \"$said\" | grep -Eo "
                             "'(Connection closed at byte|Read error|[Ff]ailed).*')"));
}

TEST_F(HttpClients, go_net_http_at_both_ends) {
  const std::string program = lab_program("st_go_client");
  if (::access(program.c_str(), X_OK) != 0) {
    GTEST_SKIP() << "no Go compiler was there when this was built";
  }
  serve({program, "serve", "8080"}, "ready");
  serve_echo({"echo:7000"});
  expect_same({{program, "get", v4_ + ":8080", v4_ + ":7000"}});
  expect_same({{program, "get", fmt::format("[{}]:8080", v6_), fmt::format("[{}]:7000", v6_)}});
  serve_probes();
  expect_same_complaints("go", {{program, "faults", v4_}});
}

TEST_F(HttpClients, java_http_client) {
  if (!installed("java")) {
    GTEST_SKIP() << "java is not installed";
  }
  serve_nginx();
  serve_probes();
  // Little memory and no tiered compilation: what counts is how fast it starts, and it starts once.
  expect_same_complaints("java", {{"java", "-Xmx256m", "-XX:TieredStopAtLevel=1",
                                   client_file("JavaClient.java"), v4_, v6_}});
}

TEST_F(HttpClients, node_http) {
  if (!installed("node")) {
    GTEST_SKIP() << "node is not installed";
  }
  serve_nginx();
  serve_echo({"echo:7000"});
  expect_same({{"node", client_file("node_http.js"), v4_, v6_}});
  serve_probes();
  expect_same_complaints("node", {{"node", client_file("node_http.js"), "faults", v4_}});
}

TEST_F(HttpClients, http2_without_tls) {
  (void)make_file("data", 1'000'000);
  serve({"nghttpd", "--no-tls", "-d", folder_->path().string(), "8081"}, "");
  wait_for_listener(8081);
  expect_same({{"nghttp", fmt::format("http://{}:8081/data", v4_)}});
  expect_same({{"nghttp", fmt::format("http://[{}]:8081/data", v6_)}});
  expect_same({{"curl", "-sS", "--max-time", "40", "--http2-prior-knowledge",
                fmt::format("http://{}:8081/data", v4_), "-w", "%{http_version}"}});
  const std::string load = fmt::format(
      "h2load -n 300 -c 4 -m 10 http://{}:8081/data | grep -E '^(requests|status codes):'", v4_);
  expect_same({{"sh", "-c", load}});
  serve_probes();
  const std::string faults = "reset:7223 cut:7224 silent:7208 refused:9";
  expect_same_complaints(
      "nghttp", for_each_fault("said=$(nghttp -n -t 2 $url 2>&1); echo $fault $? $said", faults));
  // How long it waited is in its message: of "silent" only how it ends.
  expect_same_complaints(
      "curl over HTTP/2",
      for_each_fault(
          "said=$(curl -sS --http2-prior-knowledge --max-time 2 -o /dev/null $url 2>&1); "
          "status=$?; [ $fault = silent ] && said=${said##*with }; "
          "echo $fault $status $said",
          faults));
}

}  // namespace
}  // namespace sidetrack::lab
