// What the tensor cores, ldmatrix and cp.async do, lane by lane.

#include "kernels/cuda/ptx.h"

#include <cstring>

namespace qlora::cuda::emulation {
namespace {

constexpr int kBanks16 = 8;  // of 16 bytes: 32 banks of four

float low(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
float high(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xffff0000u);
}

// The eight rows of one matrix are read in one turn where they lie in different banks; the same row counts
// once.
void count_turns(void* const* lanes) {
  uint64_t conflicts = 0;
  for (int matrix = 0; matrix < 4; ++matrix) {
    int turns[kBanks16] = {}, most = 1;
    for (int j = 0; j < 8; ++j) {
      const auto* row = static_cast<Matrices*>(lanes[8 * matrix + j])->row;
      bool again = false;
      for (int i = 0; i < j; ++i) again = again || static_cast<Matrices*>(lanes[8 * matrix + i])->row == row;
      if (!again) most = std::max(most, ++turns[reinterpret_cast<uintptr_t>(row) / 16 % kBanks16]);
    }
    conflicts += static_cast<uint64_t>(most - 1);
  }
  emulated::count_banks(4, conflicts);
}

}  // namespace

// Sums run over k in order, starting from d. Tensor cores add in an order of their own, so bits differ from a
// GPU's.
void multiply(void* const* lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < emulated::kWarp; ++lane) {
    const auto& m = *static_cast<Mma*>(lanes[lane]);
    const int g = lane / 4, t = 2 * (lane % 4);
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i % 2), column = t + 8 * (i / 2);
      a[row][column] = low(m.a[i]);
      a[row][column + 1] = high(m.a[i]);
    }
    for (int i = 0; i < 2; ++i) {
      b[t + 8 * i][g] = low(m.b[i]);
      b[t + 8 * i + 1][g] = high(m.b[i]);
    }
  }
  float d[16][8];
  auto each = [&](auto&& what) {
    for (int lane = 0; lane < emulated::kWarp; ++lane)
      for (int i = 0; i < 4; ++i)
        what(d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2], static_cast<Mma*>(lanes[lane])->d[i]);
  };
  each([](float& sum, float mine) { sum = mine; });
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  each([](float sum, float& mine) { mine = sum; });
}

void load(void* const* lanes) {
  count_turns(lanes);
  for (int lane = 0; lane < emulated::kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      const auto* row = static_cast<Matrices*>(lanes[8 * i + lane / 4])->row;
      std::memcpy(&static_cast<Matrices*>(lanes[lane])->r[i], row + 4 * (lane % 4), 4);
    }
}

void load_transposed(void* const* lanes) {
  count_turns(lanes);
  for (int lane = 0; lane < emulated::kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      uint16_t pair[2];
      for (int j = 0; j < 2; ++j) {
        const auto* row = static_cast<Matrices*>(lanes[8 * i + 2 * (lane % 4) + j])->row;
        std::memcpy(&pair[j], row + 2 * (lane / 4), 2);
      }
      std::memcpy(&static_cast<Matrices*>(lanes[lane])->r[i], pair, 4);
    }
}

void check_row(const void* row, Place place) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fault("ldmatrix: a row is not aligned to 16 bytes", place);
  const auto* p = static_cast<const std::byte*>(row);
  const std::byte* shared = emulated::shared_memory();
  if (p < shared || p + 16 > shared + emulated::shared_bytes())
    fault("ldmatrix: a row is not in shared memory", place);
}

// The bytes may arrive at any time until they are waited for: until then the target holds NaN.
void start_copy(void* to, const void* from, int bytes, Place place) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0)
    fault("cp.async: an address is not aligned to 16 bytes", place);
  if (bytes < 0 || bytes > 16) fault("cp.async copies 0 to 16 bytes", place);
  emulated::Thread& me = emulated::self();
  std::memset(to, 0xff, 16);
  me.copies.push_back({to, from, bytes, me.groups});
}

void wait_copies(int pending) {
  emulated::Thread& me = emulated::self();
  std::erase_if(me.copies, [&](const emulated::Copy& c) {
    if (c.group >= me.groups - pending) return false;
    std::memcpy(c.to, c.from, static_cast<size_t>(c.bytes));
    std::memset(static_cast<std::byte*>(c.to) + c.bytes, 0, static_cast<size_t>(16 - c.bytes));
    return true;
  });
}

}  // namespace qlora::cuda::emulation
