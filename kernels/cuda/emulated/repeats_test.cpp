// Work that comes again (repeats.h): what is held back, and that nothing but the time changes by it.

#include "kernels/cuda/repeats.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <numeric>
#include <set>

#include "core/base/error.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/emulated/schedules.h"
#include "kernels/cuda/holding.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/use.h"

using namespace qlora;
using namespace qlora::cuda;
using emulated::test::for_every_schedule;

namespace {

constexpr size_t kLength = Repeats::kFewest;
const int kKernels[2] = {};

WorkPiece kernel(int i, uint64_t shape = 0) {
  return {WorkKind::kernel, &kKernels[i], shape};
}

double seconds = 0;  // of a clock that a test sets
double seconds_told() {
  return seconds;
}

// A section of so many equal pieces: how many were held back, and whether all went at once.
std::pair<size_t, bool> section(Repeats& repeats, WorkPiece piece, size_t length = kLength) {
  size_t held = 0;
  for (size_t i = 0; i < length; ++i) held += repeats.next(piece) ? 1 : 0;
  return {held, repeats.end() != Repeats::kNone};
}

// The same, whose work takes so many microseconds a piece as it comes and at once; whether it went at once.
bool timed(Repeats& repeats, double plain, double at_once) {
  for (size_t i = 0; i < kLength; ++i) repeats.next(kernel(0));
  const bool whole = repeats.end() != Repeats::kNone;
  seconds += (whole ? at_once : plain) * 1e-6 * static_cast<double>(kLength);
  repeats.done();
  return whole;
}

// A device that takes numbers, and refuses one of them when it is told to.
struct Taken {
  using Work = std::vector<int>;
  std::vector<int> all = {};
  int wholes = 0, refused = -1;

