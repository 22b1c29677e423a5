#pragma once
// For tests: the orders in which threads may run.

#include <catch2/catch.hpp>

#include "kernels/cuda/emulated/grid.h"

namespace qlora::emulated::test {

inline constexpr Schedule kSchedules[] = {{.order = Order::forward},
                                          {.order = Order::reverse},
                                          {.order = Order::random, .seed = 1},
                                          {.order = Order::random, .seed = 2}};

// Puts the schedule back that was there.
class Scheduled {
 public:
  explicit Scheduled(Schedule s) : before_(schedule()) { set_schedule(s); }
  ~Scheduled() { set_schedule(before_); }
  Scheduled(const Scheduled&) = delete;
  Scheduled& operator=(const Scheduled&) = delete;

 private:
  Schedule before_;
};

template <class Body>
void for_every_schedule(Body&& body) {
  for (const Schedule& s : kSchedules) {
    INFO("order " << static_cast<int>(s.order) << ", seed " << s.seed);
    Scheduled scheduled(s);
    body();
  }
}

}  // namespace qlora::emulated::test
