// Norms, activations, rotary embedding and dropout: row by row or element by element. Tails run the same
// instructions on masked lanes, so an element's bits do not depend on where it stands.

// body(i, lanes) over [begin, end), lanes = kLanes but for the last.
template <class F>
QLORA_INLINE void each(int64_t begin, int64_t end, const F& body) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) body(i, kLanes);
  if (i < end) body(i, end - i);
}

QLORA_INLINE void put(float* p, Vec value, bool add, int64_t lanes) {
  store_some(p, add ? load_some(p, lanes) + value : value, lanes);
}

constexpr int64_t kElementsPerTask = 16384;

// y = x / sqrt(mean(x²) + eps) * w. Squares are summed in kLanes partial sums over the columns.
static void rms_norm(const RmsNorm& a) {
  const auto* w = static_cast<const float*>(a.w);
  parallel(a.rows, rows_per_task(a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(a.x) + row * a.cols;
      float* y = static_cast<float*>(a.y) + row * a.cols;
      Vec squares = zero();
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        const Vec v = load_some(x + c, lanes);
        squares = fma(v, v, squares);
      });
      const double mean = static_cast<double>(sum(squares)) / static_cast<double>(a.cols);
      const float rstd = static_cast<float>(1.0 / __builtin_sqrt(mean + a.eps));
      if (a.rstd != nullptr) static_cast<float*>(a.rstd)[row] = rstd;
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        store_some(y + c, load_some(x + c, lanes) * set1(rstd) * load_some(w + c, lanes), lanes);
      });
    }
  });
}

// With g = dy * w:  dx = rstd * (g - x * rstd² * mean(g * x)).
static void rms_norm_backward(const RmsNormBackward& a) {
  const auto* w = static_cast<const float*>(a.w);
  const bool add = a.mode == Write::accumulate;
  parallel(a.rows, rows_per_task(a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(a.x) + row * a.cols;
      const float* dy = static_cast<const float*>(a.dy) + row * a.cols;
      float* dx = static_cast<float*>(a.dx) + row * a.cols;
      const float rstd = static_cast<const float*>(a.rstd)[row];
      Vec products = zero();
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        products = fma(load_some(dy + c, lanes) * load_some(w + c, lanes), load_some(x + c, lanes), products);
      });
      const float pull = rstd * rstd * (sum(products) / static_cast<float>(a.cols));
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        const Vec g = load_some(dy + c, lanes) * load_some(w + c, lanes);
        put(dx + c, set1(rstd) * fnma(load_some(x + c, lanes), set1(pull), g), add, lanes);
      });
    }
  });
}

// y = silu(gate) * up
static void swiglu(const SwiGlu& a) {
  const auto *gate = static_cast<const float*>(a.gate), *up = static_cast<const float*>(a.up);
  auto* y = static_cast<float*>(a.y);
  parallel(a.n, kElementsPerTask, [&](int64_t begin, int64_t end) {
    each(begin, end, [&](int64_t i, int64_t lanes) {
      const Vec g = load_some(gate + i, lanes);
      store_some(y + i, g * sigmoid(g) * load_some(up + i, lanes), lanes);
    });
  });
}

// With s = sigmoid(g):  d silu / dg = s (1 + g (1 - s)). All is read before anything is written: dgate and
// dup may lie over gate and up.
static void swiglu_backward(const SwiGluBackward& a) {
  const auto *gate = static_cast<const float*>(a.gate), *up = static_cast<const float*>(a.up);
  const auto* dy = static_cast<const float*>(a.dy);
  auto *dgate = static_cast<float*>(a.dgate), *dup = static_cast<float*>(a.dup);
  parallel(a.n, kElementsPerTask, [&](int64_t begin, int64_t end) {
    each(begin, end, [&](int64_t i, int64_t lanes) {
      const Vec g = load_some(gate + i, lanes), u = load_some(up + i, lanes), d = load_some(dy + i, lanes);
      const Vec s = sigmoid(g), one = set1(1.0f);
      if (dgate != nullptr)
        put(dgate + i, d * u * (s * fma(g, one - s, one)), a.gate_mode == Write::accumulate, lanes);
      if (dup != nullptr) put(dup + i, d * (g * s), a.up_mode == Write::accumulate, lanes);
    });
  });
}

