// See peak_amx.h.

#include "kernels/cpu/peak_amx.h"

#define QLORA_INLINE static inline __attribute__((always_inline))

#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16")
namespace qlora::avx512bf16 {
#include "kernels/cpu/amx-inl.h"

void amx_peak(int64_t rounds) {
  alignas(64) uint16_t ones[16 * 32];
  for (uint16_t& one : ones) one = 0x3f80;
  const TilesOn tiles;
  tile_load<4>(ones, 64);
  tile_load<5>(ones, 64);
  tile_load<6>(ones, 64);
  tile_load<7>(ones, 64);
  for (int64_t r = 0; r < rounds; ++r) {
    tile_dot<0, 4, 6>();
    tile_dot<1, 4, 7>();
    tile_dot<2, 5, 6>();
    tile_dot<3, 5, 7>();
  }
}

}  // namespace qlora::avx512bf16
#pragma GCC pop_options

namespace qlora::cpu {

void amx_peak(int64_t rounds) {
  avx512bf16::amx_peak(rounds);
}

}  // namespace qlora::cpu
