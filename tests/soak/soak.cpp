// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/soak.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include "tests/soak/clock.h"

namespace sidetrack::soak {

namespace {

using lab::milliseconds;

constexpr std::int64_t kTickMs = 20;
constexpr std::int64_t kTakeOutMs = 5000;  // from the first FIONREAD to its pod's sockets being out
constexpr std::int64_t kSettleMs = 4000;   // of the calm last quarter, before what is held is noted

}  // namespace

Result<void> Soak::run() {
  ST_TRY(set_up_node());
  ST_TRY(start_all());
  const std::int64_t begin = monotonic_ms();
  asks_begun_ms_ = begin + kAsksLateMs + kTakeOutMs;
  const std::int64_t whole = options_.seconds * 1000;
  ST_TRY(run_for(begin + whole * 3 / 4, false));
  // Agent and engine are left alone now, so that growth can be seen.
  for (const Down& down : std::exchange(down_, {})) {
    if (down.actor == agent_.get() || down.actor == engine_.get()) {
      ST_TRY(down.actor->start());
      if (down.incident) {
        judge_.close(*down.incident, monotonic_ms());
      }
    } else {
      down_.push_back(down);
    }
  }
  ST_TRY(run_for(monotonic_ms() + kSettleMs, true));
  ST_TRY(wait_until_up());
  held_before_ = {{"agent", held_by(*agent_)}, {"engine", held_by(*engine_)}};
  ST_TRY(run_for(begin + whole, true));
  check_demoted();
  return wind_down();
}

Result<void> Soak::run_for(std::int64_t until_ms, bool calm) {
  for (std::int64_t now = monotonic_ms(); now < until_ms; now = monotonic_ms()) {
    take_lines();
    judge_.look(now);
    look_after_actors();
    ST_TRY(start_due());
    if (now >= next_kill_ms_) {
      kill_one(calm);
      next_kill_ms_ = now + 500 + static_cast<std::int64_t>(random_() % 3500);
    }
    if (now >= next_flip_ms_) {
      flip_one();
      next_flip_ms_ = now + 500 + static_cast<std::int64_t>(random_() % 4000);
    }
    std::this_thread::sleep_for(milliseconds(kTickMs));
  }
  return {};
}

Result<void> Soak::start_due() {
  const std::int64_t now = monotonic_ms();
  for (Down& down : down_) {
    if (down.start_at_ms > now) {
      continue;
    }
    ST_TRY(down.actor->start());
    note("started " + down.actor->name());
    // A server says itself when it is ready.
    const bool is_server = std::any_of(worlds_.begin(), worlds_.end(), [&](const World& world) {
      return world.server.get() == down.actor;
    });
    if (down.incident && !is_server) {
      judge_.close(*down.incident, now);
    }
  }
  std::erase_if(down_, [&](const Down& down) { return down.start_at_ms <= now; });
  return {};
}

void Soak::kill_one(bool calm) {
  take_lines();  // of an incident that is over
  const std::uint64_t draw = random_();
  World& world = worlds_.at((draw >> 8U) % worlds_.size());
  const auto after = static_cast<std::int64_t>((draw >> 16U) % 3000);
  const std::int64_t now = monotonic_ms();
  Down down{};
  Incident incident{.cause = Cause::kClientKilled, .world = world.name, .from_ms = now};
  // The agent takes out the sockets of those that begin to ask.
  switch (draw % (calm || now < asks_begun_ms_ ? 7 : 11)) {
    case 0:
    case 1:
    case 2:
    case 3:
      down = {.actor = world.client.get(), .start_at_ms = now + after / 10};
      break;
    case 4:
    case 5:
    case 6:
      down = {.actor = world.server.get(), .start_at_ms = now + after / 10};
      incident.cause = Cause::kServerKilled;
      break;
    case 7:
    case 8:
      down = {.actor = agent_.get(), .start_at_ms = now + after};
      incident.cause = Cause::kAgentKilled;
      break;
    default:
      down = {.actor = engine_.get(), .start_at_ms = now + after / 3};
      incident.cause = Cause::kEngineKilled;
      break;
  }
  if (!down.actor->is_up()) {
    return;  // still down from the last time
  }
  down.incident = judge_.open(incident);
  open_incidents_[down.actor] = *down.incident;
  down.actor->kill();
  note("killed " + down.actor->name());
  ++kills_[down.actor->name()];
  down_.push_back(down);
}

// What the last flip has changed goes back first: most traffic is what its world stands for.
void Soak::flip_one() {
  const std::uint64_t draw = random_();
  World& world = worlds_.at((draw >> 8U) % worlds_.size());
  const std::uint64_t choice = draw >> 16U;
  Result<void> done;
  if (away_ != nullptr) {
    done = go_home(*std::exchange(away_, nullptr));
    note("home");
  } else {
    constexpr std::array kFastPath{"off", "node", "off"};
    const std::array<std::pair<std::string, std::string>, 3> flips{
        {{"mode", world.other_modes.at(choice % world.other_modes.size())},
         {"fast-path", kFastPath[choice % kFastPath.size()]},
         {"exclude-outbound-ports", std::to_string(kControlPort) + ",9001"}}};
    const auto& [key, value] = flips[(draw >> 4U) % flips.size()];
    const auto set =
        key == "exclude-outbound-ports" ? &lab::Objects::set_annotation : &lab::Objects::set_label;
    done = (*objects_.*set)(lab::Kind::kNamespace, world.name, "sidetrack.io/" + key, value);
    away_ = &world;
    note(world.name + ": " + key + "=" + value);
    ++flips_[key];
  }
  if (!done) {
    judge_.add_finding("flip: " + done.error().message);
  }
}

void Soak::note(const std::string& what) {
  trace_ += std::to_string(monotonic_ms()) + " " + what + "\n";
}

void Soak::take_lines() {
  for (const World& world : worlds_) {
    for (Actor* actor : {world.client.get(), world.server.get()}) {
      for (const std::string& line : actor->take_lines()) {
        take_line(world, *actor, line);
      }
    }
  }
}

void Soak::take_line(const World& world, const Actor& actor, const std::string& line) {
  const auto told = nlohmann::json::parse(line, nullptr, false);
  if (told.is_discarded()) {
    judge_.add_finding("unreadable line: " + line);
    return;
  }
  if (told.at("what") == "ready") {
    if (const auto open = open_incidents_.find(&actor); open != open_incidents_.end()) {
      judge_.close(open->second, monotonic_ms());
    }
    return;
  }
  judge_.take({.world = world.name,
               .by_engine = world.home_mode == "redirect",
               .is_control = told.at("port") == kControlPort},
              told, monotonic_ms());
}

// Whoever ends without having been killed.
void Soak::look_after_actors() {
  std::vector<Actor*> all{agent_.get(), engine_.get()};
  for (const World& world : worlds_) {
    all.push_back(world.client.get());
    all.push_back(world.server.get());
  }
  for (Actor* actor : all) {
    if (actor->is_up() && !actor->process().running()) {
      judge_.add_finding(actor->name() + " ended by itself: " + actor->process().output());
      actor->kill();
      down_.push_back({.actor = actor, .start_at_ms = monotonic_ms()});
    }
  }
}

}  // namespace sidetrack::soak
