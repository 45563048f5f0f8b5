// SPDX-License-Identifier: Apache-2.0
// The agent's end of the CNI plugin's protocol (include/sidetrack/wire/cni.h): a unix socket on
// which each invocation of the plugin asks one thing. Knows no pods: a Handler does. Bounded in
// connections, message size and time. One thread (the io_context's); the Handler runs on it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"
#include "sidetrack/wire/cni.h"

namespace sidetrack::cni {

using wire::cni::AttachmentId;

// A pod's interface, as CNI ADD tells it: the network is there, none of the pod's processes is.
struct Attachment {
  std::string container_id;
  std::string ifname;
  std::string pod_namespace;
  std::string pod_name;
  std::string pod_uid;                 // empty: the runtime does not say
  std::vector<std::string> addresses;  // without prefix length: "10.0.0.7", "fd00::7"
  UniqueFd netns;                      // of type net; whose it is was not checked
};

// What CHECK knows of the pod.
struct Claim {
  AttachmentId attachment;
  std::string pod_namespace;
  std::string pod_name;
  std::string pod_uid;
};

// The agent, as the server sees it. Errors become CNI errors: kBusy = 11 (try again later), all
// others = 100 with the message; with `onAgentDown: allow` the plugin lets the pod start anyway.
class Handler {
 public:
  Handler() = default;
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  virtual ~Handler() = default;

  // Enrols the pod if it is to be, and calls `done` once, at once or later, from the loop's thread:
  // without error when the kernel has the row or the pod needs none. The same attachment may come
  // again; the plugin waits for `done` at most its `timeoutMs`, and may be gone by then.
  virtual void add(Attachment attachment, std::function<void(Result<void>)> done) = 0;
  // The attachment goes. Also for unknown ones.
  virtual void remove(const AttachmentId& attachment) = 0;
  // Is the pod as `add` left it? An error says what is wrong.
  [[nodiscard]] virtual Result<void> check(const Claim& claim) = 0;
  // Forget all attachments but these.
  virtual void keep_only(const std::set<AttachmentId>& valid) = 0;
  // Can pods be added now? An error says why not. Asked only with `statusChecksAgent`.
  [[nodiscard]] virtual Result<void> status() = 0;
};

struct Timings {
  std::chrono::milliseconds request{2000};   // from connect to a whole request
  std::chrono::milliseconds answer{10'000};  // from the request to the end of the answer
};
// Longer than a plugin waits that has this much time.
[[nodiscard]] Timings timings_for(std::chrono::milliseconds timeout);

// For metrics: one answered request.
struct Served {
  std::string_view command;  // "add", "del", "check", "gc", "status"; "invalid"
  std::uint32_t code = 0;    // 0 = ok, else the CNI error's
  double seconds = 0;
};

class Server {
 public:
  // `handler` outlives the server. `on_served` may be empty.
  Server(boost::asio::io_context& context, Handler& handler,
         std::function<void(const Served&)> on_served, const Timings& timings = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Errors: see sys/unix_server.h.
  [[nodiscard]] Result<void> listen(const std::string& path);
  // Closes everything and removes the socket's file. Later calls of `done` do nothing.
  void stop();

  [[nodiscard]] std::size_t connections() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sidetrack::cni
