// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "sidetrack/wire/cni.h"

namespace sidetrack::wire::cni {
namespace {

const std::string kLong(kMaxText + 1, 'x');
const AttachmentId kPod{.container_id = "c0ffee", .ifname = "eth0"};

struct RoundTrip {
  std::string name;
  Message message;
  std::size_t descriptors = 0;
};

class CniWireRoundTrip : public testing::TestWithParam<RoundTrip> {};

TEST_P(CniWireRoundTrip, decodes_to_the_same_message) {
  const auto body = encode(GetParam().message);
  ASSERT_TRUE(body) << body.error().message;
  const auto message = decode(*body);
  ASSERT_TRUE(message) << message.error().message;
  EXPECT_TRUE(*message == GetParam().message) << *body;
  EXPECT_EQ(kind_of(*message), GetParam().name);
  EXPECT_EQ(descriptors_of(*message), GetParam().descriptors);
  EXPECT_EQ(version_of(*message), kProtocolVersion);
}

INSTANTIATE_TEST_SUITE_P(
    Cni, CniWireRoundTrip,
    testing::Values(
        RoundTrip{"add",
                  Add{.attachment = kPod,
                      .pod_namespace = "shop",
                      .pod_name = "web-0",
                      .pod_uid = "6a1c",
                      .addresses = {"10.0.0.7", "fd00::7"}},
                  1},
        RoundTrip{"del", Del{.attachment = kPod}},
        RoundTrip{
            "check",
            Check{.attachment = kPod, .pod_namespace = "shop", .pod_name = "web-0", .pod_uid = ""}},
        RoundTrip{"gc", Gc{.valid = {kPod, {"f00d", "net1"}}}}, RoundTrip{"status", Status{}},
        RoundTrip{"ok", Ok{}},
        RoundTrip{"failed",
                  Failed{.code = 11, .message = "not \"yet\" \xc3\xbc", .details = "run `x`\n"}}),
    [](const auto& row) { return row.param.name; });

struct Reject {
  std::string name;
  std::string body;
  ErrorCode code = ErrorCode::kInvalid;
};

class CniWireReject : public testing::TestWithParam<Reject> {};

TEST_P(CniWireReject, is_an_error) {
  const auto message = decode(GetParam().body);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, GetParam().code) << message.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Cni, CniWireReject,
    testing::Values(
        Reject{"empty", ""}, Reject{"array", "[]"},
        Reject{"unknown_type", R"({"type":"dance","version":1})", ErrorCode::kUnsupported},
        Reject{"no_version", R"({"type":"status"})"},
        Reject{"no_ifname", R"({"type":"del","version":1,"container_id":"a"})"},
        Reject{"id_too_long",
               R"({"type":"del","version":1,"ifname":"eth0","container_id":")" + kLong + "\"}"},
        Reject{"id_is_a_number", R"({"type":"del","version":1,"ifname":"eth0","container_id":7})"},
        Reject{"valid_is_no_pair", R"({"type":"gc","version":1,"valid":[["a"]]})"},
        Reject{"valid_missing", R"({"type":"gc","version":1})"},
        Reject{"code_negative",
               R"({"type":"failed","version":1,"code":-1,"message":"","details":""})"}),
    [](const auto& row) { return row.param.name; });

TEST(CniWireCodec, ignores_unknown_fields_of_a_later_build) {
  const auto message = decode(R"({"type":"ok","version":2,"more":[1e300,null]})");
  ASSERT_TRUE(message) << message.error().message;
  EXPECT_EQ(version_of(*message), 2U);
}

TEST(CniWireCodec, cuts_long_messages_and_refuses_long_names) {
  const auto body = encode(Failed{.code = 100, .message = kLong, .details = kLong});
  ASSERT_TRUE(body);
  EXPECT_EQ(std::get<Failed>(*decode(*body)).message.size(), kMaxText);
  EXPECT_EQ(encode(Del{.attachment = {kLong, "eth0"}}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(encode(Del{.attachment = {"a", kLong}}).error().code, ErrorCode::kInvalid);
  EXPECT_FALSE(encode(Gc{.valid = std::vector<AttachmentId>(kMaxAttachments + 1, kPod)}));
  EXPECT_FALSE(encode(Add{.addresses = std::vector<std::string>(kMaxAddresses + 1, "10.0.0.1")}));
  EXPECT_FALSE(encode(Add{.addresses = {kLong}}));
}

}  // namespace
}  // namespace sidetrack::wire::cni
