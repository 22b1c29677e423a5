// Dropout: a bit for every element, drawn once per call of a layer, and applied where the elements are read
// or added. Random numbers are Philox4x32-10 (core/base/philox.h).

constexpr uint32_t kPhiloxFirst = 0xD2511F53u, kPhiloxSecond = 0xCD9E8D57u;

// Elements stay where the number's upper 24 bits reach the threshold: uniform01(number) >= p.
struct Philox {
  IVec keys[10][2];  // of every round
  IVec order;        // of the counters in the even words, such that columns come out in order
  IVec threshold;
  uint32_t step, key0;

  explicit Philox(const Draw& d) : step(d.step), key0(static_cast<uint32_t>(d.key)) {
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

// Of the four words of a counter, column and step begin the one half, position and example the other. So of
// the first two rounds one half depends on the column alone and one on the row alone: these are made once for
// many rows, or for many columns, and joined by two xors.
struct RowRounds {
  IVec c0, c2, c3;
  RowRounds(const Philox& philox, RowKey row) {
    const uint64_t second = uint64_t{kPhiloxSecond} * row.example;
    const uint32_t word = static_cast<uint32_t>(second >> 32) ^ row.position ^ philox.key0;
    const uint64_t first = uint64_t{kPhiloxFirst} * word;
    c0 = iset1(static_cast<int32_t>(second));
    c2 = iset1(static_cast<int32_t>(first >> 32));
    c3 = iset1(static_cast<int32_t>(first));
  }
};

// The counters of 2 kLanes columns; they stand in the even words, where products of 32 bits are taken, and
// what the odd words hold is never read.
struct ColumnRounds {
  IVec c0, c1, c2;
  void make(const Philox& philox, int64_t column) {
    const IVec counters = iset1(static_cast<int32_t>(column / 4)) + philox.order;
    const IVec first = multiply_even(counters, iset1(static_cast<int32_t>(kPhiloxFirst)));
    const IVec word = odd_words(first) ^ iset1(static_cast<int32_t>(philox.step)) ^ philox.keys[0][1];
    const IVec second = multiply_even(word, iset1(static_cast<int32_t>(kPhiloxSecond)));
    c0 = odd_words(second) ^ philox.keys[1][0];
    c1 = second;
    c2 = first ^ philox.keys[1][1];
  }
};

// Bits of 4 kLanes columns of a row, those of columns[0] and [1]: two sets of counters hide each other's
// latency. A counter gives four bits.
QLORA_INLINE void draw_columns(const Philox& philox, const RowRounds& row, const ColumnRounds* columns,
                               uint8_t* bits) {
  const IVec m0 = iset1(static_cast<int32_t>(kPhiloxFirst)), m1 = iset1(static_cast<int32_t>(kPhiloxSecond));
  IVec c0[2], c1[2], c2[2], c3[2];
  for (int i = 0; i < 2; ++i) {
    c0[i] = columns[i].c0 ^ row.c0;
    c1[i] = columns[i].c1;
    c2[i] = columns[i].c2 ^ row.c2;
    c3[i] = row.c3;
  }
#pragma GCC unroll 8
  for (int round = 2; round < 10; ++round)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const IVec first = multiply_even(c0[i], m0), second = multiply_even(c2[i], m1);
      c0[i] = odd_words(second) ^ c1[i] ^ philox.keys[round][0];
      c2[i] = odd_words(first) ^ c3[i] ^ philox.keys[round][1];
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

// body(row, column, bits) for rows [begin, end) and every 4 kLanes of their columns, as draw_columns() draws
// them into room(row, column).
template <class Room, class Body>
QLORA_INLINE void draw_each(const Draw& d, int64_t begin, int64_t end, int64_t cols, const Room& room,
                            const Body& body) {
  constexpr int64_t kWidth = 4 * kLanes, kTogether = 32;
  const Philox philox(d);
  ColumnRounds columns[2 * kTogether];
  for (int64_t first = 0; first < cols; first += kTogether * kWidth) {
    const int64_t count = smaller(kTogether, (cols - first + kWidth - 1) / kWidth);
    for (int64_t i = 0; i < 2 * count; ++i) columns[i].make(philox, first + i * (2 * kLanes));
    for (int64_t row = begin; row < end; ++row) {
      const RowRounds of_row(philox, d.keys[row]);
      for (int64_t i = 0; i < count; ++i) {
        uint8_t* const bits = room(row, first + i * kWidth);
        draw_columns(philox, of_row, columns + 2 * i, bits);
        body(row, first + i * kWidth, bits);
      }
    }
  }
}

// Bits of rows [begin, end) of `cols` columns, as Kept has them.
static void draw_rows(const Draw& d, int64_t begin, int64_t end, int64_t cols, uint8_t* bits, int64_t ld) {
  draw_each(
      d, begin, end, cols,
      [&](int64_t row, int64_t column) { return bits + (row - begin) * ld + column / 8; },
      [](int64_t, int64_t, const uint8_t*) {});
}

static void drop_rows(const DropArgs& a) {
  const Draw draw{a.keys, a.key, a.step, a.p};
  parallel(a.rows, larger(1, rows_per_task(a.cols) / 4), [&](int64_t begin, int64_t end) {
    uint8_t room[kLanes / 2];
    draw_each(
        draw, begin, end, a.cols, [&](int64_t, int64_t) { return room; },
        [&](int64_t row, int64_t first, const uint8_t* bits) {
          const float* x = a.x + row * a.cols;
          float* y = a.y + row * a.cols;
          for (int64_t c = first; c < smaller(a.cols, first + 4 * kLanes); c += kLanes) {
            const int64_t lanes = smaller(kLanes, a.cols - c);
            const Vec kept =
                keep(load_some(x + c, lanes) * set1(a.factor), load_bits(bits + (c - first) / 8));
            store_some(y + c, a.add ? load_some(y + c, lanes) + kept : kept, lanes);
          }
        });
  });
}
