// SPDX-License-Identifier: Apache-2.0
// Real applications without mesh, with the fast path between them and through the engine: the same
// bytes and errnos, and whether their sockets were adopted. A suite is skipped as a whole, by what
// it needs beside Debian's packages. Here: those around a Go program.
#include <fmt/format.h>
#include <unistd.h>

#include "tests/dataplane/proxies.h"
#include "tests/e2e/fast_pair.h"

namespace sidetrack::lab {
namespace {

class FastGo : public FastPair {
 protected:
  void SetUp() override {
    if (no_go()) {
      GTEST_SKIP() << "no Go compiler of at least 1.20 was there when this was built";
    }
    FastPair::SetUp();
  }

  void serve_haproxy(World& world, const std::string& options) {
    serve_go(world);
    const std::string file = write_file(
        world, "haproxy.cfg",
        fmt::format("defaults\n  mode http\n{}  timeout connect 5s\n  timeout client 60s\n"
                    "  timeout server 60s\nlisten in\n  bind :::8080 v4v6\n  server s {}\n",
                    options, endpoint(*world.server, Ip::kV6, 8080)));
    serve(world, *world.relay, {"haproxy", "-db", "-f", file}, "");
    wait_for_listener(world, *world.relay, 8080);
  }

  void serve_nginx(World& world) {
    const std::string root = folder_of(world);
    const std::string file = write_file(world, "nginx.conf",
                                        fmt::format(R"(
daemon off; master_process off; user root; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 200; }}
http {{
  access_log off; client_max_body_size 512m; keepalive_requests 10000;
  client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
  uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
  server {{ listen [::]:8080 ipv6only=off; root {0}; dav_methods PUT; create_full_put_path on; }}
}}
)",
                                                    root));
    serve(world, *world.server, {"nginx", "-c", file, "-e", root + "/error.log"}, "");
    wait_for_listener(world, *world.server, 8080);
  }
};

TEST_F(FastGo, go_net_http_is_adopted) {
  expect_adopted([this](World& world) { serve_go(world); },
                 [](const World& world) {
                   return std::vector<std::string>{go(), "drive", url(*world.server, Ip::kV6)};
                 });
}

TEST_F(FastGo, go_io_copy_relay_splices_and_stays_on_tcp) {
  expect_refused(
      [this](World& world) {
        serve_go(world);
        serve(world, *world.relay, {go(), "relay", "8080", endpoint(*world.server, Ip::kV6, 8080)},
              "ready");
      },
      [](const World& world) {
        return std::vector<std::string>{go(), "drive", url(*world.relay, Ip::kV6)};
      },
      {"fp_splice"});
}

TEST_F(FastGo, nginx_asks_with_fionread_and_stays_on_tcp) {
  expect_refused(
      [this](World& world) { serve_nginx(world); },
      [](const World& world) {
        return std::vector<std::string>{go(), "files", url(*world.server, Ip::kV6), "200"};
      },
      {"fp_fionread"});
}

TEST_F(FastGo, haproxy_is_adopted) {
  expect_adopted([this](World& world) { serve_haproxy(world, ""); },
                 [](const World& world) {
                   return std::vector<std::string>{go(), "drive", url(*world.relay, Ip::kV6)};
                 },
                 Through::kRelay);
}

TEST_F(FastGo, haproxy_that_splices_stays_on_tcp) {
  expect_refused(
      [this](World& world) {
        serve_haproxy(world, "  option splice-request\n  option splice-response\n");
      },
      [](const World& world) {
        return std::vector<std::string>{go(), "drive", url(*world.relay)};
      },
      {"fp_splice"});
}

TEST_F(FastGo, curl_over_http1_is_adopted) {
  const std::string body = folder_->file("body");
  std::string text;
  for (int line = 0; line < 15'000; ++line) {
    text += fmt::format("{:x}\n", line * 0x9e3779b9U);
  }
  ST_ASSERT_OK(write_atomically(body, text));
  // 120 uploads over one connection, one every 20 ms: how each went, and what came back as hash.
  expect_adopted([this](World& world) { serve_go(world); },
                 [&](const World& world) {
                   return shell(
                       fmt::format("curl -sS --rate 50/s --data-binary @{} -w '%{{http_code}} "
                                   "%{{num_connects}}\n' '{}?[1-120]' | sha256sum",
                                   body, url(*world.server) + "/echo"));
                 });
}

// Also needs what comes from the package registry of Python.
class FastEnvoy : public FastGo {
 protected:
  void serve_envoy(World& world, const std::string& program) {
    serve_go(world);
    const std::string file =
        write_file(world, "envoy.json", envoy_http_proxy(8080, world.server->v4, 8080));
    serve(world, *world.relay,
          {program, "-c", file, "--use-dynamic-base-id", "--log-level", "warning", "--concurrency",
           "1"},
          "");
    wait_for_listener(world, *world.relay, 8080);
  }
};

TEST_F(FastEnvoy, envoy_is_adopted) {
  const auto envoy = find_envoy();
  if (!envoy && envoy.error().code == ErrorCode::kNotFound) {
    GTEST_SKIP() << "the package registry cannot be reached";
  }
  ST_ASSERT_OK(envoy);
  expect_adopted([&](World& world) { serve_envoy(world, *envoy); },
                 [](const World& world) {
                   return std::vector<std::string>{go(), "drive", url(*world.relay)};
                 },
                 Through::kRelay);
}

// Also needs a JDK.
class FastJava : public FastGo {
 protected:
  void SetUp() override {
    if (::access((std::string(ST_JAVA_CLASSES) + "/FastJava.class").c_str(), R_OK) != 0) {
      GTEST_SKIP() << "no Java compiler was there when this was built";
    }
    FastGo::SetUp();
  }

  // FastJava, with little memory and no tiered compilation: what counts is how fast it starts.
  static std::vector<std::string> java(const std::vector<std::string>& arguments) {
    std::vector<std::string> command = {
        "java",          "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp",
        ST_JAVA_CLASSES, "FastJava"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
  }
};

TEST_F(FastJava, java_http_client_is_adopted) {
  expect_adopted([this](World& world) { serve_go(world); },
                 [](const World& world) {
                   return java({"drive-http", url(*world.server, Ip::kV6) + "/echo"});
                 });
}

TEST_F(FastJava, java_http_server_blocks_and_stays_on_tcp) {
  expect_refused(
      [this](World& world) {
        serve(world, *world.server, java({"serve-http", "8080"}), "ready");
      },
      [](const World& world) {
        return java({"drive-http", url(*world.server) + "/echo"});
      },
      // It is blocking while a request is answered, and not in between.
      {"fp_blocking", "fp_marked"});
}

TEST_F(FastJava, java_nio_is_adopted) {
  expect_adopted(
      [this](World& world) {
        serve(world, *world.server, java({"serve-nio", "7000"}), "ready");
      },
      [](const World& world) {
        return java({"drive-nio", host(*world.server, Ip::kV6), "7000"});
      });
}

TEST_F(FastJava, java_socket_blocks_and_stays_on_tcp) {
  expect_refused(
      [this](World& world) {
        serve(world, *world.server, java({"serve-nio", "7000"}), "ready");
      },
      [](const World& world) {
        return java({"drive-socket", world.server->v4, "7000"});
      },
      {"fp_blocking"});
}

}  // namespace
}  // namespace sidetrack::lab
