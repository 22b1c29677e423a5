// The emulation itself: what each word of CUDA does, and what is refused.

#include "kernels/cuda/emulated/grid.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/emulated/schedules.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/runtime.h"

using namespace qlora;
using namespace qlora::cuda;
using emulated::test::for_every_schedule;

namespace {

// Runs a kernel that writes `n` values, and gives them back.
template <class T, class Kernel>
std::vector<T> results(size_t n, dim3 grid, dim3 block, size_t shared, Kernel kernel) {
  Stream stream;
  auto* out = static_cast<T*>(allocate_device(n * sizeof(T)));
  stream.launch(+kernel, grid, block, shared, out);
  std::vector<T> values(n);
  stream.copy_out(values.data(), out, n * sizeof(T));
  release_device(out);
  return values;
}

}  // namespace

TEST_CASE("CUDA emulation: every thread of every block runs once and knows its place") {
  for_every_schedule([] {
    const dim3 grid(3, 2, 2), block(16, 4);
    auto seen = results<int>(12 * 64, grid, block, 0, [](int* out) {
      const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
      const unsigned t = threadIdx.x + blockDim.x * threadIdx.y;
      out[b * 64 + t] = static_cast<int>(b * 64 + t);
    });
    std::vector<int> expected(seen.size());
    std::iota(expected.begin(), expected.end(), 0);
    CHECK(seen == expected);
  });
}

TEST_CASE("CUDA emulation: shuffles and votes") {
  for_every_schedule([] {
    auto got = results<int>(5 * 32, dim3(1), dim3(32), 0, [](int* out) {
      const int lane = static_cast<int>(threadIdx.x);
      out[lane] = __shfl_sync(kAllLanes, 100 + lane, 3, 8);
      out[32 + lane] = __shfl_xor_sync(kAllLanes, lane, 16);
      out[64 + lane] = __shfl_up_sync(kAllLanes, lane, 2, 16);
      out[96 + lane] = static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0) >> lane & 1);
      out[128 + lane] = static_cast<int>(warp_sum(static_cast<float>(lane)));
    });
    for (int lane = 0; lane < 32; ++lane) {
      CHECK(got[static_cast<size_t>(lane)] == 100 + lane / 8 * 8 + 3);
      CHECK(got[static_cast<size_t>(32 + lane)] == (lane ^ 16));
      CHECK(got[static_cast<size_t>(64 + lane)] == (lane % 16 < 2 ? lane : lane - 2));
      CHECK(got[static_cast<size_t>(96 + lane)] == (lane % 3 == 0));
      CHECK(got[static_cast<size_t>(128 + lane)] == 31 * 32 / 2);
    }
  });
}

TEST_CASE("CUDA emulation: a block's sum reaches every thread and its room may be used again") {
  struct Sums {
    float partials[kMostWarps];
  };
  for_every_schedule([] {
    auto got = results<float>(2 * 256, dim3(2), dim3(256), sizeof(Sums), [](float* out) {
      auto& shared = shared_as<Sums>();
      const auto t = static_cast<float>(threadIdx.x + blockIdx.x);
      const float sum = block_sum(t, shared.partials), most = block_max(t, shared.partials);
      out[blockIdx.x * 256 + threadIdx.x] = sum + most;
    });
    for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == (i < 256 ? 32640 + 255 : 32896 + 256));
  });
}

