// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "sidetrack/wire/engine.h"
#include "sidetrack/wire/framing.h"

namespace sidetrack::wire {
namespace {

Endpoint v4(unsigned char last, std::uint16_t port) {
  return {.address = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last}}, .port = port};
}

Endpoint v6(unsigned char last, std::uint16_t port) {
  return {.address = {{0xfd, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc,
                       0xdd, 0xee, last}},
          .port = port};
}

constexpr auto kMax64 = std::numeric_limits<std::uint64_t>::max();

struct RoundTrip {
  std::string name;
  EngineMessage message;
  std::size_t descriptors = 0;
};

class WireRoundTrip : public testing::TestWithParam<RoundTrip> {};

TEST_P(WireRoundTrip, decodes_to_the_same_message) {
  const auto body = encode(GetParam().message);
  ASSERT_TRUE(body) << body.error().message;
  const auto message = decode(*body);
  ASSERT_TRUE(message) << message.error().message;
  EXPECT_TRUE(*message == GetParam().message) << *body;
  EXPECT_EQ(kind_of(*message), GetParam().name);
  EXPECT_EQ(descriptors_of(*message), GetParam().descriptors);
}

INSTANTIATE_TEST_SUITE_P(
    Wire, WireRoundTrip,
    testing::Values(
        RoundTrip{"hello", Hello{.version = 1, .build = "0.1.0", .pid = 4711}},
        RoundTrip{"listening", Listening{.request_id = 3,
                                         .netns_cookie = kMax64,
                                         .v4 = {{15900, kMax64}, {65535, 1}},
                                         .v6 = {{1, 2}}}},
        RoundTrip{
            "failed",
            Failed{.request_id = 1, .netns_cookie = 2, .reason = "bind: \"in\" \n use \xc3\xbc"}},
        RoundTrip{"draining", Draining{}}, RoundTrip{"stats", Stats{1, 2, 3, 4, kMax64}},
        RoundTrip{"link", Link{kMax64, 1, kMaxLinks - 1}}, RoundTrip{"slots", Slots{}, 1},
        RoundTrip{"welcome", Welcome{1, 7, kMax64, 15900, 15999, 4}, 1},
        RoundTrip{"refused", Refused{"no free slot"}}, RoundTrip{"snapshot_begin", SnapshotBegin{}},
        RoundTrip{"snapshot_end", SnapshotEnd{}},
        RoundTrip{"pod", Pod{1, 2, "shop", "web-0", {1, 80, 65535}}, 1}, RoundTrip{"keep", Keep{5}},
        RoundTrip{"remove", Remove{5, true}}, RoundTrip{"reopen", Reopen{6, 5}},
        RoundTrip{"route", Route{v4(1, 80), "shop/web:http", {v4(2, 8080), v6(3, 8443)}, 10800}},
        RoundTrip{"route_remove", RouteRemove{v6(1, 443)}}),
    [](const auto& row) { return row.param.name; });

struct Reject {
  std::string name;
  std::string body;
  ErrorCode code = ErrorCode::kInvalid;
};

class WireReject : public testing::TestWithParam<Reject> {};

TEST_P(WireReject, is_an_error) {
  const auto message = decode(GetParam().body);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, GetParam().code) << message.error().message;
}

const std::string kLong(kMaxText + 1, 'x');

INSTANTIATE_TEST_SUITE_P(
    Wire, WireReject,
    testing::Values(
        Reject{"empty", ""}, Reject{"no_json", "hello"}, Reject{"array", "[]"},
        Reject{"torn", R"({"type":"keep")"}, Reject{"no_type", R"({"netns_cookie":1})"},
        Reject{"type_is_no_text", R"({"type":1})"},
        Reject{"unknown_type", R"({"type":"dance"})", ErrorCode::kUnsupported},
        Reject{"field_missing", R"({"type":"keep"})"},
        Reject{"negative", R"({"type":"keep","netns_cookie":-1})"},
        Reject{"fraction", R"({"type":"keep","netns_cookie":1.0})"},
        Reject{"over_64_bits", R"({"type":"keep","netns_cookie":18446744073709551616})"},
        Reject{"number_as_text", R"({"type":"keep","netns_cookie":"1"})"},
        Reject{"port_over_65535", R"({"type":"route_remove","front":["10.0.0.1",65536]})"},
        Reject{"address_is_a_name", R"({"type":"route_remove","front":["localhost",1]})"},
        Reject{"endpoint_too_short", R"({"type":"route_remove","front":["10.0.0.1"]})"},
        Reject{"flag_as_number", R"({"type":"remove","netns_cookie":1,"cut":1})"},
        Reject{"text_too_long", R"({"type":"hello","version":1,"pid":1,"build":")" + kLong + "\"}"},
        Reject{"link_beyond_the_last",
               R"({"type":"link","client_cookie":1,"server_cookie":2,"index":)" +
                   std::to_string(kMaxLinks) + "}"},
        Reject{"link_beyond_32_bits",
               R"({"type":"link","client_cookie":1,"server_cookie":2,"index":4294967296})"},
        Reject{"link_without_cookie", R"({"type":"link","client_cookie":1,"index":3})"},
        Reject{"trailing_bytes", R"({"type":"draining"}x)"},
        Reject{"bad_utf8", "{\"type\":\"draining\",\"\xff\":1}"}),
    [](const auto& row) { return row.param.name; });

TEST(WireCodec, ignores_unknown_fields) {
  const auto message = decode(R"({"type":"keep","netns_cookie":7,"colour":{"a":[null,1e3]}})");
  ASSERT_TRUE(message) << message.error().message;
  EXPECT_EQ(std::get<Keep>(*message).netns_cookie, 7U);
}

TEST(WireCodec, cuts_a_long_reason_and_drops_broken_utf8) {
  const auto body =
      encode(Failed{.request_id = 1, .netns_cookie = 2, .reason = "\xff" + std::string(1000, 'r')});
  ASSERT_TRUE(body);
  EXPECT_EQ(std::get<Failed>(*decode(*body)).reason, std::string(kMaxText - 1, 'r'));
}

TEST(WireCodec, refuses_to_encode_what_is_over_a_limit) {
  EXPECT_EQ(encode(Link{1, 2, kMaxLinks}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(encode(Hello{.version = 1, .build = kLong, .pid = 1}).error().code,
            ErrorCode::kInvalid);
  EXPECT_EQ(encode(Pod{1, 2, "a", "b", std::vector<std::uint16_t>(kMaxPorts + 1)}).error().code,
            ErrorCode::kInvalid);
  EXPECT_EQ(encode(Route{v4(1, 1), "s", std::vector<Endpoint>(kMaxEndpoints + 1), 0}).error().code,
            ErrorCode::kInvalid);
}

TEST(WireCodec, the_largest_lists_fit_a_frame) {
  const auto route = encode(Route{v6(1, 65535), std::string(kMaxText, 's'),
                                  std::vector<Endpoint>(kMaxEndpoints, v6(0xff, 65535)),
                                  std::numeric_limits<std::uint32_t>::max()});
  ASSERT_TRUE(route) << route.error().message;
  EXPECT_LE(route->size(), kMaxFrameBytes);
  EXPECT_TRUE(decode(*route));
  EXPECT_TRUE(encode(Pod{1, 2, "a", "b", std::vector<std::uint16_t>(kMaxPorts, 65535)}));
}

}  // namespace
}  // namespace sidetrack::wire
