#include "experiments/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "experiments/plan.h"

namespace qlora {
namespace {

constexpr double kRedraw = 0.2;  // seconds

bool is_terminal(std::FILE* out) {
  const char* kind = std::getenv("TERM");
  return ::isatty(::fileno(out)) != 0 && kind != nullptr && std::strcmp(kind, "dumb") != 0;
}

size_t width_of(std::FILE* out) {
  struct winsize size {};
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80;
}

std::string shown(double score, int digits) {
  return std::isfinite(score) ? fmt::format("{:.{}f}", score, digits) : "n/a";
}

}  // namespace

std::string format_seconds(double seconds) {
  auto all = static_cast<int64_t>(seconds + 0.5);
  if (all >= 3600) return fmt::format("{}:{:02}:{:02}", all / 3600, all / 60 % 60, all % 60);
  return fmt::format("{}:{:02}", all / 60, all % 60);
}

Progress::Progress(std::FILE* out, bool quiet, double every)
    : out_(out), quiet_(quiet), terminal_(is_terminal(out)), every_(every) {}
Progress::~Progress() {
  clear();
}

void Progress::clear() {
  if (drawn_) std::fputs("\r\033[K", out_);
  drawn_ = false;
  std::fflush(out_);
}

void Progress::note(const std::string& text) {
  clear();
  std::fputs((text + "\n").c_str(), out_);  // a terminal that is gone stops nothing
  std::fflush(out_);
}

void Progress::note_once(const std::string& text) {
  if (noted_.insert(text).second) note(text);
}

void Progress::begin(int64_t runs, int64_t steps) {
  runs_.clear();
  scores_.clear();
  runs_expected_ = runs;
  steps_ = steps;
  steps_done_ = tokens_ = 0;
  begin_ = Clock::now();
  if (steps > 0 && !quiet_)
    note(fmt::format("training {} run{}, {} steps in all", runs, runs == 1 ? "" : "s", steps));
}

void Progress::started(int64_t before) {
  steps_ -= before;
  begin_ = Clock::now();
}

void Progress::step(const std::string& run, int64_t step, int64_t max_steps, double loss, int64_t tokens,
                    size_t memory) {
  auto same = [&](const auto& known) { return known.first == run; };
  auto at = std::find_if(runs_.begin(), runs_.end(), same);
  if (at == runs_.end()) at = runs_.insert(runs_.end(), {run, {}});
  at->second = {step, max_steps, loss};
  ++steps_done_;
  tokens_ += tokens;
  memory_ = memory;
  // The runs of a pack report one after another; a line in between would show half a step.
  bool whole = static_cast<int64_t>(runs_.size()) == runs_expected_ && is_last_active(run);
  if (terminal_ || whole || steps_done_ == steps_) show(training_line(), steps_done_ == steps_);
}

void Progress::scored(const std::string& run, const std::string& task, int64_t step, double score) {
  std::vector<Score>& of_task = scores_[task];
  auto at = std::find_if(of_task.begin(), of_task.end(), [&](const Score& s) { return s.run == run; });
  if (at == of_task.end()) at = of_task.insert(at, {run, 0, 0});
  at->step = step;
  at->value = score;
  if (!quiet_) note(fmt::format("{}: step {}: {} {}", run, step, task, shown(score, 4)));
}

void Progress::phase(const std::string& what, int64_t done, int64_t all) {
  const bool ends = all > 0 && done >= all && what == unfinished_;
  if (show(all > 0 ? fmt::format("{} {}/{}", what, done, all) : what, ends))
    unfinished_ = done < all ? what : "";
}

// Runs of a pack report in one order; those that have reached their end report no more.
bool Progress::is_last_active(const std::string& run) const {
  auto later = std::find_if(runs_.rbegin(), runs_.rend(), [&](const auto& known) {
    return known.first == run || known.second.step < known.second.max_steps;
  });
  return later != runs_.rend() && later->first == run;
}

// "  mmlu 0.271 0.264 (step 187)"
std::string Progress::scores_text() const {
  std::string text;
  for (const auto& [task, of_task] : scores_) {
    text += "  " + task;
    int64_t least = INT64_MAX, most = 0;
    for (const Score& score : of_task) {
      text += " " + shown(score.value, 3);
      least = std::min(least, score.step);
      most = std::max(most, score.step);
    }
    text += least == most ? fmt::format(" (step {})", most) : fmt::format(" (steps {}-{})", least, most);
  }
  return text;
}

std::string Progress::training_line() const {
  std::string losses;
  int64_t least = INT64_MAX, most = 0, goal = 0;
  for (const auto& [name, curve] : runs_) {
    losses += fmt::format(" {:.3f}", curve.loss);
    least = std::min(least, curve.step);
    most = std::max(most, curve.step);
    goal = std::max(goal, curve.max_steps);
  }
  double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  double left = seconds * static_cast<double>(steps_ - steps_done_) /
                static_cast<double>(std::max<int64_t>(1, steps_done_));
  std::string at = least == most ? fmt::format("{}", most) : fmt::format("{}-{}", least, most);
  return fmt::format("step {}/{}  loss{}{}  {:.0f} tokens/s  ETA {}  {}", at, goal, losses, scores_text(),
                     static_cast<double>(tokens_) / std::max(seconds, 1e-3), format_seconds(left),
                     format_bytes(memory_));
}

// Whether it was time to.
bool Progress::show(const std::string& line, bool final_state) {
  if (quiet_) return false;
  double since = std::chrono::duration<double>(Clock::now() - shown_).count();
  if (!final_state && since < (terminal_ ? kRedraw : every_)) return false;
  shown_ = Clock::now();
  if (terminal_) {
    std::fputs(("\r\033[K" + line.substr(0, width_of(out_) - 1)).c_str(), out_);
    drawn_ = true;
  } else {
    std::fputs((line + "\n").c_str(), out_);
  }
  std::fflush(out_);
  return true;
}

}  // namespace qlora
