#pragma once
// What people see while a sweep runs: on a terminal one line that is redrawn, elsewhere a plain line now and
// then.

#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace qlora {

inline constexpr double kPlainLineSeconds = 10;

class Progress {
 public:
  // `every`: seconds between two plain lines when `out` is no terminal. `quiet`: notes only.
  Progress(std::FILE* out, bool quiet, double every);
  ~Progress();

  // A line of its own, above the progress line.
  void note(const std::string& text);
  // The same, unless this very text has been noted so before: several workers of a sweep find the same
  // trouble.
  void note_once(const std::string& text);
  // Training of a pack begins: steps to do in all, over all runs.
  void begin(int64_t runs, int64_t steps);
  // A run is about to train, `before` of its steps done by an earlier process: speed and ETA count from here.
  void started(int64_t before);
  void step(const std::string& run, int64_t step, int64_t max_steps, double loss, int64_t tokens,
            size_t memory);
  // A run was scored at a step on its way: a line of its own, and on the lines of training from now on.
  void scored(const std::string& run, const std::string& task, int64_t step, double score);
  // Something that is not training; `all` 0 = unknown. What was shown before its end is shown at its end.
  void phase(const std::string& what, int64_t done, int64_t all);
  void clear();

 private:
  struct Curve {
    int64_t step = 0, max_steps = 0;
    double loss = 0;
  };
  struct Score {
    std::string run;
    int64_t step = 0;
    double value = 0;
  };
  using Clock = std::chrono::steady_clock;
  bool show(const std::string& line, bool final_state);
  std::string training_line() const;
  std::string scores_text() const;
  bool is_last_active(const std::string& run) const;

  std::FILE* out_;
  std::set<std::string> noted_;
  std::string unfinished_;  // what the last line of a phase is about, unless that was its end
  bool quiet_, terminal_, drawn_ = false;
  double every_;
  std::vector<std::pair<std::string, Curve>> runs_;   // in the order of their first reports, which stays
  std::map<std::string, std::vector<Score>> scores_;  // by task, the newest of each run
  int64_t runs_expected_ = 0, steps_ = 0, steps_done_ = 0, tokens_ = 0;
  size_t memory_ = 0;
  Clock::time_point begin_ = Clock::now(), shown_ = {};
};

std::string format_seconds(double);  // "1:23", "2:03:04"

}  // namespace qlora
