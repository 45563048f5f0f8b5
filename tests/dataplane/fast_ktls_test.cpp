// SPDX-License-Identifier: Apache-2.0
// late: kTLS on a connection that skips TCP already. What is sent from then on is encrypted, and
// goes by TCP.
#include <fmt/format.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>

#include <nlohmann/json.hpp>

#include "tests/dataplane/fast_scenarios.h"
#include "tests/dataplane/kernel_view.h"
#include "tests/dataplane/shared_fast_node.h"

namespace sidetrack::lab {
namespace {

constexpr std::size_t kRecordBytes = 5 + 8 + 6 + 16;  // header, nonce, "secret", tag

// The errno's name, "" = it has kTLS now.
std::string add_tls(const UniqueFd& fd) {
  return ::setsockopt(fd.get(), IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0
             ? ""
             : ::strerrorname_np(errno);
}

// `direction`: TLS_TX, TLS_RX. The same key for all.
void set_key(const UniqueFd& fd, int direction) {
  tls12_crypto_info_aes_gcm_128 key{};
  key.info.version = TLS_1_2_VERSION;
  key.info.cipher_type = TLS_CIPHER_AES_GCM_128;
  std::memset(key.key, 'k', sizeof(key.key));
  std::memset(key.iv, 'i', sizeof(key.iv));
  std::memset(key.salt, 's', sizeof(key.salt));
  EXPECT_EQ(::setsockopt(fd.get(), SOL_TLS, direction, &key, sizeof(key)), 0)
      << ::strerrorname_np(errno);
}

class FastKtls : public SharedFastNode {
 protected:
  void SetUp() override {
    SharedFastNode::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    const Ends plain = open(false);
    if (const std::string refused = add_tls(plain.client); !refused.empty()) {
      GTEST_SKIP() << "no kTLS on this kernel: " << refused;
    }
  }
  using Act = std::string (*)(Ends&);
  // The same on plain TCP, and on a connection past TCP, where `refused` messages then stay on it.
  void expect_same_by_tcp(Act act, std::uint64_t refused) {
    Ends slow = open(false);
    const std::string expected = act(slow);
    Ends fast = open_fast();
    const std::uint64_t before = counted();
    EXPECT_EQ(act(fast), expected);
    EXPECT_GE(counted(), before + refused);
  }

  // Sockets and messages that stayed on TCP for it, as the agent and the kernel count.
  [[nodiscard]] std::uint64_t shown() const {
    const auto status = sidetrack_->get("/v1/status");
    return status ? status->value("/fast_path_refused/fp_ulp"_json_pointer, std::uint64_t{0}) : 0;
  }

 private:
  [[nodiscard]] std::uint64_t counted() const {
    const auto counts = KernelView(sidetrack_->pin_dir()).fast_counts();
    EXPECT_TRUE(counts.has_value()) << counts.error().message;
    const auto found = counts ? counts->refused.find("fp_ulp") : decltype(counts->refused.end()){};
    return counts && found != counts->refused.end() ? found->second : 0;
  }
};

// Whoever reads the queue sees a record, and no word of the text.
TEST_F(FastKtls, a_sender_that_gets_a_key_late_sends_records) {
  expect_same_by_tcp(
      [](Ends& ends) {
        EXPECT_EQ(add_tls(ends.client), "");
        set_key(ends.client, TLS_TX);
        EXPECT_EQ(send_text(ends.client, "secret"), "sent");
        std::string record = scenarios::receive_all(ends.server, kRecordBytes);
        EXPECT_EQ(record.find("secret"), std::string::npos);
        EXPECT_EQ(record.size(), kRecordBytes);
        EXPECT_EQ(record.at(0), 0x17) << "no application data";
        return record;
      },
      1);
}

TEST_F(FastKtls, a_reader_that_gets_a_key_late_reads_the_text) {
  expect_same_by_tcp(
      [](Ends& ends) {
        EXPECT_EQ(add_tls(ends.server), "");
        set_key(ends.server, TLS_RX);
        EXPECT_EQ(add_tls(ends.client), "");
        set_key(ends.client, TLS_TX);
        EXPECT_EQ(send_text(ends.client, "secret"), "sent");
        return receive_text(ends.server, 99);
      },
      1);
}

// Before anybody has looked at the socket.
TEST_F(FastKtls, a_socket_that_has_it_from_the_start_stays_on_tcp) {
  for (const bool client : {true, false}) {
    const std::uint64_t before = shown();
    Ends ends = open(true);
    EXPECT_EQ(add_tls(client ? ends.client : ends.server), "");
    use(ends);
    EXPECT_TRUE(eventually(kPatience, [&] { return shown() > before; })) << sidetrack_->logs();
    { const Ends control = open_fast(); }
    const std::uint64_t by_tcp = sent_by_tcp(ends.client) + sent_by_tcp(ends.server);
    use(ends);
    EXPECT_EQ(sent_by_tcp(ends.client) + sent_by_tcp(ends.server) - by_tcp, 16U);
    EXPECT_FALSE(adopted(ends.client) || adopted(ends.server));
  }
}

// The reader alone has it, and no key: what comes is plain.
TEST_F(FastKtls, a_reader_without_a_key_is_sent_to_by_tcp) {
  expect_same_by_tcp(
      [](Ends& ends) {
        EXPECT_EQ(add_tls(ends.server), "");
        EXPECT_EQ(send_text(ends.client, "plain"), "sent");
        return receive_text(ends.server, 99);
      },
      1);
}

}  // namespace
}  // namespace sidetrack::lab
