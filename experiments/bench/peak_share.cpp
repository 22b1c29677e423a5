#include "experiments/bench/peak_share.h"

#include "core/base/check.h"
#include "experiments/bench/operands.h"

namespace qlora::bench {
namespace {

void hold_to(Row& row, double peak, const std::string& name) {
  row.against = name;
  if (peak == 0) return;
  row.peer = peak * 1e-9;
  row.ratio = *row.ours / *row.peer;
}

}  // namespace

std::vector<Row> shares_of_peak(Row row, const Peaks& peaks, Operands operands, double goal) {
  std::vector<Row> rows(operands == Operands::bf16_amx ? 2 : 1, row);
  Row& of_goal = rows[0];
  of_goal.goal = goal;
  if (!is_bf16(operands)) {
    hold_to(of_goal, peaks.f32, name_of_peak(peaks, operands));
    add_note(of_goal, "the goal is stated for bf16, which is not on this processor or backend");
    return rows;
  }
  hold_to(of_goal, peak_of(peaks, Operands::bf16), name_of_peak(peaks, Operands::bf16));
  if (operands == Operands::bf16) return rows;
  of_goal.against = "the multiply-adds' " + of_goal.against;
  add_note(of_goal,
           fmt::format("{}; the goal was set for the peak of multiply-adds, {:.0f} GFLOP/s; that of the "
                       "tiles, {:.0f}, has a row of its own",
                       note_of(operands), peak_of(peaks, Operands::bf16) * 1e-9, peaks.amx * 1e-9));
  Row& of_tiles = rows[1];
  of_tiles.name += "/of_tiles";
  hold_to(of_tiles, peak_of(peaks, operands), name_of_peak(peaks, operands));
  add_note(of_tiles, note_of(operands) + "; reported: no goal was set for the tiles' peak");
  return rows;
}

}  // namespace qlora::bench
