#pragma once
// What the QLoRA paper (Dettmers et al. 2023) printed in Table 7, to set beside what its files give.

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/ratings/report.h"

namespace qlora {

struct PublishedRating {
  std::string_view system;
  int printed = 0;
  // Differs from `printed` in two cells, which the paper's table holds in each other's place: 913 stands
  // under Guanaco-13B, GPT-4 and 916 under ChatGPT, human. Table 1 prints 916 for Guanaco-13B; exchanged,
  // both columns sum to the 7,999 of eight ratings about 1000.
  int meant = 0;
};

struct PublishedColumn {
  std::string_view heading;  // "Vicuna, human"
  std::string_view preset;   // that rates its matches
  std::span<const PublishedRating> ratings;
};

std::span<const PublishedColumn> qlora_table_7();
// The table's systems in its order, with the median rank that it prints.
struct MedianRank {
  std::string_view system;
  int printed = 0;
};
std::span<const MedianRank> qlora_median_ranks();

// One cell of such a table, ours beside the paper's.
struct ComparedCell {
  std::optional<int> printed, meant;  // none: the system is not in the column
  std::optional<double> ours;         // none: not computed
  std::optional<int> our_rank;
  bool transposed() const { return printed != meant; }
};
// The cells of a column for these systems, in their order. Either may be null: no figures in print, none of
// ours.
std::vector<ComparedCell> compare_column(std::span<const std::string> systems, const PublishedColumn*,
                                         const RatingReport* ours);

}  // namespace qlora
