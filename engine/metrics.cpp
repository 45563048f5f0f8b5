// SPDX-License-Identifier: Apache-2.0
#include "engine/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <utility>

namespace sidetrack::engine {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

struct Sample {
  std::vector<ClientMetric::Label> labels;
  std::uint64_t value;
};

MetricFamily family(MetricType type, std::string name, std::string help,
                    const std::vector<Sample>& samples) {
  MetricFamily result{.name = std::move(name), .help = std::move(help), .type = type, .metric = {}};
  for (const Sample& sample : samples) {
    ClientMetric metric;
    metric.label = sample.labels;
    (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) =
        static_cast<double>(sample.value);
    result.metric.push_back(std::move(metric));
  }
  return result;
}

ClientMetric::Label label(std::string name, std::string value) {
  ClientMetric::Label result;
  result.name = std::move(name);
  result.value = std::move(value);
  return result;
}

}  // namespace

std::string metrics_text(const MetricsInput& input) {
  const EngineTotals& totals = input.totals;
  const auto counter = [](const char* name, const char* help, const std::vector<Sample>& samples) {
    return family(MetricType::Counter, name, help, samples);
  };
  const auto gauge = [](const char* name, const char* help, const std::vector<Sample>& samples) {
    return family(MetricType::Gauge, name, help, samples);
  };
  const std::vector<MetricFamily> families{
      gauge("sidetrack_engine_connections", "Connections open now", {{{}, totals.connections}}),
      counter("sidetrack_engine_accepted_total", "Connections accepted", {{{}, totals.accepted}}),
      counter("sidetrack_engine_refused_total", "Connections reset before any upstream answered",
              {{{label("reason", "no_original_destination")}, totals.not_redirected},
               {{label("reason", "no_endpoints")}, totals.no_endpoints},
               {{label("reason", "upstream_failed")}, totals.connect_failed}}),
      counter("sidetrack_engine_endpoint_failures_total",
              "Endpoints that refused or did not answer", {{{}, totals.endpoint_failures}}),
      counter("sidetrack_engine_resets_total", "Connections that ended by a reset",
              {{{}, totals.resets}}),
      counter("sidetrack_engine_accept_paused_total", "Times that accept found no file or memory",
              {{{}, totals.accept_paused}}),
      counter("sidetrack_engine_bytes_total", "Payload relayed",
              {{{label("direction", "out")}, totals.bytes_out},
               {{label("direction", "in")}, totals.bytes_in}}),
      gauge("sidetrack_engine_buffered_bytes", "Payload waiting in user space",
            {{{}, totals.buffered}}),
      gauge("sidetrack_engine_files_used", "Descriptors in use", {{{}, input.files_used}}),
      gauge("sidetrack_engine_files_limit", "Descriptors allowed", {{{}, input.files_limit}}),
      gauge("sidetrack_engine_pods", "Pods with listeners", {{{}, input.pods}}),
      gauge("sidetrack_engine_routes", "Service addresses known", {{{}, input.routes}}),
      gauge("sidetrack_engine_build_info", "The version", {{{label("version", input.version)}, 1}}),
  };
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace sidetrack::engine
