// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void replay(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

std::string framed(const std::string& body) {
  std::string out{'\0', '\0'};
  out.push_back(static_cast<char>((body.size() >> 8U) & 0xffU));
  out.push_back(static_cast<char>(body.size() & 0xffU));
  return out + body;
}

TEST(WireCorpus, replays_without_a_crash) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ST_WIRE_CORPUS)) {
    SCOPED_TRACE(entry.path());
    replay(read_file(entry.path()));
    replay(framed(read_file(entry.path())));
    ++files;
  }
  EXPECT_GE(files, 10U);
}

// Bytes changed, cut and doubled at random from real messages: reaches further than noise. The seed
// is fixed.
TEST(WireCorpus, survives_mutations) {
  std::mt19937 random(20240607);
  for (const auto& entry : std::filesystem::directory_iterator(ST_WIRE_CORPUS)) {
    const std::string original = framed(read_file(entry.path()));
    for (int round = 0; round < 300; ++round) {
      std::string bytes = original + (round % 3 == 0 ? original : "");
      for (int change = 0; change < 1 + round % 5; ++change) {
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
      bytes.resize(1 + random() % bytes.size());
      replay(bytes);
      replay(bytes.substr(bytes.size() < 4 ? 0 : 4));
    }
  }
}

}  // namespace
