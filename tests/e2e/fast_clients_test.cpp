// SPDX-License-Identifier: Apache-2.0
// As fast_apps_test: clients and servers of Debian's packages, Node and Rust.
#include <fmt/format.h>
#include <unistd.h>

#include "tests/e2e/fast_pair.h"
#include "tests/e2e/postgres.h"
#include "tests/e2e/tokio_program.h"

namespace sidetrack::lab {
namespace {

const char* const kDebianPython = "/usr/bin/python3";

class FastDebian : public FastPair {
 protected:
  void serve_redis(World& world) {
    serve(world, *world.server,
          {"redis-server", "--port", "6379", "--bind", "*", "::*", "--protected-mode", "no",
           "--save", "", "--dir", folder_of(world)},
          "Ready to accept connections");
  }

  void serve_postgres(World& world) {
    ST_ASSERT_VALUE(const auto server,
                    make_postgres(folder_of(world) + "/postgres", kProgramPatience));
    serve(world, *world.server, server, kPostgresReady);
  }

  // fast_python.py of one kind at both ends.
  Serve python_server(const std::string& kind) {
    return [this, kind](World& world) {
      serve(world, *world.server,
            {"python3", program_file("fast_python.py"), "serve", kind, "7000"}, "ready");
    };
  }
  static Command python_client(const std::string& kind, Ip ip = Ip::kV4) {
    return [kind, ip](const World& world) {
      return std::vector<std::string>{"python3", program_file("fast_python.py"), "drive",
                                      kind,      host(*world.server, ip),        "7000"};
    };
  }
  // So long between two requests.
  static Command redis_client(const char* pause_s) {
    return [pause_s](const World& world) {
      return std::vector<std::string>{"python3", program_file("fast_python.py"),
                                      "redis",   host(*world.server, Ip::kV6),
                                      "6379",    pause_s};
    };
  }

  // A slow stream of 120 pieces on stdout, of no two places alike.
  static constexpr const char* kSlowly =
      "n=0; while [ $n -lt 120 ]; do n=$((n + 1)); seq -f 'line %.0f' $n 1000 $((n * 2000)); "
      "sleep 0.02; done";
};

TEST_F(FastDebian, redis_is_adopted) {
  expect_adopted([this](World& world) { serve_redis(world); }, redis_client("0.02"));
}

TEST_F(FastDebian, postgresql_is_adopted) {
  std::string script = "CREATE TEMP TABLE line (n int, word text);\n";
  for (int i = 1; i <= 120; ++i) {
    script += fmt::format(
        "INSERT INTO line SELECT n, md5(n::text) FROM generate_series({0}, {1}) n;\n"
        "SELECT string_agg(word, ',' ORDER BY n) FROM line;\nSELECT pg_sleep(0.02);\n"
        "SELECT 1/({0} % 7);\n",
        i * 20, i * 20 + 19);
  }
  const std::string file = folder_->file("script.sql");
  ST_ASSERT_OK(write_atomically(file, script));
  expect_adopted(
      [this](World& world) { serve_postgres(world); },
      [&](const World& world) {
        return shell(fmt::format("psql -X -At -h {} -U tester -d postgres -f {} 2>&1 | sha256sum",
                                 world.server->v4, file));
      });
}

TEST_F(FastDebian, python_asyncio_is_adopted) {
  expect_adopted(python_server("asyncio"), python_client("asyncio", Ip::kV6));
}

TEST_F(FastDebian, python_with_timeouts_is_adopted) {
  expect_adopted(python_server("timeout"), python_client("timeout"));
}

TEST_F(FastDebian, python_blocking_is_refused) {
  expect_refused(python_server("blocking"), python_client("blocking"), {"fp_blocking"});
}

// One slow upload, then what came back: curl 7.88 cannot use such a connection twice.
TEST_F(FastDebian, curl_and_nghttpd_over_http2_are_adopted) {
  expect_adopted(
      [this](World& world) {
        serve(world, *world.server, {"nghttpd", "--no-tls", "--echo-upload", "8080"}, "");
        wait_for_listener(world, *world.server, 8080);
      },
      [](const World& world) {
        return shell(fmt::format(
            "({}) | curl -sS --http2-prior-knowledge -T - -w '%{{http_version}}' {} | sha256sum",
            kSlowly, url(*world.server, Ip::kV6)));
      });
}

TEST_F(FastDebian, grpc_streams_ask_for_tcp_inq_and_stay_on_tcp) {
  const std::string program = program_file("fast_grpc.py");
  expect_refused(
      [&](World& world) {
        serve(world, *world.server, {kDebianPython, program, "serve", "8080"}, "ready");
      },
      [&](const World& world) {
        return std::vector<std::string>{kDebianPython, program, "drive", world.server->v4, "8080"};
      },
      {"fp_tcp_inq"});
}

TEST_F(FastDebian, netcat_half_closes_and_is_adopted) {
  expect_adopted(
      [this](World& world) {
        serve(world, *world.server, {lab_program("st_echo"), "echo:7000", "hash:7001"}, "ready");
      },
      [this](const World& world) {
        // Two of this shell's own jobs: `wait` would not wait for one that tee feeds by >(...).
        return shell(
            fmt::format("({0}) | nc -N {1} 7001 >{2} & ({0}) | nc -N {1} 7000 | sha256sum; "
                        "wait; cat {2}",
                        kSlowly, host(*world.server, Ip::kV6), folder_of(world) + "/hash"));
      });
}

// The options as they come.
class FastShipped : public FastDebian {
 protected:
  [[nodiscard]] std::vector<std::string> agent_arguments() const override { return {}; }
};

TEST_F(FastShipped, redis_is_adopted_after_its_probation) {
  const auto runs =
      expect_adopted([this](World& world) { serve_redis(world); }, redis_client("0.25"));
  for (const FastRun& run : runs) {
    EXPECT_NE(run.reasons.find(" fp_probation "), std::string::npos) << run.reasons;
  }
}

using FastNode = FastPair;

TEST_F(FastNode, node_http_is_adopted) {
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

using FastRust = FastPair;

TEST_F(FastRust, rust_tokio_is_adopted) {
  const auto program = build_tokio_program();
  if (!program && program.error().code == ErrorCode::kNotFound) {
    GTEST_SKIP() << program.error().message;
  }
  ST_ASSERT_OK(program);
  expect_adopted(
      [&](World& world) {
        serve(world, *world.server, {*program, "serve", "7000"}, "ready");
      },
      [&](const World& world) {
        return std::vector<std::string>{*program, "drive", endpoint(*world.server, Ip::kV6, 7000)};
      });
}

}  // namespace
}  // namespace sidetrack::lab