  void take(int number) {
    if (number == refused) throw Error(ErrorKind::failure, "refused");
    all.push_back(number);
  }
  void issue(const Work& work) {
    for (int number : work) take(number);
  }
  bool makes_graphs = true;
  bool whole(int section, Work& work) {
    CHECK((section >= 0 && section < Repeats::kSections));
    ++wholes;
    issue(work);
    return makes_graphs;
  }
};

// Pieces of a section, numbered from `first`; how many were held back.
size_t give(Holding<Taken>& holding, Taken& taken, int first, size_t length = kLength) {
  size_t held = 0;
  for (int number = first; number < first + static_cast<int>(length); ++number) {
    if (std::vector<int>* back = holding.next(kernel(0))) {
      back->push_back(number);
      ++held;
    } else {
      taken.take(number);
    }
  }
  return held;
}

// Numbers on the device that every step changes by kernels, uploads, copies and fills.
class Machine {
 public:
  explicit Machine(bool graphs) {
    ::setenv("QLORA_CUDA_GRAPHS", graphs ? "on" : "off", 1);
    stream_ = std::make_unique<Stream>();
    ::unsetenv("QLORA_CUDA_GRAPHS");
    blas_ = std::make_unique<Blas>(find_blas(), *stream_);
    numbers_ = static_cast<int*>(allocate_device(3 * kCount * sizeof(int)));
    ones_ = static_cast<bf16*>(allocate_device(8 * kCount * sizeof(bf16)));
    products_ = static_cast<float*>(allocate_device(kCount * sizeof(float)));
    const std::vector<bf16> ones(8 * kCount, to_bf16(1.0f));
    stream_->copy_in(ones_, ones.data(), ones.size() * sizeof(bf16));
    stream_->fill(numbers_, 3 * kCount * sizeof(int), 0);
    stream_->wait();
  }
  ~Machine() {
    for (void* p : {static_cast<void*>(numbers_), static_cast<void*>(ones_), static_cast<void*>(products_)})
      release_device(p);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  enum class Between { nothing, another_kernel, another_size, a_release, a_wait };
  std::vector<int> step(int number, Between between = Between::nothing) {
    std::vector<int> uploaded(kCount, number * number);
    for (int i = 0; i < 12; ++i) {
      const bool half = i == 7 && between == Between::another_size;
      stream_->copy_in(numbers_ + kCount, uploaded.data(), uploaded.size() * sizeof(int) / (half ? 2 : 1));
      stream_->launch(
          +[](int* all, int by) { all[threadIdx.x] = 3 * all[threadIdx.x] + by + all[kCount + threadIdx.x]; },
          dim3(1), dim3(kCount), 0, numbers_, number + i);
      blas_->product({.x = ones_,
                      .x_pitch = 8,
                      .w = ones_,
                      .w_pitch = 8,
                      .y = products_,
                      .y_pitch = kCount,
                      .m = 1,
                      .n = kCount,
                      .k = 8,
                      .alpha = static_cast<float>(number + i)});
      stream_->launch(
          +[](int* all, const float* by) { all[threadIdx.x] ^= static_cast<int>(by[threadIdx.x]); }, dim3(1),
          dim3(kCount), 0, numbers_, products_);
      if (i == 7 && between == Between::another_kernel)
        stream_->launch(
            +[](int* all) { all[threadIdx.x] += 5; }, dim3(1), dim3(kCount), 0, numbers_);
      if (i == 7 && between == Between::a_release) release_device(allocate_device(256));
      if (i == 7 && between == Between::a_wait) stream_->wait();
      uploaded[3] += i;  // what was uploaded stays what it was
    }
    stream_->copy(numbers_ + 2 * kCount, numbers_, kCount * sizeof(int));
    stream_->fill(numbers_, sizeof(int), static_cast<uint8_t>(number));
    std::vector<int> out(3 * kCount);
    stream_->copy_out(out.data(), numbers_, out.size() * sizeof(int));
    return out;
  }

 private:
  static constexpr int kCount = 32;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Blas> blas_;
  int* numbers_ = nullptr;
  bf16* ones_ = nullptr;
  float* products_ = nullptr;
};

}  // namespace

TEST_CASE("CUDA repeats: a section that came twice is held back the third time") {
  Repeats repeats(Graphs::always);
  using Held = std::pair<size_t, bool>;
  CHECK(section(repeats, kernel(0)) == Held{0, false});
  CHECK(section(repeats, kernel(0)) == Held{0, false});
  CHECK(section(repeats, kernel(0)) == Held{kLength, true});
  // Another one, longer, goes piece by piece from where it differs; what follows is unknown.
  CHECK(section(repeats, kernel(0), kLength + 1) == Held{kLength, false});
  CHECK(section(repeats, kernel(1)) == Held{0, false});
  // A shorter one does not go as the whole.
  Repeats shorter(Graphs::always);
  for (int i = 0; i < 2; ++i) section(shorter, kernel(0));
  CHECK(section(shorter, kernel(0), kLength - 1) == Held{kLength - 1, false});
  // Nor does one of other sizes, which is another section.
  Repeats sizes(Graphs::always);
  for (uint64_t size = 0; size < 3; ++size) CHECK(section(sizes, kernel(0, size)) == Held{0, false});
  for (int i = 0; i < 2; ++i) section(sizes, kernel(0, 3));
  CHECK(section(sizes, kernel(0, 4)) == Held{0, false});
}

TEST_CASE("CUDA repeats: sizes in another order, or others, have another number") {
  CHECK(shape_of({1, 2, 3}) == shape_of({1, 2, 3}));
  std::set<uint64_t> all;
  for (int64_t a = 0; a < 20; ++a)
    for (int64_t b = 0; b < 20; ++b)
      all.insert({shape_of({a, b}), shape_of({a, b, 0}), shape_of({-a - 1, b})});
  CHECK(all.size() == 3 * 400);
}

TEST_CASE("CUDA repeats: sections are graphs where launches take the time, as long as that is faster") {
  Repeats slow(Graphs::where_faster, seconds_told);  // the work takes the time
  for (int i = 0; i < 6; ++i) CHECK(!timed(slow, 20, 1));
  Repeats faster(Graphs::where_faster, seconds_told);
  for (int i = 0; i < 2; ++i) CHECK(!timed(faster, 3, 1));
  for (int i = 0; i < 10; ++i) CHECK(timed(faster, 3, 1));
  Repeats tried(Graphs::where_faster, seconds_told);
  for (int i = 0; i < 2; ++i) CHECK(!timed(tried, 3, 3.5));
  for (int i = 0; i < Repeats::kTries; ++i) CHECK(timed(tried, 3, 3.5));
  for (int i = 0; i < 6; ++i) CHECK(!timed(tried, 3, 3.5));
  // The least times count: making a graph is slow, and so is what comes first.
  Repeats warming(Graphs::where_faster, seconds_told);
  timed(warming, 90, 0);
  CHECK(!timed(warming, 3, 0));
  CHECK(timed(warming, 0, 50));
  for (int i = 0; i < 10; ++i) CHECK(timed(warming, 0, 2));
  // What was held back in part has no time.
  Repeats part(Graphs::where_faster, seconds_told);
  for (int i = 0; i < 2; ++i) timed(part, 3, 1);
  CHECK(section(part, kernel(0), kLength + 1) == std::pair(kLength, false));
  seconds += 1;
  part.done();
  for (int i = 0; i < 2; ++i) timed(part, 3, 1);
  CHECK(timed(part, 3, 1));
}

TEST_CASE("CUDA repeats: QLORA_CUDA_GRAPHS is on, off or not set") {
  ::unsetenv("QLORA_CUDA_GRAPHS");
  CHECK(!graphs_asked());
  for (const auto& [text, expected] : {std::pair("on", Graphs::always), std::pair("off", Graphs::never)}) {
    ::setenv("QLORA_CUDA_GRAPHS", text, 1);
    CHECK(graphs_asked() == expected);
  }
  ::setenv("QLORA_CUDA_GRAPHS", "yes", 1);
  CHECK_THROWS_WITH(graphs_asked(), Catch::Matchers::Contains("`yes`") && Catch::Matchers::Contains("off"));
  ::unsetenv("QLORA_CUDA_GRAPHS");
}

TEST_CASE("CUDA repeats: sections in turn are each expected after the one before") {
  Repeats repeats(Graphs::always);
  for (int i = 0; i < 2; ++i)
    for (int k : {0, 1}) section(repeats, kernel(k));
  for (int i = 0; i < 3; ++i)
    for (int k : {0, 1}) CHECK(section(repeats, kernel(k)).second);
  CHECK(repeats.end() == Repeats::kNone);  // a wait without work is no section
  CHECK(section(repeats, kernel(0)).second);
  // More sections than are kept are forgotten, oldest first.
  for (size_t length = kLength + 1; length < kLength + 20; ++length)
    CHECK(!section(repeats, kernel(0), length).second);
}

TEST_CASE(
    "CUDA repeats: short work, work that cannot be held back, and a stream without graphs go as they come") {
  Repeats off(Graphs::never), on(Graphs::always);
  for (int i = 0; i < 4; ++i) {
    CHECK(section(off, kernel(0)).first == 0);
    CHECK(section(on, kernel(0), Repeats::kFewest - 1).first == 0);
  }
  Repeats pages(Graphs::always);
  for (int i = 0; i < 4; ++i) {
    pages.next({WorkKind::other});
    CHECK(section(pages, kernel(0)).first == 0);
  }
}

TEST_CASE(
    "CUDA repeats: what is held back goes once, in order, also where the device refuses a piece of it") {
  constexpr int kN = static_cast<int>(kLength);
  Taken taken;
  Holding<Taken> holding(taken, Graphs::always);
  const auto section = [&](int first) {
    const size_t held = give(holding, taken, first);
    holding.end_section();
    return held;
  };
  for (int i = 0; i < 2; ++i) CHECK(section(i * kN) == 0);
  CHECK(section(2 * kN) == kLength);
  CHECK(taken.wholes == 1);
  // Broken off in the middle, the first half goes at once and the rest as it comes.
  CHECK(give(holding, taken, 3 * kN, kLength / 2) == kLength / 2);
  CHECK(taken.all.size() == 3 * kLength);
  holding.break_off();
  CHECK(give(holding, taken, 3 * kN + kN / 2, kLength / 2) == 0);
  holding.end_section();
  for (int i = 4; i < 6; ++i) section(i * kN);
  std::vector<int> expected(6 * kLength);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(taken.all == expected);

  // Refused: whole, then piece by piece. What came before it is done, nothing is done twice.
  for (const bool whole : {true, false}) {
    while (section(0) == 0) continue;
    taken.all.clear();
    taken.refused = 103;
    CHECK(give(holding, taken, 100) == kLength);
    if (whole) {
      CHECK_THROWS_AS(holding.end_section(), Error);
    } else {
      CHECK_THROWS_AS(holding.break_off(), Error);
    }
    taken.refused = -1;
    holding.break_off();
    holding.end_section();
    CHECK(taken.all == std::vector<int>{100, 101, 102});
  }
  while (section(0) == 0) continue;
  taken.all.clear();
  CHECK(give(holding, taken, 0) == kLength);
  holding.forget();
  holding.break_off();
  CHECK(taken.all.empty());

  // A device that makes no graphs is asked once.
  taken.makes_graphs = false;
  while (section(0) == 0) continue;
  const int asked = taken.wholes;
  for (int i = 0; i < 6; ++i) CHECK(section(0) == 0);
  CHECK(taken.wholes == asked);
}

TEST_CASE("CUDA repeats: held back or not, a stream's work comes to the same") {
  using Between = Machine::Between;
  for_every_schedule([] {
    Machine plain(false), graphs(true);
    const auto so_far = [] { return device_use().graphs; };
    const uint64_t start = so_far();
    for (int number = 0; number < 5; ++number) CHECK(graphs.step(number) == plain.step(number));
    CHECK(so_far() == start + 3);
    for (Between between :
         {Between::another_kernel, Between::another_size, Between::a_release, Between::a_wait}) {
      INFO("between: " << static_cast<int>(between));
      CHECK(graphs.step(7, between) == plain.step(7, between));
      CHECK(graphs.step(8) == plain.step(8));
    }
    const uint64_t before = so_far();
    for (int number = 0; number < 3; ++number) CHECK(graphs.step(number) == plain.step(number));
    CHECK(so_far() > before);
  });
}
