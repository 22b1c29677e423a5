// Products of whole tiles of AMX: multiply() of gemm-inl.h, in which every panel of w is packed beside the
// tiles of the panel before. Tiles are few instructions, so the processor works on both at once; and tiles
// that stand idle for a quarter of a microsecond take as long again, or twice, to start (Intel Xeon).

#if QLORA_TILES

// Memory that will be read, brought to the second cache a few lines at a time in the order in which it lies.
// More at once would keep tiles of x waiting: they pass through the same few buffers.
struct LinesAhead {
  const uint8_t* p = nullptr;
  int64_t ld = 0, row_bytes = 0, rows = 0;
  int64_t row = 0, at = 0;  // of the next line
  int64_t count() const { return rows * ((row_bytes + 63) / 64); }
  void read(int64_t lines) {
    for (; lines > 0 && row < rows; --lines) {
      __builtin_prefetch(p + row * ld + at, 0, 2);
      at += 64;
      if (at < row_bytes) continue;
      at = 0;
      ++row;
    }
  }
};

// The panels of w of a task, which come for one chunk of k after the other: one is there to multiply with,
// the next is being packed, and memory is read ahead for those behind it.
class PanelsOfW {
 public:
  // Panels [p0, p1) over values [k_begin, k_begin + k) of the sum, for `tiles` tiles of x.
  PanelsOfW(const GemmArgs& g, int64_t k_begin, int64_t k, int64_t chunk, int64_t p0, int64_t p1,
            int64_t tiles)
      : g_(g), k_begin_(k_begin), k_(k), chunk_(chunk), p0_(p0), p1_(p1), tiles_(tiles) {
    // What is packed as f32 first needs its step twice.
    const int64_t floats = (chunk / 2 + kLanes) * kNr;
    there_ = cpu::scratch(cpu::Scratch::packed_w, 2 * floats);
    next_panel_ = there_ + floats;
    if (g.codes != nullptr)
      bits_ = g.codes->bits;
    else if (g.dense_bf16 != nullptr)
      bits_ = 16;
    // Memory far away comes best in pieces of some lines: of rows of k, those of several panels.
    if (g.layout != Layout::nt) group_ = kBytesAhead * 8 / (bits_ * kNr);
    ahead_ = lines_of({0, p0});
    ahead_.read(ahead_.count());
    begin({0, p0});
  }

  // Goes on to the next panel, which is the first at first.
  const float* next() {
    while (done_ < kc_of(next_)) pack_step();
    float* const panel = next_panel_;
    next_panel_ = there_;
    there_ = panel;
    begin(after(next_, 1));
    return panel;
  }
  // What is done beside every step of the tiles.
  void step() {
    ahead_.read(lines_a_step_);
    if (--left_ > 0) return;
    left_ = tiles_;
    if (done_ < kc_of(next_)) pack_step();
  }

 private:
  static constexpr int64_t kBytesAhead = 256;
  static constexpr int64_t kFew = 1 << 16;  // elements of w that are near: attention's, adapters'
  struct Place {
    int64_t k0, p;
  };
  Place after(Place at, int64_t panels) const {
    return at.p + panels < p1_ ? Place{at.k0, at.p + panels} : Place{at.k0 + chunk_, p0_};
  }
  int64_t kc_of(Place at) const { return larger(0, smaller(chunk_, k_ - at.k0)); }

