#pragma once
// How the benchmark measures: two things in turn (A B A B ...), because a machine's speed drifts and a
// neighbour's load comes and goes; medians, because single times lie; and the ratio pair by pair.

#include <functional>
#include <vector>

namespace qlora::bench {

double now_seconds();
// While one thread is used: the processor's seconds, which a neighbour's load cannot stretch; else the
// wall's.
double fair_seconds();

// Sorted copy's value at a fraction in [0, 1]; REQUIRES: not empty.
double quantile(std::vector<double> values, double fraction);
double median(const std::vector<double>& values);
// (ninetieth percentile - tenth) / median: how much the values scatter; 0 for a single one.
double spread(const std::vector<double>& values);

struct Effort {
  int least = 3;         // rounds at least
  int most = 50;         // and at most
  double seconds = 0.2;  // enough once that many have passed
  double limit = 1e9;    // no further round after so many, whatever `least` says: long rounds scatter less
  bool warm = true;      // a round before that is not counted, unless it takes longer than `limit`
};

// Seconds of `body`, once to warm up (unless told not to) and then again and again.
std::vector<double> time_of(const std::function<void()>& body, const Effort&);

// Seconds of several things, round by round: [thing][round]; fair ones, or the wall's for things that change
// the number of threads. Between two things all threads rest for
// `pause` seconds, so that the threads of one library do not spin through the other's time.
std::vector<std::vector<double>> time_in_turn(const std::vector<std::function<void()>>& things, const Effort&,
                                              double pause, double (*clock)() = fair_seconds);

// Quotients a[i] / b[i]. REQUIRES: equal sizes.
std::vector<double> quotients(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace qlora::bench
