#include <catch2/catch.hpp>

#include "core/base/file.h"
#include "core/base/test_data.h"
#include "experiments/terminal.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

// What a Progress writes to a file, which is no terminal.
template <class Body>
std::string written(bool quiet, Body body, double every = 0) {
  test::TemporaryFolder folder;
  std::FILE* file = std::fopen((folder.path() / "out").c_str(), "w");
  {
    Progress progress(file, quiet, every);
    body(progress);
  }
  std::fclose(file);
  return read_file(folder.path() / "out");
}

void two_runs(Progress& progress) {
  progress.begin(2, 6);
  progress.started(0);
  for (int64_t step = 1; step <= 3; ++step)
    for (const char* run : {"b", "a"})
      progress.step(run, step, 3, step == 3 ? 0.5 : 2.25, 100, size_t{812} << 20);
}

}  // namespace

TEST_CASE("progress into a file is plain lines of whole steps") {
  std::string text = written(false, two_runs);
  CHECK_THAT(text, Contains("training 2 runs, 6 steps in all\n") &&
                       Contains("step 1/3  loss 2.250 2.250  ") && Contains("step 3/3  loss 0.500 0.500") &&
                       Contains("ETA 0:00  812 MiB\n"));
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find('\033') == std::string::npos);
  CHECK(text.find("step 1-2") == std::string::npos);
}

TEST_CASE("a run that has reached its end does not silence the others") {
  std::string text = written(false, [](Progress& progress) {
    progress.begin(2, 4);
    progress.step("b", 1, 3, 1, 10, 0);
    progress.step("a", 1, 1, 1, 10, 0);
    progress.step("b", 2, 3, 1, 10, 0);
  });
  CHECK_THAT(text, Contains("step 1-2/3"));
}

TEST_CASE("scores of runs on their way are noted and stay on the lines of training") {
  std::string text = written(false, [](Progress& progress) {
    progress.begin(2, 4);
    progress.scored("b", "mmlu", 1, 0.25);
    progress.scored("a", "mmlu", 1, 0.3125);
    progress.step("b", 1, 2, 1, 10, 0);
    progress.step("a", 1, 2, 1, 10, 0);
    progress.scored("a", "mmlu", 2, 0.5);
    progress.step("b", 2, 2, 1, 10, 0);
    progress.step("a", 2, 2, 1, 10, 0);
  });
  CHECK_THAT(text, Contains("b: step 1: mmlu 0.2500\na: step 1: mmlu 0.3125\n") &&
                       Contains("step 1/2  loss 1.000 1.000  mmlu 0.250 0.312 (step 1)  ") &&
                       Contains("step 2/2  loss 1.000 1.000  mmlu 0.250 0.500 (steps 1-2)  "));
}

TEST_CASE("a phase that was shown before its end is shown at its end, and once") {
  // Only the first line comes in time.
  CHECK(written(
            false,
            [](Progress& progress) {
              progress.phase("rte", 0, 4);
              progress.phase("rte", 2, 4);
              progress.phase("rte", 4, 4);
              progress.phase("rte", 4, 4);
              progress.phase("boolq", 1, 2);
              progress.phase("boolq", 2, 2);
            },
            1000) == "rte 0/4\nrte 4/4\n");
}

TEST_CASE("quiet progress says only what is noted") {
  CHECK(written(true, [](Progress& progress) {
          two_runs(progress);
          progress.phase("loading", 0, 0);
          progress.note("stopped");
        }) == "stopped\n");
}

TEST_CASE("seconds are shown as clocks show them") {
  CHECK(format_seconds(0.4) == "0:00");
  CHECK(format_seconds(83) == "1:23");
  CHECK(format_seconds(7384) == "2:03:04");
}
