#pragma once
// `qlora bench`: this program against what people would use instead, and against what the machine can do, as
// ratios within one run. Families of rows stand in files of their own; a family measures and emits, nothing
// else.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "experiments/bench/measure.h"
#include "experiments/bench/row.h"
#include "kernels/backend.h"
#include "kernels/cpu/peaks.h"

namespace qlora::bench {

struct Options {
  std::vector<std::string> rows = {};  // beginnings of row names; empty: all
  std::string backend = "auto";
  int threads = 0;     // the larger of the two thread counts; 0: two, which the goals are stated for
  bool quick = false;  // fewer shapes and rounds: a look, not a measurement
  bool full = false;   // mmlu/val, mmlu/test: all questions instead of a sample
  Path model = {};     // SmolLM2's folder; empty: below qlora_home()
  Path model_1b = {};  // a LLaMA of TinyLlama's shape, for the decode rows; empty: those are missing
  Path config = "experiments/configs/quickstart.yaml";
  Path peers = {};     // what scripts/bench.sh measured of other programs, JSON
  Path outcomes = {};  // where to write what rows computed, for who compares it with a peer's, JSON
};

// What other programs measured of themselves, by row: values in the row's unit, and, where this program was
// measured in turn with them, its own values beside each.
struct PeerValues {
  std::string name;
  std::vector<double> peer, ours;
  // Whether both came to the same; nothing: it cannot be told, and `compared` says why.
  std::optional<bool> agree;
  std::string compared;
};

class Bench {
 public:
  // `emitted` is called with every finished row.
  Bench(Options, std::function<void(const Row&)> emitted);

  const Options& options() const { return options_; }
  Backend& backend() { return *backend_; }
  Backend& oracle() { return *oracle_; }       // the plain loops: what a kernel is checked against
  bool has(const std::string& backend) const;  // available here
  std::vector<int> thread_counts() const;      // {1, most}
  int most_threads() const { return threads_; }
  // Of this moment's machine, with that many threads; measured once.
  const Peaks& peaks(int threads);
  // Whether the row is asked for; whether any row is whose name begins so.
  bool wants(const std::string& row) const;
  bool wants_any(const std::string& beginning) const;
  // A row with what the peers' file says of it, and on to the reader. Without a ratio where the two sides
  // have not come to the same: nobody is faster at something else.
  void emit(Row);
  // What a row computed, in the numbers that its peer's script compares; all of them by the rows' names.
  void outcome(const std::string& row, const Json& numbers);
  std::string outcomes_json() const;
  // Rounds and seconds for kernels, and for whole steps.
  Effort kernel_effort() const;
  Effort step_effort() const;
  // Null where no peer was measured for the row.
  const PeerValues* peer(const std::string& row) const;

  const std::vector<Row>& rows() const { return rows_; }

 private:
  Options options_;
  std::function<void(const Row&)> emitted_;
  std::unique_ptr<Backend> backend_, oracle_;
  int threads_ = 2;
  std::map<int, Peaks> peaks_;
  std::map<std::string, PeerValues> peers_;
  std::vector<Row> rows_;
  std::map<std::string, std::string> outcomes_;  // as JSON
};

// ---- the families, in the table's order
void gemm_rows(Bench&);           // nf4_gemm, dense_gemm
void small_row_rows(Bench&);      // small_row
void codec_rows(Bench&);          // dequantize, quantize
void decode_rows(Bench&);         // decode
void step_rows(Bench&);           // step, ragged, memory
void packed_rows(Bench&);         // packed
void quickstart_rows(Bench&);     // quickstart
void scaling_rows(Bench&);        // threads, useful_flops (packed_rows.cpp)
void scoring_rows(Bench&);        // mmlu/val, mmlu/test
void peer_question_rows(Bench&);  // mmlu/lm_eval, mmlu/prefix_loop
void elo_rows(Bench&);            // elo

// What the rows train on, as JSON for a peer: FOLDER/ragged.json, a list of {ids, labels}, and
// FOLDER/full.json, those of the step rows; FOLDER/quickstart.json, a list of runs with their settings and
// examples in order; and, where the original questions of MMLU are there, FOLDER/mmlu.json
// (peer_questions.h).
void export_examples(const Options&, const Path& folder);

// What a family took, its measuring processes included.
struct FamilyTime {
  std::string rows;                // "step, ragged, memory"
  double wall = 0, processor = 0;  // seconds
  std::optional<double> left;  // seconds of the families after it, about; nothing: not all rows are asked for
};
// All of them that have rows asked for; `finished` hears of each.
void run_all(Bench&, const std::function<void(const FamilyTime&)>& finished = {});
std::string one_line(const FamilyTime&);
// The report as JSON: the machine, its peaks, the rows.
Json report(Bench&);
std::string report_text(Bench&);
// Where scripts/get_smollm2.sh puts SmolLM2.
Path default_model();

}  // namespace qlora::bench
