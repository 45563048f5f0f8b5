// SPDX-License-Identifier: Apache-2.0
// Replays the corpus of a fuzzer, and mutations of it: what `make test` runs of each.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

void replay(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

std::vector<std::string> corpus() {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(ST_CORPUS)) {
    std::ifstream file(entry.path(), std::ios::binary);
    all.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return all;
}

TEST(ST_FUZZER, replays_its_corpus) {
  const auto inputs = corpus();
  EXPECT_GE(inputs.size(), 5U);
  for (const std::string& bytes : inputs) {
    replay(bytes);
  }
}

// Bytes changed, cut and joined at random from the corpus: reaches further than noise. The seed is
// fixed.
TEST(ST_FUZZER, survives_mutations) {
  std::mt19937 random(20241129);
  const auto inputs = corpus();
  for (const std::string& original : inputs) {
    for (int round = 0; round < 300; ++round) {
      std::string bytes = original + (round % 3 == 0 ? inputs[random() % inputs.size()] : "");
      for (int change = 0; !bytes.empty() && change < round % 4; ++change) {
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
      if (round % 2 == 0 && !bytes.empty()) {
        bytes.resize(random() % bytes.size() + 1);
      }
      replay(bytes);
    }
  }
}

}  // namespace
