// Dequantization (codes.cu): of every format, to every type, at any size and alignment, and of pieces of a
// weight, the bits of the plain decoder (kernels/quant/decode.h).

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "core/base/half.h"
#include "kernels/cases/cases.h"
#include "kernels/cuda/operands.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// Rounded once from what the plain decoder gives.
template <class T>
std::vector<T> rounded(const Array& decoded) {
  std::vector<T> all;
  for (double v : decoded) {
    const auto f = static_cast<float>(v);
    if constexpr (std::is_same_v<T, bf16>) {
      all.push_back(to_bf16(f));
    } else if constexpr (std::is_same_v<T, f16>) {
      all.push_back(to_f16(f));
    } else {
      all.push_back(f);
    }
  }
  return all;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
std::vector<T> dequantized(Backend& backend, const TestWeight& w, DType type, size_t offset) {
  test::Device d(backend, DType::f32);
  T* to = d.put_raw(std::vector<T>(w.dense.size() + offset));
  backend.dequantize({.w = w.view(d), .dst = to + offset, .type = type});
  std::vector<T> all = d.get_raw(to, std::ssize(w.dense) + static_cast<int64_t>(offset));
  return {all.begin() + static_cast<std::ptrdiff_t>(offset), all.end()};
}

template <class Body>
void for_every_format(int64_t out, int64_t in, int64_t block, Body&& body) {
  for (Format format : kFormats)
    for (bool double_quant : {false, true}) {
      const TestWeight w = make_weight(8, format, double_quant, out, in, block);
      INFO(w.name() << " " << out << " x " << in);
      body(w);
    }
}

}  // namespace

TEST_CASE("CUDA dequantization has the bits of the plain decoder in every type, at any size and alignment") {
  auto backend = make_backend(kEmulatedGpu);
  struct Size {
    int64_t out, in, block;
  };
  // An odd number of elements, a last block cut short, blocks over several rows, more than one block of
  // threads.
  for (const Size& s :
       {Size{1, 1, 64}, {3, 43, 64}, {7, 192, 64}, {33, 70, 32}, {9, 640, 4096}, {150, 64, 128}})
    for_every_format(s.out, s.in, s.block, [&](const TestWeight& w) {
      for (size_t offset : {0, 1}) {
        INFO("offset " << offset);
        CHECK(same_bytes(dequantized<float>(*backend, w, DType::f32, offset), rounded<float>(w.dense)));
        CHECK(same_bytes(dequantized<bf16>(*backend, w, DType::bf16, offset), rounded<bf16>(w.dense)));
        CHECK(same_bytes(dequantized<f16>(*backend, w, DType::f16, offset), rounded<f16>(w.dense)));
      }
    });
}

TEST_CASE("CUDA dequantization of a piece has the bits of the plain decoder, with zeros beside it") {
  auto backend = make_backend(kEmulatedGpu);
  cuda::Device device;
  constexpr int64_t kOut = 20, kIn = 192;
  const cuda::Piece pieces[] = {{0, 0, 20, 192}, {3, 64, 5, 128}, {7, 5, 13, 33}, {19, 191, 1, 1}};
  for_every_format(kOut, kIn, 64, [&](const TestWeight& w) {
    test::Device d(*backend, DType::f32);
    const WeightView view = w.view(d);
    for (const cuda::Piece& p : pieces) {
      INFO("rows from " << p.row << ", columns from " << p.column);
      // Two further rows, and columns up to a multiple of eight.
      const int64_t rows = p.rows + 2, columns = (p.columns + 7) / 8 * 8, pitch = columns + 8;
      std::vector<bf16> expected(static_cast<size_t>(rows * pitch), to_bf16(7));
      auto* to = d.put_raw(expected);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) {
          const bool inside = r < p.rows && c < p.columns;
          const auto from = static_cast<size_t>((p.row + r) * kIn + p.column + c);
          expected[static_cast<size_t>(r * pitch + c)] =
              inside ? to_bf16(static_cast<float>(w.dense[from])) : bf16{};
        }
      backend->synchronize();
      cuda::decode(device, view, p, {to, pitch, rows, columns});
      device.stream.wait();
      std::vector<bf16> found = d.get_raw(to, rows * pitch);
      for (size_t i = 0; i < found.size(); ++i)  // beside it, either zero
        if (expected[i].bits == 0 && to_float(found[i]) == 0) found[i] = bf16{};
      CHECK(same_bytes(found, expected));
    }
  });
}
