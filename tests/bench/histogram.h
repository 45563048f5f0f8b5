// SPDX-License-Identifier: Apache-2.0
// Latencies in buckets whose width grows with the value: 32 per power of two. A quantile is off by
// 3 % at most, and by far less where many values share its bucket: they are taken to lie evenly.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace sidetrack::bench {

class Histogram {
 public:
  void add(std::int64_t value_ns) {
    ++buckets_[index_of(value_ns > 0 ? static_cast<std::uint64_t>(value_ns) : 0)];
    ++count_;
  }

  // The value below which `share` (0 to 1) of all are, in ns.
  [[nodiscard]] double quantile_ns(double share) const {
    const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      if (seen + buckets_[i] > wanted) {
        const auto low = static_cast<double>(lower_bound_of(i));
        const double width = static_cast<double>(lower_bound_of(i + 1)) - low;
        return low + width * (static_cast<double>(wanted - seen) + 0.5) /
                         static_cast<double>(buckets_[i]);
      }
      seen += buckets_[i];
    }
    return 0;
  }

 private:
  static constexpr unsigned kBits = 5;  // 32 buckets per power of two

  static std::size_t index_of(std::uint64_t value) {
    if (value < (1U << kBits)) {
      return value;
    }
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - kBits - 1;
    return (static_cast<std::size_t>(shift) << kBits) + (value >> shift);
  }
  static std::uint64_t lower_bound_of(std::size_t index) {
    if (index < (1U << kBits)) {
      return index;
    }
    const auto shift = (index >> kBits) - 1;
    return static_cast<std::uint64_t>(index - (shift << kBits)) << shift;
  }

  std::array<std::uint64_t, 64U << kBits> buckets_{};
  std::uint64_t count_ = 0;
};

}  // namespace sidetrack::bench
