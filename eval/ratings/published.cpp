#include "eval/ratings/published.h"

#include <array>

namespace qlora {

namespace {

constexpr PublishedRating kHuman[] = {
    {"gpt-4", 1176, 1176},    {"guanaco-65b", 1023, 1023}, {"guanaco-33b", 1009, 1009}, {"gpt-3.5", 916, 913},
    {"vicuna-13b", 984, 984}, {"guanaco-13b", 975, 975},   {"guanaco-7b", 1010, 1010},  {"bard", 909, 909}};
constexpr PublishedRating kGpt4[] = {
    {"gpt-4", 1348, 1348},    {"guanaco-65b", 1022, 1022}, {"guanaco-33b", 992, 992}, {"gpt-3.5", 966, 966},
    {"vicuna-13b", 974, 974}, {"guanaco-13b", 913, 916},   {"guanaco-7b", 879, 879},  {"bard", 902, 902}};
constexpr PublishedRating kOa[] = {{"gpt-4", 1294, 1294},       {"guanaco-65b", 1008, 1008},
                                   {"guanaco-33b", 1002, 1002}, {"gpt-3.5", 1015, 1015},
                                   {"vicuna-13b", 936, 936},    {"guanaco-13b", 885, 885},
                                   {"guanaco-7b", 860, 860}};

constexpr std::array<PublishedColumn, 3> kTable7 = {{{"Vicuna, human", "qlora-vicuna-human", kHuman},
                                                     {"Vicuna, GPT-4", "qlora-vicuna-gpt4", kGpt4},
                                                     {"OA, GPT-4", "qlora-oa-gpt4", kOa}}};

constexpr MedianRank kMedianRanks[] = {{"gpt-4", 1},      {"guanaco-65b", 2}, {"guanaco-33b", 4},
                                       {"gpt-3.5", 5},    {"vicuna-13b", 5},  {"guanaco-13b", 6},
                                       {"guanaco-7b", 7}, {"bard", 8}};

}  // namespace

std::span<const PublishedColumn> qlora_table_7() {
  return kTable7;
}

std::span<const MedianRank> qlora_median_ranks() {
  return kMedianRanks;
}

std::vector<ComparedCell> compare_column(std::span<const std::string> systems,
                                         const PublishedColumn* published, const RatingReport* ours) {
  std::vector<ComparedCell> cells;
  for (const std::string& system : systems) {
    ComparedCell& cell = cells.emplace_back();
    for (size_t i = 0; published != nullptr && i < published->ratings.size(); ++i) {
      if (published->ratings[i].system != system) continue;
      cell.printed = published->ratings[i].printed;
      cell.meant = published->ratings[i].meant;
    }
    for (size_t i = 0; ours != nullptr && i < ours->ratings.size(); ++i) {
      if (ours->ratings[i].system != system) continue;
      cell.ours = ours->ratings[i].rating;
      cell.our_rank = static_cast<int>(i) + 1;
    }
  }
  return cells;
}

}  // namespace qlora
