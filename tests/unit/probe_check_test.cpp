// SPDX-License-Identifier: Apache-2.0
// The built sidetrack-probe's `check`, which `helm test` runs, before a real server and an admin
// socket that tells of that server's connections: a mesh that is well, or has one fault.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include "agent/admin/api.h"
#include "agent/admin/server.h"
#include "probe/serve.h"
#include "tests/unit/admin_fake_views.h"

namespace sidetrack::probe {
namespace {

namespace asio = boost::asio;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Tcp = asio::ip::tcp;

constexpr const char* kNamespace = "mesh-test";
constexpr const char* kPod = "client";

// What an agent says of one pod, whose connections are all decided for one reason.
class Mesh : public test::FakeViews {
 public:
  // One that is well.
  void decide(const std::string& reason) {
    explained = counted = reason;
    path = reason == "redirected" ? "engine" : reason == "passthrough" ? "direct" : "";
    counter_views = {{.namespace_name = "other", .connections = {{reason, 40}}},
                     {.namespace_name = kNamespace, .connections = {{reason, 7}}}};
    flow_views.clear();
  }

  void on_connection(const std::string& source, const std::string& destination) {
    ++counter_views.back().connections[counted];
    if (!path.empty()) {
      flow_views.push_back({.namespace_name = kNamespace,
                            .pod = kPod,
                            .source = source,
                            .destination = destination,
                            .path = path});
    }
  }

  Result<admin::ExplainView> explain(const std::string& namespace_name, const std::string& pod,
                                     const std::string& destination) override {
    const bool is_ours = namespace_name == kNamespace && pod == kPod;
    if (!is_ours || unknown_for-- > 0) {
      return make_error(ErrorCode::kNotFound,
                        fmt::format("no pod {}/{} on this node", namespace_name, pod));
    }
    return admin::ExplainView{.namespace_name = namespace_name,
                              .pod = pod,
                              .destination = destination,
                              .verdict = explained == "redirected" ? "redirected" : "direct",
                              .reason = explained,
                              .agrees_with_kernel = agrees};
  }

  std::string explained;    // for this reason
  std::string counted;      // as this reason
  std::string path;         // of the flows; empty: there are none
  int unknown_for = 0;      // questions until the node knows the pod
  std::string seen_client;  // by the server; empty: the one that it is
};

std::string text(const Tcp::endpoint& endpoint) {
  return fmt::format("{}:{}", endpoint.address().to_string(), endpoint.port());
}

using test::Outcome;

Outcome run_probe(const std::string& arguments) {
  return test::run_program(ST_PROBE, arguments);
}

class ProbeCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    auto admin = admin::AdminServer::listen(loop_.context, folder_.file("admin.sock"),
                                            admin::make_api(mesh_));
    ASSERT_TRUE(admin) << admin.error().message;
    admin_ = std::move(*admin);
    accept();
  }
  void TearDown() override {
    loop_.stop();
    admin_.reset();
  }

  [[nodiscard]] std::string server() { return text(server_.local_endpoint()); }
  // Of expectations on the server; what is not so at once is not so within `patience`.
  Outcome check(const std::vector<std::string>& reasons, int patience_s = 0) {
    loop_.start();  // from now on the mesh is the loop's
    std::string arguments =
        fmt::format("check --admin-socket={} --namespace={} --pod={} --patience={}",
                    folder_.file("admin.sock"), kNamespace, kPod, patience_s);
    for (const std::string& reason : reasons) {
      arguments += fmt::format(" --expect={}={}", reason, server());
    }
    return run_probe(arguments);
  }

  Mesh mesh_;

 private:
  void accept() {
    server_.async_accept([this](const boost::system::error_code& error, Tcp::socket socket) {
      if (!error) {
        answer_one(std::move(socket));
        accept();
      }
    });
  }
  void answer_one(Tcp::socket socket) {
    std::string request;
    asio::read_until(socket, asio::dynamic_buffer(request), "\r\n\r\n");
    const std::string client = text(socket.remote_endpoint());
    mesh_.on_connection(client, text(socket.local_endpoint()));
    const std::string body =
        answer("server", mesh_.seen_client.empty() ? client : mesh_.seen_client,
               socket.local_endpoint().port());
    asio::write(socket, asio::buffer(fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                                                 body.size(), body)));
  }

  test::TemporaryFolder folder_;
  test::LoopThread loop_;
  std::unique_ptr<admin::AdminServer> admin_;
  Tcp::acceptor server_{loop_.context, Tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
};

struct Decision {
  const char* reason;
  const char* seen;
};

void PrintTo(const Decision& decision, std::ostream* out) {
  *out << decision.reason;
}

class OfAMeshThatIsWell : public ProbeCheck, public testing::WithParamInterface<Decision> {};

