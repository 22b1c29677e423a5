#pragma once
// One line of the benchmark's table, and the table.

#include <optional>
#include <string>
#include <vector>

#include "core/base/json.h"

namespace qlora::bench {

struct Row {
  std::string name;                  // begins with the measure: "nf4_gemm/forward/576x576/256/t1"
  std::string unit;                  // of ours and peer: "GFLOP/s", "tokens/s", "MiB"
  std::optional<double> ours, peer;  // medians; nothing: not measured, and `note` says why
  std::optional<double> ratio;       // ours / peer, pair by pair where they were measured in turn
  double spread = 0;                 // of the ratio, or of ours: (ninetieth percentile - tenth) / median
  std::optional<double> goal;        // for the ratio; nothing: reported only
  bool lower_is_better = false;
  int threads = 0;
  std::string against;  // what the peer is
  std::string note;     // why something is missing, and what else must be known

  // Nothing without a ratio or a goal.
  std::optional<bool> met() const;
};

// A row of rates that were measured in turn: work per second of seconds[0] (ours) and seconds[1] (peer).
Row paired_row(const std::string& name, const std::string& unit, double work,
               const std::vector<std::vector<double>>& seconds, int threads);
// A row of ours alone.
Row single_row(const std::string& name, const std::string& unit, double work,
               const std::vector<double>& seconds, int threads);
// A row that could not be measured.
Row missing_row(const std::string& name, const std::string& unit, int threads, const std::string& why);

// Something more to know; nothing where it is empty.
void add_note(Row&, const std::string&);

Json to_json(const Row&);
// Throws Error(data) naming `origin` when something is missing.
Row row_from_json(const Json&, const std::string& origin);
std::string render(const std::vector<Row>&);  // a table for people
std::string one_line(const Row&);             // as it is measured

}  // namespace qlora::bench
