#pragma once
// Table 7 of the QLoRA paper, and tables of its form: Elo ratings of systems, a column for each judge and set
// of prompts, the paper's figures beside ours.

#include <optional>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "eval/judge/judgments.h"
#include "eval/ratings/published.h"

namespace qlora {

// Either the columns of a published table, of its counts, of files by column, or of `votes`; or, without a
// preset, one column for each judge of `votes`, and two for a judge of both questions and Open Assistant's
// messages. A column of a published judge that has all its systems is rated with its settings.
struct Table7Spec {
  std::string preset;                        // qlora: all columns; or one column's preset
  std::vector<std::string> human, gpt4, oa;  // judgment files of a column; empty: the preset's counts
  std::optional<std::vector<JudgmentFile>> votes;
  std::vector<std::string> systems;  // only matches between these; empty: the preset's, else all
  std::string only_by;               // only votes by this judge
  std::string rule;                  // each | majority; empty: the column's own, else each
  int64_t orders = 10'000, seed = 0;
};

struct Table7Column {
  std::string heading;
  const PublishedColumn* published = nullptr;  // null: not in print
  std::vector<ComparedCell> cells;             // one a system of the table
  std::string missing;                         // why there is nothing of ours
  std::string note;                            // what a reader must know; may be empty
};

struct Table7 {
  std::vector<std::string> systems;
  std::vector<Table7Column> columns;
  bool whole = false;  // all columns that were published: it has the paper's median ranks
  int64_t orders = 0;
};

// Throws Error(usage) for an unknown preset, judge or system; Error(data) when no vote has a place in the
// table; and like Tournament.
Table7 compute_table_7(const Table7Spec&);

std::string render_text(const Table7&);
Json to_json(const Table7&);

}  // namespace qlora