TEST_P(OfAMeshThatIsWell, the_check_passes_and_says_what_was_seen) {
  mesh_.decide(GetParam().reason);
  const auto outcome = check({GetParam().reason});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output,
              HasSubstr(fmt::format("ok   {0} {1}: {1}: {0} +1{2}, answered by server client=",
                                    GetParam().reason, server(), GetParam().seen)));
}

INSTANTIATE_TEST_SUITE_P(Each, OfAMeshThatIsWell,
                         testing::Values(Decision{"redirected", ", path engine"},
                                         Decision{"passthrough", ", path direct"},
                                         Decision{"excluded_port", ", left alone"}),
                         [](const auto& decision) { return std::string(decision.param.reason); });

struct Fault {
  const char* name;
  const char* expected;
  void (*make)(Mesh&);
  const char* says;  // what was expected and what was seen
};

void PrintTo(const Fault& fault, std::ostream* out) {
  *out << fault.name;
}

class OfAMeshWithAFault : public ProbeCheck, public testing::WithParamInterface<Fault> {};

TEST_P(OfAMeshWithAFault, the_check_fails_with_what_was_expected_and_seen) {
  mesh_.decide(GetParam().expected);
  GetParam().make(mesh_);
  const auto outcome = check({GetParam().expected});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr(fmt::format("FAIL {} {}: ", GetParam().expected, server())),
                    HasSubstr(GetParam().says), HasSubstr("1 of 1 expectations were not met"),
                    Not(HasSubstr("ok "))));
}

INSTANTIATE_TEST_SUITE_P(
    Each, OfAMeshWithAFault,
    testing::Values(
        Fault{"another_reason", "redirected", [](Mesh& mesh) { mesh.explained = "excluded_port"; },
              ": expected redirected, the kernel would say excluded_port (direct)"},
        Fault{"exclusion_ignored", "excluded_port",
              [](Mesh& mesh) { mesh.explained = "redirected"; },
              ": expected excluded_port, the kernel would say redirected (redirected)"},
        Fault{"not_what_objects_ask_for", "redirected", [](Mesh& mesh) { mesh.agrees = false; },
              ": expected redirected, the kernel would say redirected (redirected), but it does "
              "not hold what the objects ask for"},
        Fault{"not_counted", "redirected", [](Mesh& mesh) { mesh.counted = "engine_down"; },
              "the kernel counted no connection as redirected: 7 before it, 7 after it"},
        Fault{"exclusion_not_counted", "excluded_port",
              [](Mesh& mesh) { mesh.counted = "redirected"; },
              "the kernel counted no connection as excluded_port: 7 before it, 7 after it"},
        Fault{"direct", "redirected", [](Mesh& mesh) { mesh.path = "direct"; },
              " through the engine, seen: one with the path 'direct'"},
        Fault{"no_flow", "redirected", [](Mesh& mesh) { mesh.path.clear(); },
              " through the engine, seen: none"},
        Fault{"through_the_engine", "passthrough", [](Mesh& mesh) { mesh.path = "engine"; },
              " without the engine, seen: one with the path 'engine'"},
        Fault{"past_the_engine", "passthrough", [](Mesh& mesh) { mesh.path = "handoff"; },
              " without the engine, seen: one with the path 'handoff'"},
        Fault{"another_client", "redirected",
              [](Mesh& mesh) { mesh.seen_client = "192.0.2.9:4000"; },
              "saw the client '192.0.2.9:4000', not 127.0.0.1:"},
        Fault{"unknown_pod", "redirected", [](Mesh& mesh) { mesh.unknown_for = 1; },
              "no pod mesh-test/client on this node"}),
    [](const auto& fault) { return std::string(fault.param.name); });

TEST_F(ProbeCheck, a_flow_whose_bytes_skip_tcp_fits_both) {
  mesh_.decide("passthrough");
  mesh_.path = "fast";
  EXPECT_THAT(check({"passthrough"}).output, HasSubstr("passthrough +1, path fast"));
}

TEST_F(ProbeCheck, a_pod_that_is_enrolled_after_its_start_is_waited_for) {
  mesh_.decide("redirected");
  mesh_.unknown_for = 2;
  const auto outcome = check({"redirected"}, 60);
  EXPECT_EQ(outcome.code, 0) << outcome.output;
}

TEST_F(ProbeCheck, one_of_two_expectations_that_is_not_met_fails_the_whole) {
  mesh_.decide("redirected");
  const auto outcome = check({"redirected", "excluded_port"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("ok   redirected "), HasSubstr("FAIL excluded_port "),
                                    HasSubstr("1 of 2 expectations were not met")));
}

}  // namespace
}  // namespace sidetrack::probe