// y1 = x1 cos - x2 sin,  y2 = x2 cos + x1 sin
static void rope(const Rope& a) {
  const int64_t half = a.head_dim / 2;
  const bool add = a.mode == Write::accumulate;
  const Vec sign = set1(a.inverse ? -1.0f : 1.0f);
  parallel(a.rows, rows_per_task(a.heads * a.head_dim), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * a.heads; i < end * a.heads; ++i) {
      const float* cos = static_cast<const float*>(a.cos) + i / a.heads * half;
      const float* sin = static_cast<const float*>(a.sin) + i / a.heads * half;
      const float* x = static_cast<const float*>(a.x) + i * a.head_dim;
      float* y = static_cast<float*>(a.y) + i * a.head_dim;
      each(0, half, [&](int64_t j, int64_t lanes) {
        const Vec x1 = load_some(x + j, lanes), x2 = load_some(x + j + half, lanes);
        const Vec c = load_some(cos + j, lanes), s = load_some(sin + j, lanes) * sign;
        put(y + j, fnma(x2, s, x1 * c), add, lanes);
        put(y + j + half, fma(x1, s, x2 * c), add, lanes);
      });
    }
  });
}

// Philox4x32-10 (core/base/philox.h) for kLanes counters that differ in the first word.
struct PhiloxKey {
  uint64_t key;
  uint32_t position, example, step;
};
QLORA_INLINE void philox_lanes(const PhiloxKey& key, IVec c0, IVec (&out)[4]) {
  IVec c1 = iset1(static_cast<int32_t>(key.position)), c2 = iset1(static_cast<int32_t>(key.example));
  IVec c3 = iset1(static_cast<int32_t>(key.step));
  auto k0 = static_cast<uint32_t>(key.key), k1 = static_cast<uint32_t>(key.key >> 32);
  const IVec m0 = iset1(static_cast<int32_t>(0xD2511F53u)), m1 = iset1(static_cast<int32_t>(0xCD9E8D57u));
  for (int round = 0; round < 10; ++round) {
    IVec high0, low0, high1, low1;
    multiply_wide(c0, m0, &high0, &low0);
    multiply_wide(c2, m1, &high1, &low1);
    c0 = high1 ^ c1 ^ iset1(static_cast<int32_t>(k0));
    c2 = high0 ^ c3 ^ iset1(static_cast<int32_t>(k1));
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// One row of dropout. A counter gives four neighbouring columns; lane 4q + j takes counter j * (kLanes / 4) +
// q, so that transposing fours puts the numbers in the order of the columns.
QLORA_INLINE void drop_row(const DropArgs& a, const PhiloxKey& key, const float* x, float* y) {
  constexpr int kQuarter = kLanes / 4;
  alignas(64) int32_t order[kLanes];
  for (int i = 0; i < kLanes; ++i) order[i] = i % 4 * kQuarter + i / 4;
  const IVec lanes_order = iload(order);
  for (int64_t column = 0; column < a.cols; column += 4 * kLanes) {
    IVec bits[4];
    philox_lanes(key, iset1(static_cast<int32_t>(column / 4)) + lanes_order, bits);
    transpose4(bits);
    for (int j = 0; j < 4; ++j) {
      const int64_t c = column + j * kLanes;
      if (c >= a.cols) break;
      const int64_t lanes = smaller(kLanes, a.cols - c);
      const Vec uniform = to_float(shift_right<8>(bits[j])) * set1(0x1p-24f);
      const Vec kept = select(uniform < set1(a.p), zero(), load_some(x + c, lanes) * set1(a.factor));
      put(y + c, kept, a.add, lanes);
    }
  }
}

static void drop_rows(const DropArgs& a) {
  parallel(a.rows, larger(1, rows_per_task(a.cols) / 4), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      drop_row(a, {a.key, a.keys[row].position, a.keys[row].example, a.step}, a.x + row * a.cols,
               a.y + row * a.cols);
  });
}
