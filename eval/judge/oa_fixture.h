#pragma once
// For tests only: judgment files in the layout of the release's Open Assistant tournament, which are too
// large to come along: seven systems, 42 ordered pairs, 953 items known by message_id, a few answers of the
// judge that cannot be read.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/philox.h"

namespace qlora::test {

struct OaFixture {
  static constexpr int kItems = 953;
  static constexpr double kUnparsed = 0.037;
  struct System {
    const char* file_name;
    const char* alias;
    double strength;  // log odds against a system of strength 0
  };
  // Best first.
  static constexpr std::array<System, 7> kSystems = {{
      {"gpt-4-oa-generations", "gpt-4", 1.7},
      {"gpt-3.5-oa-generations", "gpt-3.5", 0.6},
      {"65b-guanaco-oa-generations-topp0.9-temp0.7", "guanaco-65b", 0.3},
      {"30b-guanaco-oa-generations-topp0.9-temp0.7", "guanaco-33b", 0.0},
      {"vicuna-13b-oa-generations", "vicuna-13b", -0.4},
      {"13b-guanaco-oa-generations-topp0.9-temp0.7", "guanaco-13b", -0.8},
      {"7b-guanaco-oa-generations-topp0.9-temp0.7", "guanaco-7b", -1.2},
  }};
  int64_t rows = 0, unparsed = 0, recoverable = 0;

  // Writes the 42 files.
  explicit OaFixture(const Path& folder) {
    for (size_t first = 0; first < kSystems.size(); ++first)
      for (size_t second = 0; second < kSystems.size(); ++second)
        if (first != second) write_pair(folder, first, second);
  }

 private:
  static std::string message_id(int item) {
    return fmt::format("{:08x}-5b1c-4e1f-8a3d-{:012x}", 0x9e3779b9u * static_cast<uint32_t>(item + 1), item);
  }

  void write_pair(const Path& folder, size_t first, size_t second) {
    std::string text;
    PhiloxStream random(mix_seed(7, first * kSystems.size() + second));
    for (int item = 0; item < kItems; ++item) {
      // The first shown has an advantage of 0.3; a band around even is called a tie.
      double odds = kSystems[first].strength - kSystems[second].strength + 0.3;
      double win = 1 / (1 + std::exp(-odds)), draw = random.uniform();
      int score = draw < 0.86 * win ? 1 : draw < 0.86 * win + 0.14 ? 3 : 2;
      std::string words = fmt::format("Both answer.\\n\\n{}", score);
      ++rows;
      if (random.uniform() < kUnparsed) {
        ++unparsed;
        bool readable = random.uniform() < 0.9F;
        recoverable += readable;
        words = readable ? fmt::format("Both answer. I choose option {}.", score) : "Both answer.";
        score = -1;
      }
      text += fmt::format(
          "{{\"review_id\": \"r{}-{}-{}\", \"message_id\": \"{}\", \"answer1_id\": \"{}{}\", \"answer2_id\": "
          "\"{}{}\", \"reviewer_id\": 1, \"metadata\": {{}}, \"text\": \"{}\", \"score\": {}}}\n",
          first, second, item, message_id(item), first, item, second, item, words, score);
    }
    write_file(folder / fmt::format("{}-vs-{}-gpt-4-reviewer-threeclass.jsonl", kSystems[first].file_name,
                                    kSystems[second].file_name),
               text);
  }
};

}  // namespace qlora::test