  void begin(Place at) {
    next_ = at;
    done_ = 0;
    left_ = tiles_;
    if ((at.p - p0_) % group_ != 0) return;
    ahead_ = lines_of(after(at, group_));
    const int64_t steps = group_ * tiles_ * AmxTiles::steps(chunk_);
    lines_a_step_ = (ahead_.count() + steps - 1) / steps;
  }
  // One in `tiles` steps of the tiles packs one of the panel.
  __attribute__((noinline)) void pack_step() {
    const int64_t column = next_.p * kNr;
    pack_w<AmxTiles>(g_, k_begin_ + next_.k0 + done_, smaller(kAmxDepth, kc_of(next_) - done_), column,
                     smaller(kNr, g_.n - column), next_panel_ + done_ / 2 * kNr);
    done_ += kAmxDepth;
  }
  // Of a group of panels.
  LinesAhead lines_of(Place at) const {
    if (g_.n * g_.k < kFew) return {};
    const int64_t kc = kc_of(at), k = k_begin_ + at.k0, column = at.p * kNr;
    const int64_t cols = smaller(g_.n, smaller(p1_, at.p + group_) * kNr) - column;
    const bool rows_are_k = g_.layout != Layout::nt;
    const void* w = g_.dense;
    if (g_.codes != nullptr)
      w = g_.codes->data;
    else if (g_.dense_bf16 != nullptr)
      w = g_.dense_bf16;
    const int64_t ld = (g_.codes != nullptr ? g_.codes->cols : g_.ldw) * bits_ / 8;
    return {.p = static_cast<const uint8_t*>(w) +
                 (rows_are_k ? k * ld + column * bits_ / 8 : column * ld + k * bits_ / 8),
            .ld = ld,
            .row_bytes = (rows_are_k ? cols : kc) * bits_ / 8,
            .rows = rows_are_k ? kc : cols};
  }

  const GemmArgs& g_;
  int64_t k_begin_, k_, chunk_, p0_, p1_, tiles_;
  int64_t bits_ = 32, group_ = 1;  // of an element of w; panels read ahead together
  float *there_, *next_panel_;
  Place next_ = {};
  int64_t done_ = 0, left_ = 0;  // values of k packed; steps of the tiles until the next is
  LinesAhead ahead_;
  int64_t lines_a_step_ = 0;
};

// multiply() of gemm-inl.h with panels that come one after the other.
template <class Panels>
QLORA_INLINE void multiply_panels(const GemmArgs& g, const PackedX<AmxTiles>& packed, int64_t k_begin,
                                  int64_t k, int64_t t0, int64_t t1, int64_t p0, int64_t p1,
                                  Panels&& panels) {
  constexpr int64_t kRows = AmxTiles::kTileRows;
  float* delta_panels = nullptr;
  if (g.delta_count > 0)
    delta_panels = cpu::scratch(cpu::Scratch::delta_panels, delta_panel_floats<AmxTiles>(g));
  const AmxTiles::Session session;
  for (int64_t k0 = 0; k0 < k; k0 += packed.chunk) {
    const int64_t kc = smaller(packed.chunk, k - k0);
    const bool add = g.add || k_begin + k0 > 0;
    const bool finish = g.delta_count > 0 && k_begin + k0 + kc == g.k;
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t column = p * kNr, cols = smaller(kNr, g.n - column);
      if (finish) prefetch_delta_panels(g, t0 * kRows, t1 * kRows, column, cols);
      const float* panel = panels.next();
      if (finish) pack_delta_panels<AmxTiles>(g, t0 * kRows, t1 * kRows, column, cols, delta_panels);
      for (int64_t t = t0; t < t1; ++t) {
        const Destination d{g.y + t * kRows * g.ldy + column, g.ldy, g.alpha, add};
        multiply_tile_beside(smaller(kRows, g.m - t * kRows), kc, packed.at(t, k0 / packed.chunk, kc), panel,
                             d, cols, [&] { panels.step(); });
        if (!finish) continue;
        const FlushDenormals<true> flush;
        add_deltas<AmxTiles>(g, t, column, cols, delta_panels);
      }
    }
  }
}

template <>
void multiply<AmxTiles>(const GemmArgs& g, const PackedX<AmxTiles>& packed, int64_t k_begin, int64_t k,
                        int64_t t0, int64_t t1, int64_t p0, int64_t p1) {
  multiply_panels(g, packed, k_begin, k, t0, t1, p0, p1,
                  PanelsOfW(g, k_begin, k, packed.chunk, p0, p1, t1 - t0));
}

#endif
