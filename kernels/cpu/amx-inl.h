// Eight tiles of AMX, each sixteen rows of 64 bytes, and what is done with them. amx_emulated-inl.h does the
// same on processors without.

// A tile from or to memory, its rows `stride` bytes apart.
template <int kTile>
QLORA_INLINE void tile_load(const void* p, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
}
// The same of what is read once in a while: it does not push out what the first cache holds.
template <int kTile>
QLORA_INLINE void tile_load_passing(const void* p, int64_t stride) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
QLORA_INLINE void tile_store(void* p, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
QLORA_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
// Of f32: sum[i][j] += pairs of bf16 in a[i][.] times those in b[.][j], in the order of args_matmul.h.
template <int kSum, int kA, int kB>
QLORA_INLINE void tile_dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

// Of 32-bit whole numbers: sum[i][j] += products of four bytes of a[i][.] and b[.][j], each signed or not.
template <int kSum, int kA, int kB, bool kSignedA, bool kSignedB>
QLORA_INLINE void tile_dot_bytes() {
  if constexpr (kSignedA && kSignedB)
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  else if constexpr (kSignedA)
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  else if constexpr (kSignedB)
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  else
    asm volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

// Tiles are there while one of these lives. All but those of first operands (4, 5) may have fewer columns, of
// 32 bits, than sixteen.
class TilesOn {
 public:
  explicit TilesOn(int64_t columns = 16) {
    struct alignas(64) Shapes {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    Shapes shapes;
    for (int tile = 0; tile < 8; ++tile)
      if (tile != 4 && tile != 5) shapes.row_bytes[tile] = static_cast<uint16_t>(4 * columns);
    asm volatile("ldtilecfg %0" ::"m"(shapes));
  }
  ~TilesOn() { asm volatile("tilerelease"); }
  TilesOn(const TilesOn&) = delete;
  TilesOn& operator=(const TilesOn&) = delete;
};
