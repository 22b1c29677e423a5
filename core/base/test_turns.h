#pragma once
// For tests that are too slow to run whole every time: they take a part of their cases a day, in turns, so
// that in a few days all have run.

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

namespace qlora::test {

// Whose turn it is: QLORA_CASES_TURN, or the days since 1970; a test with n parts takes it modulo n. Printed
// as the setting that runs the same cases again.
inline size_t turn() {
  const char* chosen = std::getenv("QLORA_CASES_TURN");
  const size_t turn =
      chosen != nullptr ? std::stoul(chosen) : static_cast<size_t>(std::time(nullptr) / 86400);
  std::printf("QLORA_CASES_TURN=%zu\n", turn);
  return turn;
}

}  // namespace qlora::test
