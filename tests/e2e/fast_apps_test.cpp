// SPDX-License-Identifier: Apache-2.0
// Real applications without mesh, with the fast path between them and through the engine: the same
// bytes and errnos, and whether their sockets were adopted.
#include <fmt/format.h>
#include <unistd.h>

#include "tests/dataplane/proxies.h"
#include "tests/e2e/fast_pair.h"

namespace sidetrack::lab {
namespace {

class FastApps : public FastPair {
 protected:
  static std::string go() { return lab_program("st_fast_go"); }
  static bool no_go() { return ::access(go().c_str(), X_OK) != 0; }
  static std::string url(const Pod& pod) { return fmt::format("http://{}:8080", pod.v4); }

  void serve_go(World& world) { serve(world, *world.server, {go(), "serve", "8080"}, "ready"); }

  void serve_haproxy(World& world, const std::string& options) {
    serve_go(world);
    const std::string file = write_file(
        world, "haproxy.cfg",
        fmt::format("defaults\n  mode http\n{}  timeout connect 5s\n  timeout client 60s\n"
                    "  timeout server 60s\nlisten in\n  bind :::8080 v4v6\n  server s {}:8080\n",
                    options, world.server->v4));
    serve(world, *world.relay, {"haproxy", "-db", "-f", file}, "");
    wait_for_listener(world, *world.relay, 8080);
  }

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
  server {{ listen 8080; root {0}; dav_methods PUT; create_full_put_path on; }}
}}
)",
                                                    root));
    serve(world, *world.server, {"nginx", "-c", file, "-e", root + "/error.log"}, "");
    wait_for_listener(world, *world.server, 8080);
  }

  void serve_redis(World& world) {
    serve(world, *world.server,
          {"redis-server", "--port", "6379", "--bind", "*", "--protected-mode", "no", "--save", "",
           "--dir", folder_of(world)},
          "Ready to accept connections");
  }

  // fast_python.py of one kind at both ends.
  Serve python_server(const std::string& kind) {
    return [this, kind](World& world) {
      serve(world, *world.server,
            {"python3", program_file("fast_python.py"), "serve", kind, "7000"}, "ready");
    };
  }
  static Command python_client(const std::string& kind) {
    return [kind](const World& world) {
      return std::vector<std::string>{
          "python3", program_file("fast_python.py"), "drive", kind, world.server->v4, "7000"};
    };
  }
};

TEST_F(FastApps, go_net_http_is_adopted) {
  if (no_go()) {
    GTEST_SKIP() << "no Go compiler was there when this was built";
  }
  expect_adopted([this](World& world) { serve_go(world); },
                 [](const World& world) {
                   return std::vector<std::string>{go(), "drive", url(*world.server)};
                 });
}

TEST_F(FastApps, go_io_copy_relay_splices_and_stays_on_tcp) {
  if (no_go()) {
    GTEST_SKIP() << "no Go compiler was there when this was built";
  }
  expect_refused(
      [this](World& world) {
        serve_go(world);
        serve(world, *world.relay, {go(), "relay", "8080", world.server->v4 + ":8080"}, "ready");
      },
      [](const World& world) {
        return std::vector<std::string>{go(), "drive", url(*world.relay)};
      },
      "fp_splice");
}

TEST_F(FastApps, nginx_asks_with_fionread_and_stays_on_tcp) {
  if (no_go() || !installed("nginx")) {
    GTEST_SKIP() << "nginx or the Go compiler is not installed";
  }
  expect_refused([this](World& world) { serve_nginx(world); },
                 [](const World& world) {
                   return std::vector<std::string>{go(), "files", url(*world.server), "200"};
                 },
                 "fp_fionread");
}

TEST_F(FastApps, haproxy_is_adopted) {
  if (no_go() || !installed("haproxy")) {
    GTEST_SKIP() << "haproxy or the Go compiler is not installed";
  }
  expect_adopted([this](World& world) { serve_haproxy(world, ""); },
                 [](const World& world) {
                   return std::vector<std::string>{go(), "drive", url(*world.relay)};
                 },
                 Through::kRelay);
}

TEST_F(FastApps, haproxy_that_splices_stays_on_tcp) {
  if (no_go() || !installed("haproxy")) {
    GTEST_SKIP() << "haproxy or the Go compiler is not installed";
  }
  expect_refused(
      [this](World& world) {
        serve_haproxy(world, "  option splice-request\n  option splice-response\n");
      },
      [](const World& world) {
        return std::vector<std::string>{go(), "drive", url(*world.relay)};
      },
      "fp_splice");
}

TEST_F(FastApps, envoy_is_adopted) {
  const auto envoy = find_envoy();
  if (no_go() || (!envoy && envoy.error().code == ErrorCode::kNotFound)) {
    GTEST_SKIP() << "no Go compiler, or the package registry cannot be reached";
  }
  ST_ASSERT_OK(envoy);
  expect_adopted([&](World& world) { serve_envoy(world, *envoy); },
                 [](const World& world) {
                   return std::vector<std::string>{go(), "drive", url(*world.relay)};
                 },
                 Through::kRelay);
}

TEST_F(FastApps, redis_is_adopted) {
  if (!installed("redis-server")) {
    GTEST_SKIP() << "redis-server is not installed";
  }
  expect_adopted([this](World& world) { serve_redis(world); },
                 [](const World& world) {
                   return std::vector<std::string>{"python3", program_file("fast_python.py"),
                                                   "redis", world.server->v4, "6379"};
                 });
}

TEST_F(FastApps, node_http_is_adopted) {
  if (!installed("node")) {
    GTEST_SKIP() << "node is not installed";
  }
  const std::string program = program_file("fast_node.js");
  expect_adopted(
      [&](World& world) {
        serve(world, *world.server, {"node", program, "serve", "8080"}, "ready");
      },
      [&](const World& world) {
        return std::vector<std::string>{"node", program, "drive", world.server->v4, "8080"};
      });
}

TEST_F(FastApps, python_asyncio_is_adopted) {
  expect_adopted(python_server("asyncio"), python_client("asyncio"));
}

TEST_F(FastApps, python_with_timeouts_is_adopted) {
  expect_adopted(python_server("timeout"), python_client("timeout"));
}

TEST_F(FastApps, python_blocking_is_refused) {
  expect_refused(python_server("blocking"), python_client("blocking"), "fp_blocking");
}

}  // namespace
}  // namespace sidetrack::lab
