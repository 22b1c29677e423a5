// Products of whole tiles of AMX in blocks of rows. Tiles are so fast that a product waits for memory, for x
// above all, f32 or a stored operand: every task packs the rows that it multiplies, so that they come from its
// second cache once they are packed; and where no other product takes them, one block after the other is
// packed in one place, which memory never sees.

#if QLORA_TILES

QLORA_INLINE void pack_block(const GemmArgs& g, const PackedX<AmxTiles>& packed, int64_t t0, int64_t t1,
                             int64_t k_begin, int64_t k) {
  for (int64_t k0 = 0; k0 < k; k0 += packed.chunk) {
    const int64_t kc = smaller(packed.chunk, k - k0);
    for (int64_t t = t0; t < t1; ++t)
      pack_x<AmxTiles>(g, t, k_begin + k0, kc, packed.at(t, k0 / packed.chunk, kc));
  }
}

// All panels of a small w, packed once for all blocks: it comes from the second cache as well.
class WholeW {
 public:
  WholeW(int64_t panels, int64_t k, int64_t chunk)
      : panels_(panels), chunk_(chunk), count_(panels * ((k + chunk - 1) / chunk)) {}
  // Codes are little to read again, and from more than half of that cache panels come no faster.
  bool small(const GemmArgs& g) const {
    return count_ * panel_floats() * 4 <= (g.codes != nullptr ? kSecondCache / 2 : kSecondCache);
  }
  void pack(const GemmArgs& g, int64_t k_begin, int64_t k) {
    data_ = cpu::scratch(cpu::Scratch::packed_w, count_ * panel_floats());
    parallel(count_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t k0 = i / panels_ * chunk_, kc = smaller(chunk_, k - k0);
        const int64_t column = i % panels_ * kNr, cols = smaller(kNr, g.n - column);
        float* out = data_ + i * panel_floats();
        for (int64_t at = 0; at < kc; at += kAmxDepth, out += kLanes * kNr)
          pack_w<AmxTiles>(g, k_begin + k0 + at, smaller(kAmxDepth, kc - at), column, cols, out);
      }
    });
  }
  // As multiply_panels() takes them.
  struct Panels {
    const float* p;
    int64_t floats;
    const float* next() {
      const float* panel = p;
      p += floats;
      return panel;
    }
    void step() {}
  };
  Panels all() const { return {data_, panel_floats()}; }

 private:
  static constexpr int64_t kSecondCache = 2 << 20;
  int64_t panel_floats() const { return (chunk_ / 2 + kLanes) * kNr; }

  int64_t panels_, chunk_, count_;
  float* data_ = nullptr;
};

template <>
void gemm_blocks<AmxTiles>(const GemmArgs& g, int64_t k_begin, int64_t k, int64_t chunk) {
  constexpr int64_t kRows = AmxTiles::kTileRows;
  const int64_t tiles = (g.m + kRows - 1) / kRows, panels = (g.n + kNr - 1) / kNr;
  const int64_t threads = cpu::task_threads();
  const Cut c = cut<AmxTiles>(tiles, panels, chunk, false);
  const int64_t wanted = (c.row_tasks + threads - 1) / threads * threads;
  // Every block decodes w again, so there are no more of them to keep threads busy.
  if (threads > 1 && wanted < 2 * threads) return gemm_range<AmxTiles>(g, k_begin, k, chunk);
  const int64_t block = (tiles + wanted - 1) / wanted, blocks = (tiles + block - 1) / block;
  const bool there = g.same_x && k == g.k, kept = there || (!g.x_once && k == g.k);
  const auto room = [&](int64_t count) {
    return cpu::scratch(cpu::Scratch::packed_x, PackedX<AmxTiles>::floats(count, k, chunk));
  };
  WholeW w(panels, k, chunk);
  const bool whole = blocks > 2 && w.small(g);
  if (whole) w.pack(g, k_begin, k);
  float* const all_rows = kept ? room(tiles) : nullptr;
  parallel(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t0 = begin * block; t0 < smaller(tiles, end * block); t0 += block) {
      const int64_t t1 = smaller(tiles, t0 + block);
      const PackedX<AmxTiles> packed = kept ? PackedX<AmxTiles>{all_rows, tiles, chunk}
                                            : PackedX<AmxTiles>{room(block), t1 - t0, chunk, t0};
      if (!there) pack_block(g, packed, t0, t1, k_begin, k);
      if (whole) {
        multiply_panels(g, packed, k_begin, k, t0, t1, 0, panels, w.all());
        continue;
      }
      for (int64_t p0 = 0; p0 < panels; p0 += c.panels_per_task)
        multiply<AmxTiles>(g, packed, k_begin, k, t0, t1, p0, smaller(panels, p0 + c.panels_per_task));
    }
  });
}

#endif
