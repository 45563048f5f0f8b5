// SPDX-License-Identifier: Apache-2.0
// What comes from the API server, cut and decoded; and the store that it changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/kube/list_splitter.h"
#include "agent/kube/object_store.h"
#include "agent/kube/object_text.h"
#include "agent/kube/watch_event.h"

namespace sidetrack::kube {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Split {
  std::vector<std::string> items;
  std::string envelope;
  std::string error;
  std::size_t oversized = 0;
};

Split split(const std::string& text, std::size_t piece, std::size_t limit = kMaxItemBytes) {
  Split result;
  ListSplitter splitter([&](std::string_view item) { result.items.emplace_back(item); }, limit);
  for (std::size_t at = 0; at < text.size(); at += piece) {
    if (auto fed = splitter.feed(std::string_view(text).substr(at, piece)); !fed) {
      result.error = fed.error().message;
      return result;
    }
  }
  result.oversized = splitter.oversized();
  auto envelope = splitter.finish();
  result.envelope = envelope ? *envelope : "";
  result.error = envelope ? "" : envelope.error().message;
  return result;
}

const std::string kList = R"({"kind":"PodList","metadata":{"items":["x"],"resourceVersion":"7"},)"
                          R"("items":[ {"a":"]},{\"","b":[1,[2]]} , {"c":{}}],"z":1})"
                          "\n";

TEST(ListSplitter, cuts_items_wherever_the_pieces_end) {
  for (const std::size_t piece : {1U, 2U, 7U, 1000U}) {
    const Split cut = split(kList, piece);
    EXPECT_EQ(cut.error, "");
    ASSERT_EQ(cut.items.size(), 2U);
    EXPECT_EQ(cut.items[0], R"({"a":"]},{\"","b":[1,[2]]} )");
    EXPECT_EQ(cut.items[1], R"({"c":{}})");
    EXPECT_EQ(cut.envelope, R"({"kind":"PodList","metadata":{"items":["x"],"resourceVersion":"7"},)"
                            R"("items":[],"z":1})");
  }
}

TEST(ListSplitter, knows_a_value_that_is_called_items_from_the_member) {
  const Split cut = split(R"({"kind":"items","x":["items"],"items":[]})", 3);
  EXPECT_THAT(cut.items, IsEmpty());
  EXPECT_EQ(cut.envelope, R"({"kind":"items","x":["items"],"items":[]})");
}

TEST(ListSplitter, says_that_a_list_is_cut_off) {
  EXPECT_THAT(split(kList.substr(0, kList.size() - 3), 5).error, HasSubstr("cut off"));
  EXPECT_THAT(split("", 5).error, HasSubstr("cut off"));
}

TEST(ListSplitter, refuses_what_is_no_object) {
  EXPECT_THAT(split("<html>", 2).error, HasSubstr("not a JSON object"));
  EXPECT_THAT(split("[]", 2).error, HasSubstr("not a JSON object"));
  EXPECT_THAT(split("{}{}", 2).error, HasSubstr("text after"));
}

TEST(ListSplitter, passes_over_an_item_beyond_the_limit_and_counts_it) {
  const Split cut = split(R"({"items":[{"a":"0123456789012345"},{"b":1}]})", 4, 10);
  EXPECT_THAT(cut.items, ElementsAre(R"({"b":1})"));
  EXPECT_EQ(cut.oversized, 1U);
}

TEST(ListSplitter, bounds_what_is_outside_the_items) {
  const std::string text = R"({"a":")" + std::string(2 * kMaxEnvelopeBytes, 'x') + R"("})";
  EXPECT_THAT(split(text, 4096).error, HasSubstr("besides its items"));
}

TEST(LineSplitter, gives_whole_lines_and_bounds_them) {
  std::vector<std::string> lines;
  LineSplitter splitter([&](std::string_view line) { lines.emplace_back(line); }, 8);
  EXPECT_TRUE(splitter.feed("ab\n\ncd"));
  EXPECT_TRUE(splitter.has_rest());
  EXPECT_TRUE(splitter.feed("e\n12345678\n"));
  EXPECT_FALSE(splitter.has_rest());
  EXPECT_THAT(lines, ElementsAre("ab", "cde", "12345678"));
  EXPECT_TRUE(splitter.feed("12345"));
  EXPECT_FALSE(splitter.feed("6789"));
}

