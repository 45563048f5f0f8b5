// SPDX-License-Identifier: Apache-2.0
// Bytes that both ends can make and check: Pattern gives the byte stream of a seed, Digest a
// fingerprint (CRC-64) of what went by, in order. Used by st_pod_shell, st_echo and tests. Thread
// rule: plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <boost/crc.hpp>

namespace sidetrack::lab {

class Pattern {
 public:
  explicit Pattern(std::uint64_t seed) : seed_(seed) {}

  // The next buffer.size() bytes of the stream.
  void fill(std::span<char> buffer) {
    for (char& byte : buffer) {
      byte = static_cast<char>(word(position_ / 8) >> (8 * (position_ % 8)));
      ++position_;
    }
  }

 private:
  // The output function of splitmix64; the last word is kept, for it serves eight bytes.
  std::uint64_t word(std::uint64_t index) {
    if (index != cached_index_) {
      cached_index_ = index;
      std::uint64_t z = seed_ + (index + 1) * 0x9e3779b97f4a7c15U;
      z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
      z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
      cached_word_ = z ^ (z >> 31U);
    }
    return cached_word_;
  }

  std::uint64_t seed_;
  std::uint64_t position_ = 0;
  std::uint64_t cached_index_ = ~std::uint64_t{0};
  std::uint64_t cached_word_ = 0;
};

class Digest {
 public:
  void add(std::span<const char> bytes) {
    crc_.process_bytes(bytes.data(), bytes.size());
    length_ += bytes.size();
  }
  [[nodiscard]] std::uint64_t length() const { return length_; }
  // 16 hexadecimal digits.
  [[nodiscard]] std::string hex() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text(16, '0');
    std::uint64_t value = crc_.checksum();
    for (std::size_t i = 16; i-- > 0; value >>= 4U) {
      text[i] = kDigits[value & 15U];
    }
    return text;
  }

 private:
  boost::crc_optimal<64, 0x42F0E1EBA9EA3693, ~std::uint64_t{0}, ~std::uint64_t{0}, true, true> crc_;
  std::uint64_t length_ = 0;
};

// The digest of the first `length` bytes of the stream of `seed`.
[[nodiscard]] inline std::string pattern_digest(std::uint64_t seed, std::uint64_t length) {
  Pattern pattern(seed);
  Digest digest;
  char buffer[4096];
  while (digest.length() < length) {
    const std::uint64_t left = length - digest.length();
    const std::span<char> part(
        buffer, left < sizeof(buffer) ? static_cast<std::size_t>(left) : sizeof(buffer));
    pattern.fill(part);
    digest.add(part);
  }
  return digest.hex();
}

}  // namespace sidetrack::lab
