#pragma once
// Table 7 of the QLoRA paper beside what its judgments give.

#include <string>
#include <vector>

#include "core/base/json.h"
#include "eval/ratings/published.h"

namespace qlora {

struct Table7Spec {
  std::string preset = "qlora";              // all columns, or the one that this preset rates
  std::vector<std::string> human, gpt4, oa;  // judgment files; empty: the preset's counts, where it has them
  int64_t orders = 10'000, seed = 0;
};

struct Table7Column {
  PublishedColumn published;
  std::vector<ComparedCell> cells;  // for the systems of qlora_median_ranks()
  std::string missing;              // why there is nothing of ours
};

struct Table7 {
  std::vector<Table7Column> columns;
  int64_t orders = 0;
};

// Throws Error(usage) for an unknown preset, and like Tournament.
Table7 compute_table_7(const Table7Spec&);

std::string render_text(const Table7&);
Json to_json(const Table7&);

}  // namespace qlora