const std::string kPod =
    R"({"metadata":{"name":"web","namespace":"shop","resourceVersion":"9",)"
    R"("managedFields":[{"manager":"x"}]},"spec":{"nodeName":"n"},"status":{"podIP":"10.1.0.1"}})";

TEST(WatchEvent, decodes_added_modified_and_deleted) {
  for (const char* type : {"ADDED", "MODIFIED"}) {
    const auto event = decode_watch_line(
        Resource::kPods, std::string(R"({"type":")") + type + R"(","object":)" + kPod + "}");
    EXPECT_EQ(event.type, WatchEvent::Type::kPut);
    EXPECT_EQ(event.item.key, "shop/web");
    EXPECT_EQ(event.item.resource_version, "9");
    ASSERT_TRUE(event.item.object);
    EXPECT_THAT(std::get<Pod>(*event.item.object).addresses, ElementsAre("10.1.0.1"));
  }
  const auto gone =
      decode_watch_line(Resource::kPods, R"({"type":"DELETED","object":)" + kPod + "}");
  EXPECT_EQ(gone.type, WatchEvent::Type::kDeleted);
  EXPECT_EQ(gone.item.key, "shop/web");
}

TEST(WatchEvent, decodes_bookmarks_and_the_end_of_initial_events) {
  const auto plain = decode_watch_line(
      Resource::kPods,
      R"({"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"12"}}})");
  EXPECT_EQ(plain.type, WatchEvent::Type::kBookmark);
  EXPECT_EQ(plain.item.resource_version, "12");
  EXPECT_FALSE(plain.initial_end);
  EXPECT_TRUE(
      decode_watch_line(Resource::kPods,
                        R"({"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12",)"
                        R"("annotations":{"k8s.io/initial-events-end":"true"}}}})")
          .initial_end);
}

TEST(WatchEvent, decodes_errors) {
  const auto event = decode_watch_line(
      Resource::kPods,
      R"({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"m"}})");
  EXPECT_EQ(event.type, WatchEvent::Type::kError);
  EXPECT_EQ(event.status.code, 410);
  EXPECT_EQ(event.status.reason, "Expired");
}

TEST(WatchEvent, anything_else_is_garbage) {
  for (const char* line :
       {"", "{", "null", "[]", "{}", R"({"type":"ADDED"})", R"({"type":"ADDED","object":[]})",
        R"({"type":"NEW","object":{}})", R"({"type":7,"object":{}})"}) {
    EXPECT_EQ(decode_watch_line(Resource::kPods, line).type, WatchEvent::Type::kGarbage) << line;
  }
}

TEST(WatchEvent, an_object_that_cannot_be_used_keeps_its_name) {
  const auto event = decode_watch_line(
      Resource::kPods,
      R"({"type":"MODIFIED","object":{"metadata":{"name":"web","namespace":"shop","labels":7}}})");
  EXPECT_EQ(event.type, WatchEvent::Type::kPut);
  EXPECT_FALSE(event.item.object);
  EXPECT_TRUE(event.item.failed());
  EXPECT_EQ(event.item.key, "shop/web");
}

TEST(WatchEvent, an_object_of_another_kind_is_not_taken) {
  const auto event = decode_watch_line(
      Resource::kPods,
      R"({"type":"ADDED","object":{"kind":"Node","apiVersion":"v1","metadata":{"name":"a"}}})");
  EXPECT_TRUE(event.item.failed());
}

TEST(ApiStatus, knows_a_version_that_is_too_large_and_when_to_come_back) {
  const ApiStatus status = decode_status(
      504, R"({"kind":"Status","reason":"Timeout","message":"Too large resource version",)"
           R"("details":{"retryAfterSeconds":1,"causes":[{"reason":"ResourceVersionTooLarge"}]}})");
  EXPECT_TRUE(status.version_too_large);
  EXPECT_EQ(status.retry_after, std::chrono::seconds(1));
  EXPECT_EQ(decode_status(502, "<html>bad gateway").message, "<html>bad gateway");
  EXPECT_EQ(decode_status(502, "<html>bad gateway").code, 502);
}

