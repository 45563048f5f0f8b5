// SPDX-License-Identifier: Apache-2.0
// What real clients say of servers that fail: with the redirect the same as without, but for
// deviation 1.
#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <sstream>

#include "tests/e2e/pair.h"

namespace sidetrack::lab {
namespace {

// The servers are those of probe_server.py. A client's lines begin with the fault: "reset" (in
// mid-stream), "cut" (the end comes before all that was promised), "silent" (no byte comes, until
// the client's own patience ends), "refused".
struct Complaints {
  std::string client;
  std::vector<std::string> says;   // parts of what it says, in either pod
  std::string refused;             // part of each line of a refusal, not redirected
  std::string refused_redirected;  // all of such a line, as a regular expression
};

const std::vector<Complaints>& complaints() {
  static const std::vector<Complaints> kTable = {
      {"curl", {"reset 56 1000 ", "cut 18 1000 "}, "refused 7 0 ", "refused (7|55|56) 0 .*"},
      {"wget",
       {"reset 4 Read error at byte 1000/100000 (Connection reset by peer)",
        "cut 4 Connection closed at byte 1000"},
       "refused 4 failed: Connection refused",
       "refused 4 .*Connection reset by peer.*"},
      {"go",
       {"reset 1000 read tcp ME->", "connection reset by peer\ncut 1000 unexpected EOF"},
       "connect: connection refused",
       "refused 0 Get .*(connection reset by peer|broken pipe)"},
      {"java",
       {"reset java", "Connection reset\ncut java", "bytes received: 1000"},
       "refused java.net.ConnectException",
       "refused java.*"},
      {"node",
       {"reset http 1000 ECONNRESET", "reset net 1000 read ECONNRESET", "cut http 1000 ECONNRESET",
        "cut net 0 end"},
       "ECONNREFUSED",
       "refused (http|net) 0 .*ECONNRESET.*"},
      {"python",
       {"reset ConnectionResetError(104",
        "cut IncompleteRead(1000 bytes read, 99000 more expected)"},
       "refused ConnectionRefusedError(111",
       "refused ConnectionResetError\\(104.*"},
      {"asyncio",
       {"reset ConnectionResetError [Errno 104]", "cut IncompleteReadError 1043 bytes read"},
       "refused ConnectionRefusedError [Errno 111]",
       "refused ConnectionResetError \\[Errno 104\\].*"},
      {"redis",
       {"reset 1 Error: Connection reset by peer", "cut 1 Error: Server closed the connection"},
       "refused 1 Could not connect to Redis at",
       "refused 1 (Error|Could not connect to Redis at .*): Connection reset by peer.*"},
      {"psql",
       {"reset 2 server closed the connection unexpectedly",
        "cut 2 server closed the connection unexpectedly", "silent 2 psql: error: connection to",
        "failed: timeout expired"},
       "failed: Connection refused Is the server running on that host",
       "refused 2 psql: error: connection to server at .* failed: .*"
       "(Connection reset by peer|server closed the connection unexpectedly).*"},
      {"nghttp",
       {"reset 0 Some requests were not processed. total=1, processed=0",
        "cut 0 Some requests were not processed. total=1, processed=0",
        "silent 0 [ERROR] Timeout Some requests were not processed."},
       "refused 0 [ERROR] Could not connect to the address",
       "refused 0 (\\[ERROR\\] Could not connect to the address [^ ]+ )?"
       "Some requests were not processed. total=1, processed=0"},
      {"curl over HTTP/2",
       {"reset 56 curl: (56) Recv failure: Connection reset by peer", "cut 18 curl: (18) HTTP/2",
        "silent 28 0"},
       "refused 7 curl: (7) Failed to connect to",
       "refused (7|16|55|56) curl: .*"},
      {"smtp",
       {"reset SMTPServerDisconnected Connection unexpectedly closed: [Errno 104]",
        "cut SMTPServerDisconnected Connection unexpectedly closed\n",
        "silent SMTPServerDisconnected Connection unexpectedly closed: timed out"},
       "refused ConnectionRefusedError [Errno 111]",
       "refused (SMTPServerDisconnected Connection unexpectedly closed: |ConnectionResetError )"
       "\\[Errno 104\\].*"},
  };
  return kTable;
}

struct Said {
  std::string text;  // all but the lines of refusals, with ME for the client's address and port
  std::vector<std::string> refusals;
};

Said said(const CommandResult& result, const Pod& pod) {
  Said said;
  const std::regex own(std::regex_replace(pod.v4, std::regex("\\."), "\\.") + ":[0-9]+");
  std::istringstream lines(std::regex_replace(result.standard_output, own, "ME"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("refused ")) {
      said.refusals.push_back(line);
    } else {
      said.text += line + "\n";
    }
  }
  return said;
}

}  // namespace

void Pair::expect_same_complaints(const std::string& name, const Client& client) {
  const auto row = std::find_if(complaints().begin(), complaints().end(),
                                [&](const Complaints& each) { return each.client == name; });
  ASSERT_NE(row, complaints().end()) << name;
  const Outcomes outcomes = run_both(client);
  EXPECT_EQ(outcomes.direct.exit_status, 0) << outcomes.direct.output;
  EXPECT_EQ(outcomes.redirected.exit_status, 0) << outcomes.redirected.output;
  const Said direct = said(outcomes.direct, *plain_);
  const Said redirected = said(outcomes.redirected, *web_);
  EXPECT_EQ(direct.text, redirected.text);
  for (const std::string& part : row->says) {
    EXPECT_NE(direct.text.find(part), std::string::npos) << part << " in " << direct.text;
  }
  EXPECT_FALSE(direct.refusals.empty());
  EXPECT_EQ(direct.refusals.size(), redirected.refusals.size());
  for (const std::string& line : direct.refusals) {
    EXPECT_NE(line.find(row->refused), std::string::npos) << line;
  }
  for (const std::string& line : redirected.refusals) {
    EXPECT_TRUE(std::regex_match(line, std::regex(row->refused_redirected))) << line;
  }
}

}  // namespace sidetrack::lab
