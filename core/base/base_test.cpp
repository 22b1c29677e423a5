#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/half.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/names.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "core/base/test_data.h"

using namespace qlora;

TEST_CASE("philox gives the known answers of its paper") {
  Philox4 r = philox(0, 0, 0, 0, 0);
  CHECK(r.v[0] == 0x6627e8d5u);
  CHECK(r.v[1] == 0xe169c58du);
  CHECK(r.v[2] == 0xbc57ac4cu);
  CHECK(r.v[3] == 0x9b00dbd8u);
  r = philox(0xffffffffffffffffu, ~0u, ~0u, ~0u, ~0u);
  CHECK(r.v[0] == 0x408f276du);
}

TEST_CASE("16-bit floats survive the way through float and round to nearest even") {
  for (uint32_t i = 0; i < 65536; ++i) {
    auto bits = static_cast<uint16_t>(i);
    float b = to_float(bf16{bits}), h = to_float(f16{bits});
    if (!std::isnan(b)) REQUIRE(to_bf16(b).bits == bits);
    if (!std::isnan(h)) REQUIRE(to_f16(h).bits == bits);
  }
  CHECK(to_bf16(1.00390625f).bits == 0x3f80);  // halfway, to even
  CHECK(to_bf16(1.01171875f).bits == 0x3f82);  // halfway, to even above
  CHECK(to_f16(65520.f).bits == 0x7c00);       // rounds to infinity
  CHECK(to_f16(65519.f).bits == 0x7bff);
  CHECK(to_f16(0x1p-25f).bits == 0);  // half of the smallest, to even
  CHECK(to_f16(0x1.8p-24f).bits == 2);
  CHECK(std::isnan(to_float(to_f16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST_CASE("parallel_for covers every index once for any number of threads") {
  int before = thread_count();
  for (int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    for (int64_t n : {0, 1, 7, 1000}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
      parallel_for(n, 3, [&](int64_t lo, int64_t hi) {
        parallel_for(1, 1, [](int64_t, int64_t) {});  // a nested call runs in place
        for (int64_t i = lo; i < hi; ++i) ++hits[static_cast<size_t>(i)];
      });
      for (auto& h : hits) REQUIRE(h == 1);
    }
  }
  CHECK_THROWS_AS(parallel_for(100, 1, [](int64_t, int64_t) { throw Error(ErrorKind::failure, "x"); }),
                  Error);
  set_thread_count(before);
}

TEST_CASE("parallel_for runs every index of every job when several threads start many small jobs") {
  const int before = thread_count();
  set_thread_count(3);
  std::vector<std::thread> callers;
  std::atomic<int64_t> wrong{0};
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&] {
      for (int job = 0; job < 500; ++job) {
        // Now and then the workers have gone to sleep.
        if (job % 100 == 99) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::atomic<int64_t> sum{0};
        const int64_t n = 2 + job % 40;
        auto body = [&](int64_t lo, int64_t hi) {
          for (int64_t i = lo; i < hi; ++i) sum += i;
          if (job % 50 == 7 && lo == 0) throw Error(ErrorKind::failure, "x");
        };
        try {
          parallel_for(n, 1, body);
          wrong += job % 50 == 7 || sum != n * (n - 1) / 2;
        } catch (const Error&) {
          wrong += job % 50 != 7;
        }
      }
    });
  for (std::thread& t : callers) t.join();
  CHECK(wrong == 0);
  set_thread_count(before);
}

TEST_CASE("a file is replaced as a whole or not at all") {
  test::TemporaryFolder dir;
  Path p = dir.path() / "a.txt";
  write_file(p, "old");
  {
    AtomicFile f(p);
    f.write("half of the new");
  }
  CHECK(read_file(p) == "old");
  write_file(p, "new");
  CHECK(read_file(p) == "new");
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
  CHECK_THROWS_AS(read_file(dir.path() / "none"), Error);
  CHECK_THROWS_AS(write_file(dir.path() / "no/such/folder", "x"), Error);
}

TEST_CASE("the worst error of a test is infinite once an error is not a number") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(test::worse(0, 0.5) == 0.5);
  CHECK(test::worse(0.5, 0.25) == 0.5);
  for (double bad : {nan, -nan, infinity, -infinity}) {
    CHECK(test::worse(0.5, bad) == infinity);
    CHECK(test::worse(test::worse(0.5, bad), 0.25) == infinity);
  }
}

TEST_CASE("a folder is replaced as a whole or not at all") {
  test::TemporaryFolder dir;
  Path p = dir.path() / "checkpoint";
  for (const char* text : {"one", "two"}) {
    AtomicFolder f(p);
    write_file(f.path() / "x", text);
    f.commit();
    CHECK(read_file(p / "x") == text);
  }
  { AtomicFolder abandoned(p); }
  CHECK(read_file(p / "x") == "two");
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("SHA-256 of the examples in the standard") {
  CHECK(hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest_from_hex(hex(sha256("abc"))) == sha256("abc"));
  CHECK_THROWS_AS(digest_from_hex("12"), Error);
}

TEST_CASE("unknown names are answered with the nearest known one") {
  std::vector<std::string> known = {"lora_r", "lora_alpha", "learning_rate"};
  CHECK(nearest("lora_rnak", known).empty() == false);
  CHECK(nearest("learning_rat", known) == "learning_rate");
  CHECK(nearest("zzzzzz", known).empty());
  CHECK(unknown_name("key", "lora_alhpa", known) == "unknown key `lora_alhpa`; did you mean `lora_alpha`?");
}

TEST_CASE("bad JSON is reported with its line and column") {
  CHECK(canonical(parse_json(R"({"b": 1, "a": [1.0, 2e-4]})", "x")) == R"({"a":[1.0,0.0002],"b":1})");
  try {
    parse_json("{\n \"a\": }", "f.json");
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).rfind("f.json:2:7: not valid JSON", 0) == 0);
    CHECK(e.exit_code() == 3);
  }
}
