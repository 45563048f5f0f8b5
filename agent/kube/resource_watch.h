// SPDX-License-Identifier: Apache-2.0
// ResourceWatch: carries out what a Reflector decides for one resource, by an ApiClient, and turns
// the answers into changes. Everything on the thread of the client's run().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/kube/api_client.h"
#include "agent/kube/list_splitter.h"
#include "agent/kube/object_store.h"
#include "agent/kube/reflector.h"

namespace sidetrack::kube {

// How one resource is doing; the counters are since the start.
struct WatchState {
  Resource resource = Resource::kNamespaces;
  bool listed = false;         // at least once
  std::uint64_t relists = 0;   // lists after the first
  std::uint64_t failures = 0;  // requests that failed
  std::uint64_t events = 0;
  double last_event = 0;  // Unix time of the last word of the server, 0 = never
  unsigned failing = 0;   // failures since the last good answer
  std::string problem;    // the last failure
};

// What a watch has to say; emptied by whoever passes it on.
struct Outbox {
  std::vector<Change> changes;
  std::vector<WatchState> states;  // the newest last
};

struct WatchTimes {
  ReflectorSettings reflector;
  std::chrono::milliseconds read_slack{30'000};  // beyond what the server was asked for
  std::chrono::milliseconds list_limit{300'000};
  std::chrono::seconds idle_limit{30};  // of a list, without a byte
  std::chrono::milliseconds head_limit{30'000};
};

class ResourceWatch : private ApiCall {
 public:
  // `client` and `outbox` must outlive this.
  ResourceWatch(Resource resource, std::string node, const WatchTimes& times, Random random,
                const std::string& known_version, bool knows_objects, ApiClient& client,
                Outbox& outbox);
  ~ResourceWatch() override;
  ResourceWatch(const ResourceWatch&) = delete;
  ResourceWatch& operator=(const ResourceWatch&) = delete;

  // Reads everything again, now.
  void refresh();
  // When tick() wants to be called at the latest.
  [[nodiscard]] TimePoint due() const;
  void tick(TimePoint now);

 private:
  void on_answer() override;
  bool on_data(std::string_view bytes) override;
  void on_end(const ApiOutcome& outcome) override;

  void send(TimePoint now);
  void schedule(TimePoint now, Step step);
  void on_item(std::string_view text);
  void on_line(std::string_view line);
  void on_initial_end(const std::string& version);
  void put_item(ItemResult item);
  [[nodiscard]] Step end_of_answer(TimePoint now);
  [[nodiscard]] Step fail(TimePoint now, const Failure& failure);
  void emit(Change::Kind kind, std::string key, std::string version,
            std::optional<Object> object = std::nullopt);
  void end_list(const std::string& version);
  void note_word();
  void note_success();
  void note_failure(std::string problem);
  void tell();
  [[nodiscard]] bool is_list() const;

  Resource resource_;
  std::string node_;
  WatchTimes times_;
  Reflector reflector_;
  ApiClient& client_;
  Outbox& outbox_;
  WatchState state_;

  Step next_;
  TimePoint next_at_{};
  std::optional<ApiClient::CallId> call_;
  TimePoint sent_{};
  bool initial_ = false;  // the initial events of a watch have not ended
  bool list_open_ = false;
  bool failed_in_body_ = false;
  bool unnamed_ = false;  // the list has items whose name cannot be told: nothing may be removed
  std::size_t items_ = 0;
  std::size_t events_ = 0;
  std::unique_ptr<ListSplitter> pages_;
  std::unique_ptr<LineSplitter> lines_;
  std::optional<Failure> broken_;  // found while reading
  std::optional<Step> decided_;    // while reading
};

}  // namespace sidetrack::kube
