// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <csignal>
#include <ctime>
#include <ostream>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/admin/request.h"
#include "agent/ctl/client.h"
#include "agent/ctl/commands.h"
#include "agent/ctl/render.h"

namespace sidetrack::ctl {
namespace {

using nlohmann::json;

volatile std::sig_atomic_t interrupted = 0;

void on_interrupt(int) {
  interrupted = 1;
}

// Ctrl-C ends -f as its regular end. No SA_RESTART: the pause between two polls is cut short.
void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void pause_between_polls() {
  const std::timespec pause{0, 200'000'000};
  ::nanosleep(&pause, nullptr);
}

std::string target_of(const Options& options, double since, std::uint64_t after) {
  return fmt::format("/v1/flows?namespace={}&since={:.3f}&after={}",
                     admin::percent_encode(options.namespace_name), since, after);
}

// An agent that ends, starts or hangs; what else it answers is for a person.
bool is_away(const Error& error) {
  return error.code == ErrorCode::kIo || error.code == ErrorCode::kBusy;
}

int follow(const Options& options, const Streams& streams, double since) {
  catch_interrupts();
  const Client client(admin_socket(options));
  std::uint64_t after = 0;
  bool header_due = options.format == Format::kTable;
  bool reached = false;
  bool away = false;
  while (interrupted == 0) {
    const auto page = client.get(target_of(options, since, after), "flows");
    if (!page && (!reached || !is_away(page.error()))) {
      return fail(page.error(), streams);
    }
    if (!page) {
      if (!std::exchange(away, true)) {
        (void)fail(page.error(), streams);
        streams.error << "sidetrackctl: waits until it answers again\n";
      }
      pause_between_polls();
      continue;
    }
    if (!std::exchange(reached, true)) {
      (void)check_namespace(*page, options, streams);  // some may come
    }
    if (std::exchange(away, false)) {
      streams.error << "sidetrackctl: the agent answers again\n";
    }
    if (header_due) {
      streams.out << flow_header(streams.painter);
      header_due = false;
    }
    for (const auto& flow : list_of(*page, "flows")) {
      if (seconds_of(flow, "end") == 0) {
        continue;  // still open: shown once it ends
      }
      streams.out << (options.format == Format::kTable ? flow_line(flow, streams.painter)
                                                       : serialise_item(flow, options.format));
    }
    streams.out.flush();
    after = count_of(*page, "next_sequence");
    pause_between_polls();
  }
  return kExitFine;
}

}  // namespace

int run_flows(const Options& options, const Streams& streams) {
  const double since = options.since_s < 0 ? 0 : now_s() - options.since_s;
  if (options.follow) {
    return follow(options, streams, since);
  }
  const auto page = Client(admin_socket(options)).get(target_of(options, since, 0), "flows");
  if (!page) {
    return fail(page.error(), streams);
  }
  return show_list(*page, "flows", options, streams, [&](const json& flows) {
    return render_flows(flows, streams.painter, now_s());
  });
}

}  // namespace sidetrack::ctl