TEST(ListMetadata, is_of_the_right_kind_with_a_version) {
  const auto list = decode_list_metadata(
      Resource::kPods,
      R"({"kind":"PodList","metadata":{"resourceVersion":"7","continue":"t"},"items":[]})");
  ASSERT_TRUE(list);
  EXPECT_EQ(list->resource_version, "7");
  EXPECT_EQ(list->continue_token, "t");
  EXPECT_FALSE(decode_list_metadata(
      Resource::kPods, R"({"kind":"NodeList","metadata":{"resourceVersion":"7"},"items":[]})"));
  EXPECT_FALSE(decode_list_metadata(Resource::kPods, R"({"kind":"PodList","items":[]})"));
  EXPECT_FALSE(decode_list_metadata(Resource::kPods, "{"));
}

Change change(Change::Kind kind, const std::string& name = "", const std::string& version = "") {
  Change made{.kind = kind,
              .resource = Resource::kNodes,
              .key = name,
              .object = std::nullopt,
              .version = version,
              .problems = {}};
  if (kind == Change::Kind::kPut) {
    made.object = Node{.metadata = {.name = name, .namespace_name = "", .uid = version}};
  }
  return made;
}

class ObjectStoreTest : public testing::Test {
 protected:
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, node] : objects_.nodes) {
      names.push_back(name);
    }
    return names;
  }
  ObjectSet objects_;
  ObjectStore store_{objects_, 3};
};

using ChangeKind = Change::Kind;

TEST_F(ObjectStoreTest, says_whether_a_change_changes_anything) {
  EXPECT_TRUE(store_.apply(change(ChangeKind::kPut, "a", "1")));
  EXPECT_FALSE(store_.apply(change(ChangeKind::kPut, "a", "1")));
  EXPECT_TRUE(store_.apply(change(ChangeKind::kPut, "a", "2")));
  EXPECT_FALSE(store_.apply(change(ChangeKind::kDelete, "b")));
  EXPECT_TRUE(store_.apply(change(ChangeKind::kDelete, "a")));
}

TEST_F(ObjectStoreTest, a_whole_list_removes_what_it_does_not_name) {
  store_.apply(change(ChangeKind::kPut, "a"));
  store_.apply(change(ChangeKind::kPut, "b"));
  store_.apply(change(ChangeKind::kListBegin));
  store_.apply(change(ChangeKind::kPut, "b"));
  EXPECT_THAT(names(), ElementsAre("a", "b")) << "the list is not whole yet";
  EXPECT_TRUE(store_.apply(change(ChangeKind::kListEnd, "", "9")));
  EXPECT_THAT(names(), ElementsAre("b"));
  EXPECT_EQ(store_.version(Resource::kNodes), "9");
}

TEST_F(ObjectStoreTest, knows_which_objects_are_others_than_when_it_was_asked_last) {
  const auto changed = [&] { return store_.take_changes().nodes; };
  for (const char* name : {"a", "b", "c"}) {
    store_.apply(change(ChangeKind::kPut, name, "1"));
  }
  store_.apply(change(ChangeKind::kPut, "beyond", "1"));
  EXPECT_THAT(changed(), ElementsAre("a", "b", "c"));
  store_.apply(change(ChangeKind::kPut, "a", "1"));
  store_.apply(change(ChangeKind::kPut, "b", "2"));
  store_.apply(change(ChangeKind::kDelete, "d"));
  EXPECT_THAT(changed(), ElementsAre("b"));
  store_.apply(change(ChangeKind::kListBegin));
  store_.apply(change(ChangeKind::kPut, "b", "2"));
  store_.apply(change(ChangeKind::kListEnd));
  EXPECT_THAT(changed(), ElementsAre("a", "c"));
  store_.apply(change(ChangeKind::kDelete, "b"));
  EXPECT_THAT(changed(), ElementsAre("b"));
  EXPECT_THAT(changed(), IsEmpty());
}

TEST_F(ObjectStoreTest, a_list_that_is_begun_again_forgets_what_the_first_try_named) {
  store_.apply(change(ChangeKind::kPut, "a"));
  store_.apply(change(ChangeKind::kListBegin));
  store_.apply(change(ChangeKind::kPut, "a"));
  store_.apply(change(ChangeKind::kListBegin));
  store_.apply(change(ChangeKind::kPut, "b"));
  store_.apply(change(ChangeKind::kListEnd));
  EXPECT_THAT(names(), ElementsAre("b"));
}

