// Norms, activations and rotary embedding: row by row or element by element. Tails run the same
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

// y = x / sqrt(mean(x²) + eps) * w, also of x + residual. Squares are summed in kLanes partial sums over the
// columns.
static void rms_norm(const RmsNorm& a) {
  const auto* w = static_cast<const float*>(a.w);
  parallel(a.rows, rows_per_task(a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(a.x) + row * a.cols;
      float* y = static_cast<float*>(a.y) + row * a.cols;
      Vec squares = zero();
      if (a.residual != nullptr) {
        const float* residual = static_cast<const float*>(a.residual) + row * a.cols;
        float* total = static_cast<float*>(a.sum) + row * a.cols;
        each(0, a.cols, [&](int64_t c, int64_t lanes) {
          const Vec v = load_some(x + c, lanes) + load_some(residual + c, lanes);
          store_some(total + c, v, lanes);
          squares = fma(v, v, squares);
        });
        x = total;
      } else {
        each(0, a.cols, [&](int64_t c, int64_t lanes) {
          const Vec v = load_some(x + c, lanes);
          squares = fma(v, v, squares);
        });
      }
      const double mean = static_cast<double>(sum(squares)) / static_cast<double>(a.cols);
      const float rstd = static_cast<float>(1.0 / __builtin_sqrt(mean + a.eps));
      if (a.rstd != nullptr) static_cast<float*>(a.rstd)[row] = rstd;
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        store_some(y + c, load_some(x + c, lanes) * set1(rstd) * load_some(w + c, lanes), lanes);
      });
    }
  });
}

// With g = dy * w:  dx = rstd * (g - x * rstd² * mean(g * x)), added to what is in dx or beside it.
static void rms_norm_backward(const RmsNormBackward& a) {
  const auto* w = static_cast<const float*>(a.w);
  const auto* before = static_cast<const float*>(a.mode == Write::accumulate ? a.dx : a.beside);
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
        const Vec own = set1(rstd) * fnma(load_some(x + c, lanes), set1(pull), g);
        store_some(dx + c, before != nullptr ? load_some(before + row * a.cols + c, lanes) + own : own,
                   lanes);
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
