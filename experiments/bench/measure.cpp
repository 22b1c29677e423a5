#include "experiments/bench/measure.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>

#include "core/base/parallel.h"

namespace qlora::bench {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double fair_seconds() {
  if (thread_count() > 1) return now_seconds();
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const double place = fraction * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double rest = place - static_cast<double>(below);
  return below + 1 < values.size() ? values[below] * (1 - rest) + values[below + 1] * rest : values[below];
}

double median(const std::vector<double>& values) {
  return quantile(values, 0.5);
}

double spread(const std::vector<double>& values) {
  return (quantile(values, 0.9) - quantile(values, 0.1)) / median(values);
}

std::vector<double> time_of(const std::function<void()>& body, const Effort& effort) {
  return time_in_turn({body}, effort, 0)[0];
}

std::vector<std::vector<double>> time_in_turn(const std::vector<std::function<void()>>& things,
                                              const Effort& effort, double pause, double (*clock)()) {
  std::vector<std::vector<double>> seconds(things.size());
  const auto round = [&] {
    for (size_t i = 0; i < things.size(); ++i) {
      if (pause > 0) std::this_thread::sleep_for(std::chrono::duration<double>(pause));
      const double before = clock();
      things[i]();
      seconds[i].push_back(clock() - before);
    }
  };
  double begin = now_seconds();
  if (effort.warm) {
    round();
    if (now_seconds() - begin > effort.limit) return seconds;
    for (auto& of_thing : seconds) of_thing.clear();
    begin = now_seconds();
  }
  for (int rounds = 0; rounds < effort.most; ++rounds) {
    const double passed = now_seconds() - begin;
    if (rounds > 0 && (passed > effort.limit || (rounds >= effort.least && passed > effort.seconds))) break;
    round();
  }
  return seconds;
}

std::vector<double> quotients(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> out;
  for (size_t i = 0; i < a.size(); ++i) out.push_back(a[i] / b[i]);
  return out;
}

}  // namespace qlora::bench
