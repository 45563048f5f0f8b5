// SPDX-License-Identifier: Apache-2.0
// As fast_apps_test: clients and servers of further languages and protocols.
#include <fmt/format.h>
#include <unistd.h>

#include "tests/e2e/fast_pair.h"
#include "tests/e2e/postgres.h"
#include "tests/e2e/tokio_program.h"

namespace sidetrack::lab {
namespace {

const char* const kDebianPython = "/usr/bin/python3";

class FastClients : public FastPair {
 protected:
  static std::string url(const World& world) {
    return fmt::format("http://{}:8080/echo", world.server->v4);
  }

  void serve_go(World& world) {
    serve(world, *world.server, {lab_program("st_fast_go"), "serve", "8080"}, "ready");
  }
  static bool no_go() { return ::access(lab_program("st_fast_go").c_str(), X_OK) != 0; }

  // FastJava, with little memory and no tiered compilation: what counts is how fast it starts.
  static std::vector<std::string> java(const std::vector<std::string>& arguments) {
    std::vector<std::string> command = {
        "java",          "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp",
        ST_JAVA_CLASSES, "FastJava"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
  }
  static bool no_java() {
    return ::access((std::string(ST_JAVA_CLASSES) + "/FastJava.class").c_str(), R_OK) != 0;
  }

  void serve_postgres(World& world) {
    ST_ASSERT_VALUE(const auto server,
                    make_postgres(folder_of(world) + "/postgres", kProgramPatience));
    serve(world, *world.server, server, kPostgresReady);
  }

  // A slow stream of 120 pieces on stdout, of no two places alike.
  static constexpr const char* kSlowly =
      "n=0; while [ $n -lt 120 ]; do n=$((n + 1)); seq -f 'line %.0f' $n 1000 $((n * 2000)); "
      "sleep 0.02; done";
  // `script` with pipefail.
  static std::vector<std::string> shell(const std::string& script) {
    return {"bash", "-c", "set -o pipefail; " + script};
  }

  static std::string lines(int count) {
    std::string text;
    for (int line = 0; line < count; ++line) {
      text += fmt::format("{:x}\n", line * 0x9e3779b9U);
    }
    return text;
  }
};

TEST_F(FastClients, java_http_client_is_adopted) {
  if (no_java() || no_go()) {
    GTEST_SKIP() << "Java or the Go compiler is not installed";
  }
  expect_adopted([this](World& world) { serve_go(world); },
                 [](const World& world) {
                   return java({"drive-http", url(world)});
                 });
}

TEST_F(FastClients, java_http_server_blocks_and_stays_on_tcp) {
  if (no_java()) {
    GTEST_SKIP() << "Java is not installed";
  }
  expect_refused(
      [this](World& world) {
        serve(world, *world.server, java({"serve-http", "8080"}), "ready");
      },
      [](const World& world) {
        return java({"drive-http", url(world)});
      },
      "fp_blocking");
}

TEST_F(FastClients, java_nio_is_adopted) {
  if (no_java()) {
    GTEST_SKIP() << "Java is not installed";
  }
  expect_adopted(
      [this](World& world) {
        serve(world, *world.server, java({"serve-nio", "7000"}), "ready");
      },
      [](const World& world) {
        return java({"drive-nio", world.server->v4, "7000"});
      });
}

TEST_F(FastClients, rust_tokio_is_adopted) {
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
        return std::vector<std::string>{*program, "drive", world.server->v4 + ":7000"};
      });
}

TEST_F(FastClients, postgresql_is_adopted) {
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

TEST_F(FastClients, curl_over_http1_is_adopted) {
  if (no_go()) {
    GTEST_SKIP() << "no Go compiler was there when this was built";
  }
  const std::string body = folder_->file("body");
  ST_ASSERT_OK(write_atomically(body, lines(15'000)));
  // 120 uploads over one connection, one every 20 ms: how each went, and what came back as hash.
  expect_adopted([this](World& world) { serve_go(world); },
                 [&](const World& world) {
                   return shell(
                       fmt::format("curl -sS --rate 50/s --data-binary @{} -w '%{{http_code}} "
                                   "%{{num_connects}}\n' '{}?[1-120]' | sha256sum",
                                   body, url(world)));
                 });
}

// One slow upload, then what came back: curl 7.88 cannot use such a connection twice.
TEST_F(FastClients, curl_and_nghttpd_over_http2_are_adopted) {
  expect_adopted(
      [this](World& world) {
        serve(world, *world.server, {"nghttpd", "--no-tls", "--echo-upload", "8080"}, "");
        wait_for_listener(world, *world.server, 8080);
      },
      [](const World& world) {
        return shell(fmt::format(
            "({}) | curl -sS --http2-prior-knowledge -T - -w '%{{http_version}}' {} | sha256sum",
            kSlowly, url(world)));
      });
}

TEST_F(FastClients, grpc_streams_ask_for_tcp_inq_and_stay_on_tcp) {
  const std::string program = program_file("fast_grpc.py");
  expect_refused(
      [&](World& world) {
        serve(world, *world.server, {kDebianPython, program, "serve", "8080"}, "ready");
      },
      [&](const World& world) {
        return std::vector<std::string>{kDebianPython, program, "drive", world.server->v4, "8080"};
      },
      "fp_tcp_inq");
}

TEST_F(FastClients, netcat_half_closes_and_is_adopted) {
  expect_adopted(
      [this](World& world) {
        serve(world, *world.server, {lab_program("st_echo"), "echo:7000", "hash:7001"}, "ready");
      },
      [this](const World& world) {
        return shell(
            fmt::format("({}) | tee >(nc -N {} 7001 >{}) | nc -N {} 7000 | sha256sum; wait; cat {}",
                        kSlowly, world.server->v4, folder_of(world) + "/hash", world.server->v4,
                        folder_of(world) + "/hash"));
      });
}

}  // namespace
}  // namespace sidetrack::lab
