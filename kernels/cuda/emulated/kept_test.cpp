// Decoded weights that stay (kept.h): they spare decoding, change no bit, make room for others, and are
// forgotten when what lies in their memory changes.

#include "kernels/cuda/kept.h"

#include <catch2/catch.hpp>

#include "core/base/half.h"
#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/chosen.h"
#include "kernels/cuda/emulated/grid.h"
#include "kernels/devices.h"

using namespace qlora;
using namespace qlora::test;
using emulated::test::Chosen;

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr int64_t kRows = 65, kIn = 128, kOut = 64, kRank = 4;

// Layers of one kind on a device, each with weights of its own and an adapter.
class Layers {
 public:
  Layers(Backend& backend, uint64_t n) : d_(backend, DType::f32, 0, Operands::bf16) {
    for (uint64_t i = 0; i < n; ++i) {
      weights_.push_back(make_weight(i, Format::nf4, true, kOut, kIn).view(d_));
      LoraPart part{.hi = kRows, .a = d_.put(normals(2, kRank * kIn)), .b = d_.put(normals(3, kOut * kRank))};
      part.rank = kRank;
      part.u = d_.make(kRows * kRank);
      parts_.push_back(part);
    }
    x_ = d_.put(normals(1, kRows * kIn));
    dy_ = d_.put(normals(4, kRows * kOut));
  }

  WeightView& weight(size_t i) { return weights_[i]; }
  test::Device& device() { return d_; }

  // y of layers [lo, hi), then the gradients of x in reverse.
  std::vector<Array> run(size_t lo, size_t hi) {
    std::vector<Array> results;
    for (size_t i = lo; i < hi; ++i) {
      const LinearTerm term{.w = weights_[i], .lora = {&parts_[i], 1}, .y = d_.make(kRows * kOut)};
      d_.backend().linear({.x = x_, .rows = kRows, .terms = {&term, 1}, .operands = Operands::bf16});
      results.push_back(d_.get(term.y, kRows * kOut));
    }
    for (size_t i = hi; i-- > lo;) {
      const LinearBackwardTerm term{.w = weights_[i], .lora = {&parts_[i], 1}, .dy = dy_};
      LinearBackward b{.x = x_, .rows = kRows, .terms = {&term, 1}, .dx = d_.make(kRows * kIn)};
      b.operands = Operands::bf16;
      d_.backend().linear_backward(b);
      results.push_back(d_.get(b.dx, kRows * kIn));
    }
    return results;
  }

 private:
  test::Device d_;
  std::vector<WeightView> weights_;
  std::vector<LoraPart> parts_;
  const void *x_ = nullptr, *dy_ = nullptr;
};

std::vector<Array> run(size_t kept, uint64_t layers, uint64_t& launches) {
  auto backend = make_backend(kEmulatedGpu, {.kept_bytes = kept});
  Layers all(*backend, layers);
  emulated::reset_counters();
  std::vector<Array> results = all.run(0, layers);
  for (Array& again : all.run(0, layers)) results.push_back(std::move(again));
  launches = emulated::counters().launches;
  return results;
}

bool equal(const std::vector<Array>& a, const std::vector<Array>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](const Array& x, const Array& y) { return same_bits(x, y); });
}

}  // namespace

TEST_CASE("Decoded weights that stay spare decoding and change no bit") {
  // A layer takes 21 KiB, so that fifty do not fit into a MiB, and of two passes forward and back not all are
  // spared.
  for (uint64_t layers : {uint64_t{3}, uint64_t{60}}) {
    uint64_t decoding = 0, sparing = 0;
    const std::vector<Array> plain = run(0, layers, decoding), kept = run(kMiB, layers, sparing);
    CHECK(equal(kept, plain));
    const uint64_t decoded = decoding - sparing;  // of four times each
    INFO(layers << " layers, " << decoded << " of " << 4 * layers << " decodings spared");
    CHECK((layers == 3 ? decoded == 3 * layers : decoded > layers && decoded < 3 * layers));
  }
}

TEST_CASE("Decoded weights are forgotten when their memory changes") {
  auto backend = make_backend(kEmulatedGpu, {.kept_bytes = kMiB}),
       fresh = make_backend(kEmulatedGpu, {.kept_bytes = kMiB});
  Layers old(*backend, 2), expected(*fresh, 2);
  const std::vector<Array> before = old.run(0, 1);
  // The second layer's codes and scales where the first's were.
  const TestWeight other = make_weight(1, Format::nf4, true, kOut, kIn);
  WeightView& w = old.weight(0);
  backend->copy(const_cast<void*>(w.data), other.codes.data(), other.codes.size(), CopyKind::host_to_device);
  w.absmax_codes = old.weight(1).absmax_codes;
  w.nested_absmax = old.weight(1).nested_absmax;
  w.nested_offset = other.nested_offset;
  const std::vector<Array> after = old.run(0, 1);
  CHECK_FALSE(equal(after, before));
  CHECK(equal(after, expected.run(1, 2)));
}

TEST_CASE("Each backend keeps decoded weights in the room that it was given, and never beyond it") {
  // As large as one layer's, and a little less: then none stays.
  const size_t layer = 2 * (kOut + 8) * (kIn + 8);
  uint64_t plain = 0, whole = 0, less = 0;
  const std::vector<Array> expected = run(0, 1, plain);
  CHECK(equal(run(layer, 1, whole), expected));
  CHECK(equal(run(layer - 1, 1, less), expected));
  CHECK((whole < plain && less == plain));
  cuda::Device device;
  device.options.kept_bytes = layer;
  const WeightView weight{.out = kOut + 9, .in = kIn};
  CHECK_THROWS_WITH(device.kept().stack({&weight, 1}, kOut + 16, kIn + 8),
                    Catch::Contains("larger than their room"));
}

TEST_CASE("Room for decoded weights may be asked for in MiB") {
  for (const char* wrong : {"x", "4G", "-1", "99999999"}) {
    Chosen chosen("QLORA_CUDA_KEEP", wrong);
    CHECK_THROWS_WITH(kept_bytes_asked(),
                      Catch::Contains("expected a number of MiB, found `" + std::string(wrong)));
  }
  for (const char* asked : {"3", "0"}) {
    Chosen chosen("QLORA_CUDA_KEEP", asked);
    CHECK(kept_bytes_asked() == (*asked == '3' ? 3 * kMiB : 0));
  }
  Chosen chosen("QLORA_CUDA_KEEP", "");
  CHECK(!kept_bytes_asked().has_value());
}
