#include "core/tensor/memory.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <map>

#include "core/base/check.h"
#include "core/base/philox.h"
#include "kernels/reference/reference.h"

using namespace qlora;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

// A host backend that has `left` bytes and counts how often it is asked.
class Small final : public Reference {
 public:
  size_t left = 0, calls = 0;
  explicit Small(size_t bytes) : left(bytes) {}
  void* allocate(size_t bytes) override {
    ++calls;
    QLORA_CHECK(bytes <= left, memory, "no {} bytes", bytes);
    left -= bytes;
    return Reference::allocate(bytes);
  }
  void release(void* p, size_t bytes) noexcept override {
    left += bytes;
    Reference::release(p, bytes);
  }
};

struct Block {
  size_t bytes;
  Tag tag;
  uint8_t mark;
};

}  // namespace

TEST_CASE("a freed block is handed out again and a step that repeats asks the system for nothing") {
  Small backend(1000 * kMiB);
  Memory memory(backend);
  std::vector<void*> first, again;  // the first grows in pieces, which then become one
  for (std::vector<void*>* step : {&first, &again}) {
    for (size_t i = 1; i <= 30; ++i) step->push_back(memory.allocate(i * kMiB, Tag::activations));
    for (size_t i = 1; i <= 30; ++i) memory.release((*step)[i - 1], i * kMiB, Tag::activations);
  }
  size_t calls = backend.calls;
  std::vector<void*> third;
  for (size_t i = 1; i <= 30; ++i) third.push_back(memory.allocate(i * kMiB, Tag::activations));
  for (size_t i = 1; i <= 30; ++i) memory.release(third[i - 1], i * kMiB, Tag::activations);
  CHECK(third == again);
  CHECK(backend.calls == calls);
}

TEST_CASE("blocks in use never overlap and keep their bytes") {
  Small backend(2000 * kMiB);
  Memory memory(backend);
  std::map<uint8_t*, Block> blocks;
  PhiloxStream random(3);
  const Tag tags[] = {Tag::weights, Tag::activations, Tag::scratch};
  for (int i = 0; i < 3000; ++i) {
    if (blocks.size() > 40 || (!blocks.empty() && random.below(3) == 0)) {
      auto it = std::next(blocks.begin(), random.below(static_cast<uint32_t>(blocks.size())));
      const Block& b = it->second;
      for (size_t k : {size_t{0}, b.bytes / 2, b.bytes - 1}) REQUIRE(it->first[k] == b.mark);
      memory.release(it->first, b.bytes, b.tag);
      blocks.erase(it);
      continue;
    }
    Block b{1 + random.below(i % 50 == 0 ? 3000000 : 20000), tags[random.below(3)], static_cast<uint8_t>(i)};
    auto* p = static_cast<uint8_t*>(memory.allocate(b.bytes, b.tag));
    REQUIRE(reinterpret_cast<uintptr_t>(p) % 256 == 0);
    std::memset(p, b.mark, b.bytes);
    blocks.emplace(p, b);
  }
  size_t used = 0;
  for (const auto& [p, b] : blocks) used += b.bytes;
  CHECK(memory.used() == used);
  CHECK(memory.held() >= used);
  for (const auto& [p, b] : blocks) memory.release(p, b.bytes, b.tag);
  CHECK(memory.used() == 0);
  memory.trim();
  CHECK(memory.held() == 0);
  CHECK(backend.left == 2000 * kMiB);
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
  CHECK(memory.held_peak() == 256 + 512);
  memory.reset_peak();
  CHECK(memory.peak() == 30);
  CHECK(memory.peak(Tag::scratch) == 0);
  CHECK(memory.held_peak() == 512);
  memory.release(a, 10, Tag::weights);
  memory.release(c, 20, Tag::activations);
  CHECK(memory.used() == 0);
}

TEST_CASE("ragged steps hold little more than the largest of them") {
  auto backend = make_counting_backend();
  Memory memory(*backend);
  PhiloxStream random(1);
  size_t largest = 0;
  for (int step = 0; step < 100; ++step) {
    std::vector<std::pair<void*, size_t>> blocks;
    const size_t rows = 64 + random.below(2000);
    for (size_t layer = 0; layer < 20; ++layer)
      for (size_t width : {576, 576, 192, 192, 1536, 1536, 1536, 576})
        blocks.emplace_back(memory.allocate(rows * width * 4, Tag::activations), rows * width * 4);
    largest = std::max(largest, memory.used());
    while (!blocks.empty()) {
      memory.release(blocks.back().first, blocks.back().second, Tag::activations);
      blocks.pop_back();
    }
  }
  CHECK(static_cast<double>(memory.held_peak()) < 1.05 * static_cast<double>(largest));
}

TEST_CASE("room that was reserved is one piece and is not held before it is used") {
  Small backend(1000 * kMiB);
  Memory memory(backend);
  memory.reserve(100 * kMiB);
  CHECK(memory.held() == 0);
  size_t calls = backend.calls;
  void* a = memory.allocate(60 * kMiB, Tag::activations);
  void* b = memory.allocate(40 * kMiB, Tag::scratch);
  CHECK(backend.calls == calls);
  CHECK(memory.held() == 100 * kMiB);
  memory.release(a, 60 * kMiB, Tag::activations);
  memory.release(b, 40 * kMiB, Tag::scratch);
}

TEST_CASE("host memory of what passes is had once and that of what lasts as it is asked for") {
  struct : Reference {
    size_t now = 0, calls = 0;
    void* allocate_host(size_t bytes) override {
      now += bytes;
      ++calls;
      return Reference::allocate_host(bytes);
    }
    void release_host(void* p, size_t bytes) noexcept override {
      now -= bytes;
      Reference::release_host(p, bytes);
    }
  } backend;
  Memory memory(backend);
  void* states = memory.allocate_host(1000, Tag::optimizer);
  CHECK(backend.now == 1000);
  memory.reserve_host(50 * kMiB);
  for (int step = 0; step < 2; ++step) {
    std::vector<void*> all;
    for (size_t i = 0; i < 50; ++i) all.push_back(memory.allocate_host(kMiB, Tag::activations));
    CHECK(memory.host_used() == 50 * kMiB + 1000);
    for (void* p : all) memory.release_host(p, kMiB, Tag::activations);
  }
  CHECK(backend.calls == 2);
  CHECK(memory.host_held_passing() == 50 * kMiB);
  CHECK(memory.used() == 0);
  memory.release_host(states, 1000, Tag::optimizer);
  memory.trim();
  CHECK((memory.host_used() == 0 && backend.now == 0));
}

TEST_CASE("running out of memory is an error after what is unused was given back") {
  Small backend(100 * kMiB);
  Memory memory(backend);
  void* a = memory.allocate(60 * kMiB, Tag::activations);
  memory.release(a, 60 * kMiB, Tag::activations);
  void* b = memory.allocate(90 * kMiB, Tag::weights);  // what the other arena had
  try {
    memory.allocate(20 * kMiB, Tag::activations);
    FAIL("there was no such memory");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::memory);
  }
  CHECK_THROWS_AS(memory.allocate(~size_t{0}, Tag::activations), Error);
  CHECK(memory.used() == 90 * kMiB);
  memory.release(b, 90 * kMiB, Tag::weights);
}

TEST_CASE("every tag has a name") {
  CHECK(std::string(name_of(Tag::weights)) == "weights");
  CHECK(std::string(name_of(Tag::scratch)) == "scratch");
}
