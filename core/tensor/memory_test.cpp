#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/tensor/memory.h"

using namespace qlora;

TEST_CASE("a freed block is handed out again for a request of about its size") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  void* first = memory.allocate(100000, Tag::activations);
  memory.release(first, 100000, Tag::activations);
  CHECK(memory.cached() >= 100000);
  void* second = memory.allocate(99000, Tag::scratch);
  CHECK(second == first);
  CHECK(memory.cached() == 0);
  memory.release(second, 99000, Tag::scratch);
  void* other = memory.allocate(200000, Tag::scratch);
  CHECK(other != first);
  memory.release(other, 200000, Tag::scratch);
}

TEST_CASE("used and peak bytes are those requested in total and by tag") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  void* a = memory.allocate(10, Tag::weights);
  void* b = memory.allocate(300, Tag::scratch);
  memory.release(b, 300, Tag::scratch);
  void* c = memory.allocate(20, Tag::activations);
  CHECK(memory.used() == 30);
  CHECK(memory.peak() == 310);
  CHECK(memory.used(Tag::scratch) == 0);
  CHECK(memory.peak(Tag::scratch) == 300);
  memory.reset_peak();
  CHECK(memory.peak() == 30);
  CHECK(memory.peak(Tag::scratch) == 0);
  memory.release(a, 10, Tag::weights);
  memory.release(c, 20, Tag::activations);
  CHECK(memory.used() == 0);
}

TEST_CASE("blocks of sizes that are not asked for again do not pile up") {
  auto backend = make_counting_backend();
  Memory memory(*backend);
  const size_t mib = size_t{1} << 20;
  size_t most = 0;
  for (size_t i = 1; i <= 200; ++i) {  // ragged batches: every size is new
    void* p = memory.allocate(i * mib, Tag::activations);
    memory.release(p, i * mib, Tag::activations);
    most = std::max(most, memory.cached());
  }
  CHECK(most < 64 * mib + 2 * 230 * mib);
  memory.trim();
  CHECK(memory.cached() == 0);
}

TEST_CASE("every tag has a name") {
  CHECK(std::string(name_of(Tag::weights)) == "weights");
  CHECK(std::string(name_of(Tag::scratch)) == "scratch");
}