TEST_F(ObjectStoreTest, an_object_that_cannot_be_used_keeps_its_last_good_state) {
  store_.apply(change(ChangeKind::kPut, "a", "1"));
  store_.apply(change(ChangeKind::kListBegin));
  Change keep = change(ChangeKind::kKeep, "a");
  keep.problems.push_back({.object = "Node/a", .key = "/x", .value = "", .reason = "is wrong"});
  EXPECT_TRUE(store_.apply(keep));
  EXPECT_FALSE(store_.apply(keep));
  store_.apply(change(ChangeKind::kListEnd));
  EXPECT_THAT(names(), ElementsAre("a"));
  ASSERT_EQ(store_.problems().size(), 1U);
  EXPECT_FALSE(store_.problems().front().of_source);
  EXPECT_TRUE(store_.apply(change(ChangeKind::kPut, "a", "1")));
  EXPECT_THAT(store_.problems(), IsEmpty());
}

TEST_F(ObjectStoreTest, has_room_for_so_many_and_says_so) {
  for (const char* name : {"a", "b", "c", "d"}) {
    store_.apply(change(ChangeKind::kPut, name));
  }
  EXPECT_THAT(names(), ElementsAre("a", "b", "c"));
  ASSERT_EQ(store_.problems().size(), 1U);
  EXPECT_EQ(store_.problems().front().key, "nodes");
  EXPECT_TRUE(store_.problems().front().of_source);
}

TEST_F(ObjectStoreTest, makes_text_in_parts) {
  for (const char* name : {"a", "b", "c"}) {
    store_.apply(change(ChangeKind::kPut, name));
  }
  std::string after;
  std::string text = "[";
  EXPECT_TRUE(store_.append_text(Resource::kNodes, after, 2, text));
  EXPECT_FALSE(store_.append_text(Resource::kNodes, after, 2, text));
  EXPECT_EQ(text, R"([{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}},)"
                  "\n"
                  R"({"apiVersion":"v1","kind":"Node","metadata":{"name":"b"}},)"
                  "\n"
                  R"({"apiVersion":"v1","kind":"Node","metadata":{"name":"c"}})");
}

Object round_trip(const Object& object) {
  const auto item = decode_item(static_cast<Resource>(object.index()), to_text(object));
  EXPECT_TRUE(item.object) << to_text(object);
  return item.object ? *item.object : Object();
}

TEST(ObjectText, is_read_back_as_it_was) {
  const Metadata metadata{.name = "a",
                          .namespace_name = "shop",
                          .uid = "u",
                          .labels = {{"l", "1"}},
                          .annotations = {{"x", "\"y\"\n"}}};
  Pod pod{.metadata = metadata, .node_name = "n", .host_network = true, .phase = "Running"};
  pod.addresses = {"10.0.0.1", "fd00::1"};
  pod.container_ports = {80, 8080};
  pod.mesh_container = "istio-proxy";
  pod.runtime_class = "gvisor";
  pod.owner = "ReplicaSet/web";
  EXPECT_EQ(std::get<Pod>(round_trip(pod)), pod);

  Service service{.metadata = metadata, .type = "NodePort", .cluster_addresses = {"10.96.0.1"}};
  service.ports = {{.name = "http", .protocol = "TCP", .port = 80}};
  service.client_ip_affinity = true;
  service.affinity_timeout_s = 60;
  service.internal_traffic_local = true;
  service.topology_hints = true;
  EXPECT_EQ(std::get<Service>(round_trip(service)), service);

  EndpointSlice slice{.metadata = metadata, .service_name = "web", .address_type = "IPv4"};
  slice.metadata.labels = {{"kubernetes.io/service-name", "web"}};
  slice.ports = {{.name = "http", .protocol = "TCP", .port = 8080}};
  slice.endpoints = {{.addresses = {"10.0.0.1"},
                      .ready = false,
                      .serving = true,
                      .terminating = true,
                      .node_name = "n",
                      .zone = "z",
                      .hint_zones = {"z"}}};
  EXPECT_EQ(std::get<EndpointSlice>(round_trip(slice)), slice);

  const Namespace space{
      .metadata = {.name = "shop", .namespace_name = "", .uid = "", .labels = {{"l", "1"}}}};
  EXPECT_EQ(std::get<Namespace>(round_trip(space)), space);
}

}  // namespace
}  // namespace sidetrack::kube
