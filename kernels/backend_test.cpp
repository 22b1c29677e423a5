// Choosing a backend, its memory, and the counting backend.

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "kernels/test_backends.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

// Sets an environment variable for one scope.
class ScopedEnv {
 public:
  ScopedEnv(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, had_ = true;
    ::setenv(name, value, 1);
  }
  ~ScopedEnv() { had_ ? ::setenv(name_, old_.c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

}  // namespace

TEST_CASE("Every listed backend either can be made or says why not") {
  bool reference = false;
  for (const BackendInfo& info : list_backends()) {
    INFO(info.name);
    CHECK(!info.reason.empty());
    if (info.available) {
      CHECK(make_backend(info.name)->name() == info.name);
    } else {
      CHECK_THROWS_WITH(make_backend(info.name), Contains(info.name) && Contains(info.reason));
    }
    reference = reference || (info.name == "reference" && info.available);
  }
  CHECK(reference);
}

TEST_CASE("Auto takes the variable of the environment and else the best available backend") {
  {
    ScopedEnv env("QLORA_BACKEND", "reference");
    CHECK(make_backend("auto")->name() == "reference");
  }
  {
    ScopedEnv env("QLORA_BACKEND", "refrence");
    CHECK_THROWS_WITH(make_backend("auto"), Contains("reference") && Contains("QLORA_BACKEND"));
  }
  ScopedEnv env("QLORA_BACKEND", "");
  std::string best;
  for (const BackendInfo& info : list_backends()) {
    if (info.available && best.empty()) best = info.name;
  }
  CHECK(make_backend("auto")->name() == best);
}

TEST_CASE("An unknown backend is an error that names the nearest") {
  CHECK_THROWS_WITH(make_backend("referense"), Contains("reference"));
}

TEST_CASE("Memory of a backend is aligned and running out of it is an error of its own kind") {
  for (const std::string& name : test::runnable_backends(test::EmulatedGpu::included)) {
    auto backend = make_backend(name);
    for (size_t bytes : {size_t{0}, size_t{1}, size_t{256}, size_t{1000}}) {
      void* p = backend->allocate(bytes);
      CHECK(reinterpret_cast<uintptr_t>(p) % 256 == 0);
      backend->release(p, bytes);
    }
    for (size_t bytes : {size_t{1} << 62, ~size_t{0}}) {
      try {
        backend->allocate(bytes);
        FAIL("an impossible allocation succeeded");
      } catch (const Error& e) {
        CHECK(e.kind() == ErrorKind::memory);
        CHECK_THAT(e.what(), Contains(std::to_string(bytes)));
      }
    }
  }
}

TEST_CASE("Copies and fills of a backend move bytes both ways") {
  for (const std::string& name : test::runnable_backends(test::EmulatedGpu::included)) {
    auto backend = make_backend(name);
    std::vector<uint8_t> sent(1000), got(1000);
    for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<uint8_t>(i * 7);
    auto* p = static_cast<uint8_t*>(backend->allocate(2000));
    backend->copy(p, sent.data(), 1000, CopyKind::host_to_device);
    backend->copy(p + 1000, p, 1000, CopyKind::device_to_device);
    backend->fill(p, 1000, 0xAB);
    backend->copy(got.data(), p + 1000, 1000, CopyKind::device_to_host);
    CHECK(got == sent);
    backend->copy(got.data(), p, 1000, CopyKind::device_to_host);
    CHECK(got == std::vector<uint8_t>(1000, 0xAB));
    backend->release(p, 2000);
  }
}

TEST_CASE("The counting backend gives every block an address of its own and reads back zeros") {
  auto backend = make_counting_backend();
  std::set<void*> seen;
  for (size_t bytes : {size_t{0}, size_t{0}, size_t{1}, size_t{4096}, size_t{1} << 45}) {
    void* p = backend->allocate(bytes);
    CHECK(reinterpret_cast<uintptr_t>(p) % 256 == 0);
    CHECK(seen.insert(p).second);
  }
  std::vector<uint8_t> host(64, 9);
  backend->copy(*seen.begin(), host.data(), 64, CopyKind::host_to_device);
  backend->copy(host.data(), *seen.begin(), 64, CopyKind::device_to_host);
  CHECK(host == std::vector<uint8_t>(64, 0));
  CHECK_FALSE(backend->host_memory());
}

TEST_CASE("The counting backend adds up operations bytes and calls") {
  auto backend = make_counting_backend();
  backend->gemm({.m = 3, .n = 5, .k = 7});
  CHECK(backend->work().flops == 2 * 3 * 5 * 7);
  CHECK(backend->work().bytes == 4 * (3 * 7 + 5 * 7 + 3 * 5));
  CHECK(backend->work().calls == 1);

  backend->reset();
  backend->gemm({.m = 3, .n = 5, .k = 7, .w_type = DType::bf16, .operands = Operands::bf16});
  CHECK(backend->work().flops == 2 * 3 * 5 * 7);
  CHECK(backend->work().bytes == 4 * (3 * 7 + 3 * 5) + 2 * 5 * 7);

  backend->reset();
  WeightView w{.format = Format::nf4, .out = 64, .in = 128, .block = 64};
  LoraPart part{.lo = 2, .hi = 6, .rank = 8};
  LinearTerm term{.w = w, .lora = {&part, 1}, .y = backend->allocate(4 * 10 * 64)};
  backend->linear({.rows = 10, .terms = {&term, 1}});
  CHECK(backend->work().flops == 2 * 10 * 64 * 128 + 2 * 4 * 8 * (64 + 128));
  CHECK(backend->work().calls == 1);

  backend->reset();
  term.y = nullptr;  // nobody reads it: u alone
  backend->linear({.rows = 10, .terms = {&term, 1}});
  CHECK(backend->work().flops == 2 * 4 * 8 * 128);
}

TEST_CASE("The counting backend counts the pairs of attention that the mask lets through") {
  auto backend = make_counting_backend();
  for (int64_t window : {0, 1, 3, 5, 9, 100}) {
    std::vector<SequenceSpan> spans = {{0, 5, 0, 5}, {5, 0, 5, 4}, {5, 1, 9, 12}, {6, 4, 21, 9}};
    double pairs = 0;
    for (const SequenceSpan& s : spans) {
      for (int64_t i = 0; i < s.q_len; ++i) {
        int64_t position = s.k_len - s.q_len + i;
        pairs += static_cast<double>(window > 0 ? std::min(position + 1, window) : position + 1);
      }
    }
    backend->reset();
    backend->attention({.sequences = spans, .heads = 3, .kv_heads = 1, .head_dim = 8, .window = window});
    CHECK(backend->work().flops == 4 * pairs * 3 * 8);
  }
}
