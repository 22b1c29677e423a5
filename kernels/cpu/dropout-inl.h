// Dropout: a bit for every element, drawn once per call of a layer, and applied where the elements are read
// or added. Random numbers are Philox4x32-10 (core/base/philox.h).

// Elements stay where the number's upper 24 bits reach the threshold: uniform01(number) >= p.
struct Philox {
  IVec keys[10][2];  // of every round
  IVec order;        // of the counters in the even words, such that columns come out in order
  IVec threshold;
  uint32_t step;

  explicit Philox(const Draw& d) : step(d.step) {
    auto k0 = static_cast<uint32_t>(d.key), k1 = static_cast<uint32_t>(d.key >> 32);
    for (auto& round : keys) {
      round[0] = iset1(static_cast<int32_t>(k0));
      round[1] = iset1(static_cast<int32_t>(k1));
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    alignas(64) int32_t counters[kLanes] = {};
    for (int i = 0; i < kLanes / 2; ++i) counters[2 * i] = i % 2 * (kLanes / 4) + i / 2;
    order = iload(counters);
    const float limit = d.p * 0x1p24f;
    auto whole = static_cast<int32_t>(limit);
    if (static_cast<float>(whole) < limit) ++whole;
    threshold = iset1(whole);
  }
};

QLORA_INLINE void store_bits(uint8_t* p, uint32_t bits) {
  __builtin_memcpy(p, &bits, kLanes / 8);
}
QLORA_INLINE uint32_t load_bits(const uint8_t* p) {
  uint32_t bits = 0;
  __builtin_memcpy(&bits, p, kLanes / 8);
  return bits;
}

// Bits of 4 kLanes columns of a row. A counter gives four of them; counters stand in the even words, where
// products of 32 bits are taken, and what the odd words hold is never read. Two sets of counters hide each
// other's latency.
QLORA_INLINE void draw_columns(const Philox& philox, RowKey row, int64_t column, uint8_t* bits) {
  const IVec m0 = iset1(static_cast<int32_t>(0xD2511F53u)), m1 = iset1(static_cast<int32_t>(0xCD9E8D57u));
  IVec c0[2], c1[2], c2[2], c3[2];
  for (int i = 0; i < 2; ++i) {
    c0[i] = iset1(static_cast<int32_t>(column / 4 + i * (kLanes / 2))) + philox.order;
    c1[i] = iset1(static_cast<int32_t>(row.position));
    c2[i] = iset1(static_cast<int32_t>(row.example));
    c3[i] = iset1(static_cast<int32_t>(philox.step));
  }
  for (const auto& keys : philox.keys)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const IVec first = multiply_even(c0[i], m0), second = multiply_even(c2[i], m1);
      c0[i] = odd_words(second) ^ c1[i] ^ keys[0];
      c2[i] = odd_words(first) ^ c3[i] ^ keys[1];
      c1[i] = second;
      c3[i] = first;
    }
  for (int i = 0; i < 2; ++i) {
    const IVec low = join_even(c0[i], c1[i]), high = join_even(c2[i], c3[i]);
    uint8_t* p = bits + i * (2 * kLanes / 8);
    store_bits(p, ~less_bits(shift_right<8>(even_pairs(low, high)), philox.threshold));
    store_bits(p + kLanes / 8, ~less_bits(shift_right<8>(odd_pairs(low, high)), philox.threshold));
  }
}

// Bits of rows [begin, end) of `cols` columns, as Kept has them.
static void draw_rows(const Draw& d, int64_t begin, int64_t end, int64_t cols, uint8_t* bits, int64_t ld) {
  const Philox philox(d);
  for (int64_t row = begin; row < end; ++row, bits += ld)
    for (int64_t c = 0; c < cols; c += 4 * kLanes) draw_columns(philox, d.keys[row], c, bits + c / 8);
}

static void drop_rows(const DropArgs& a) {
  const Draw draw{a.keys, a.key, a.step, a.p};
  parallel(a.rows, larger(1, rows_per_task(a.cols) / 4), [&](int64_t begin, int64_t end) {
    const Philox philox(draw);
    for (int64_t row = begin; row < end; ++row) {
      const float* x = a.x + row * a.cols;
      float* y = a.y + row * a.cols;
      for (int64_t first = 0; first < a.cols; first += 4 * kLanes) {
        uint8_t bits[kLanes / 2];
        draw_columns(philox, a.keys[row], first, bits);
        for (int64_t c = first; c < smaller(a.cols, first + 4 * kLanes); c += kLanes) {
          const int64_t lanes = smaller(kLanes, a.cols - c);
          const Vec kept = keep(load_some(x + c, lanes) * set1(a.factor), load_bits(bits + (c - first) / 8));
          store_some(y + c, a.add ? load_some(y + c, lanes) + kept : kept, lanes);
        }
      }
    }
  });
}