TEST_CASE("CUDA emulation: tensor cores through ldmatrix give the product") {
  struct Tiles {
    bf16 a[16 * 16], b[8 * 16], transposed[16 * 8];
  };
  constexpr int kMatrix = 16 * 8;
  for_every_schedule([] {
    auto got = results<float>(2 * kMatrix, dim3(1), dim3(32), sizeof(Tiles), [](float* out) {
      auto& tiles = shared_as<Tiles>();
      const int lane = static_cast<int>(threadIdx.x);
      for (int i = lane; i < 16 * 16; i += 32) tiles.a[i] = to_bf16(static_cast<float>(i % 13) - 6);
      for (int i = lane; i < kMatrix; i += 32) {
        tiles.b[i] = to_bf16(static_cast<float>(i % 7) - 3);  // [column][k]
        tiles.transposed[i % 16 * 8 + i / 16] = tiles.b[i];   // [k][column]
      }
      __syncthreads();
      uint32_t a[4], b[4], t[4];
      load_matrices(a, tiles.a + lane % 16 * 16 + lane / 16 * 8);
      load_matrices(b, tiles.b + lane % 8 * 16 + lane / 8 % 2 * 8);
      load_transposed(t, tiles.transposed + lane % 16 * 8);
      float plain[4] = {1, 1, 1, 1}, turned[4] = {1, 1, 1, 1};
      mma_bf16(plain, a, b[0], b[1]);
      mma_bf16(turned, a, t[0], t[1]);
      for (int e = 0; e < 4; ++e) {
        const int at = (lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2;
        out[at] = plain[e];
        out[kMatrix + at] = turned[e];
      }
    });
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column) {
        float sum = 1;
        for (int k = 0; k < 16; ++k)
          sum += static_cast<float>((row * 16 + k) % 13 - 6) * static_cast<float>((column * 16 + k) % 7 - 3);
        CHECK(got[static_cast<size_t>(row * 8 + column)] == sum);
        CHECK(got[static_cast<size_t>(kMatrix + row * 8 + column)] == sum);
      }
  });
}

TEST_CASE("CUDA emulation: cp.async copies what it is told, zeros after it, and counts groups") {
  struct Tiles {
    float4 piece[2];
  };
  for_every_schedule([] {
    Stream stream;
    auto* in = static_cast<float*>(allocate_device(32));
    auto* out = static_cast<float*>(allocate_device(16 * sizeof(float)));
    const float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    stream.copy_in(in, values, sizeof(values));
    stream.launch(
        +[](const float* from, float* to) {
          auto& tiles = shared_as<Tiles>();
          if (threadIdx.x == 0) {
            copy_async(&tiles.piece[0], from);
            commit_copies();
            copy_async(&tiles.piece[1], from + 4, 8);
            commit_copies();
            wait_copies<1>();
            *reinterpret_cast<float4*>(to) = tiles.piece[0];
            *reinterpret_cast<float4*>(to + 4) = tiles.piece[1];  // too early
            wait_copies<0>();
            *reinterpret_cast<float4*>(to + 8) = tiles.piece[1];
          }
        },
        dim3(1), dim3(32), sizeof(Tiles), in, out);
    float got[12];
    stream.copy_out(got, out, sizeof(got));
    for (int i = 0; i < 4; ++i) CHECK(got[i] == values[i]);
    for (int i = 4; i < 8; ++i) CHECK(std::isnan(got[i]));
    CHECK((got[8] == 5 && got[9] == 6 && got[10] == 0 && got[11] == 0));
    release_device(in);
    release_device(out);
  });
}

TEST_CASE("CUDA emulation: fresh memory holds NaN, on the device and in a block") {
  struct One {
    float value;
  };
  auto got = results<float>(2, dim3(1), dim3(32), sizeof(One), [](float* out) {
    if (threadIdx.x == 0) out[0] = shared_as<One>().value;
  });
  CHECK((std::isnan(got[0]) && std::isnan(got[1])));
}

TEST_CASE("CUDA emulation: nothing runs before the host waits") {
  Stream stream;
  int ran = 0;
  stream.launch(
      +[](int* count) {
        if (threadIdx.x == 0) ++*count;
      },
      dim3(1), dim3(32), 0, &ran);
  CHECK(ran == 0);
  stream.wait();
  CHECK(ran == 1);
}

TEST_CASE("CUDA emulation: a launch beyond the limits of consumer cards is refused") {
  Stream stream;
  auto refused = [&](dim3 grid, dim3 block, size_t shared, const std::string& why) {
    stream.launch(
        +[] {}, grid, block, shared);
    CHECK_THROWS_WITH(stream.wait(), Catch::Contains(why));
  };
  refused(dim3(1), dim3(33), 0, "whole warps");
  refused(dim3(1), dim3(1056), 0, "1056 threads");
  refused(dim3(1, 70000), dim3(32), 0, "70000");
  refused(dim3(0), dim3(32), 0, "at least 1");
  refused(dim3(1), dim3(32), (size_t{99} << 10) + 1, "99 KiB");
}
