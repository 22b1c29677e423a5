// Norms, rotary embedding and columns: row by row. Tails run the same instructions on masked lanes, so an
// element's bits do not depend on where it stands.

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

// A result as it is stored: f32, or an operand, never added to.
QLORA_INLINE void put_result(float* p, Vec value, bool add, int64_t lanes) {
  put(p, value, add, lanes);
}
QLORA_INLINE void put_result(uint16_t* p, Vec value, bool, int64_t lanes) {
  store_operands(p, value, lanes);
}

// y = x / sqrt(mean(x²) + eps) * w, also of x + residual. Squares are summed in kLanes partial sums over the
// columns.
template <class Y>
static void rms_norm_to(const RmsNorm& a) {
  const auto* w = static_cast<const float*>(a.w);
  parallel(a.rows, rows_per_task(a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(a.x) + row * a.cols;
      Y* y = static_cast<Y*>(a.y) + row * a.cols;
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
        put_result(y + c, load_some(x + c, lanes) * set1(rstd) * load_some(w + c, lanes), false, lanes);
      });
    }
  });
}
static void rms_norm(const RmsNorm& a) {
  a.y_type == DType::bf16 ? rms_norm_to<uint16_t>(a) : rms_norm_to<float>(a);
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

// y = (x - mean) / sqrt(mean((x - mean)²) + eps) * w + bias, also of x + residual. Sums as in rms_norm, the
// second over a row that the first has read.
template <class Y>
static void layer_norm_to(const LayerNorm& a) {
  const auto *w = static_cast<const float*>(a.w), *bias = static_cast<const float*>(a.bias);
  const double n = static_cast<double>(a.cols);
  parallel(a.rows, rows_per_task(a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(a.x) + row * a.cols;
      Y* y = static_cast<Y*>(a.y) + row * a.cols;
      Vec total = zero(), squares = zero();
      if (a.residual != nullptr) {
        const float* residual = static_cast<const float*>(a.residual) + row * a.cols;
        float* both = static_cast<float*>(a.sum) + row * a.cols;
        each(0, a.cols, [&](int64_t c, int64_t lanes) {
          const Vec v = load_some(x + c, lanes) + load_some(residual + c, lanes);
          store_some(both + c, v, lanes);
          total = total + v;
        });
        x = both;
      } else {
        each(0, a.cols, [&](int64_t c, int64_t lanes) { total = total + load_some(x + c, lanes); });
      }
      const float mean = static_cast<float>(static_cast<double>(sum(total)) / n);
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        const Vec off = first_n(load_some(x + c, lanes) - set1(mean), lanes, zero());
        squares = fma(off, off, squares);
      });
      const float rstd =
          static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(sum(squares)) / n + a.eps));
      if (a.mean != nullptr) static_cast<float*>(a.mean)[row] = mean;
      if (a.rstd != nullptr) static_cast<float*>(a.rstd)[row] = rstd;
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        const Vec h = (load_some(x + c, lanes) - set1(mean)) * set1(rstd);
        const Vec b = bias != nullptr ? load_some(bias + c, lanes) : zero();
        put_result(y + c, fma(h, load_some(w + c, lanes), b), false, lanes);
      });
    }
  });
}
static void layer_norm(const LayerNorm& a) {
  a.y_type == DType::bf16 ? layer_norm_to<uint16_t>(a) : layer_norm_to<float>(a);
}

// With h = (x - mean) rstd and g = dy * w:  dx = rstd * (g - mean(g) - h * mean(g * h)), added to what is in
// dx or beside it. Lanes past the row have g = 0.
static void layer_norm_backward(const LayerNormBackward& a) {
  const auto* w = static_cast<const float*>(a.w);
  const auto* before = static_cast<const float*>(a.mode == Write::accumulate ? a.dx : a.beside);
  parallel(a.rows, rows_per_task(a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(a.x) + row * a.cols;
      const float* dy = static_cast<const float*>(a.dy) + row * a.cols;
      float* dx = static_cast<float*>(a.dx) + row * a.cols;
      const Vec mean = set1(static_cast<const float*>(a.mean)[row]);
      const Vec rstd = set1(static_cast<const float*>(a.rstd)[row]);
      Vec gradients = zero(), products = zero();
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        const Vec g = load_some(dy + c, lanes) * load_some(w + c, lanes);
        gradients = gradients + g;
        products = fma(g, (load_some(x + c, lanes) - mean) * rstd, products);
      });
      const float n = static_cast<float>(a.cols);
      const Vec level = set1(sum(gradients) / n), pull = set1(sum(products) / n);
      each(0, a.cols, [&](int64_t c, int64_t lanes) {
        const Vec g = load_some(dy + c, lanes) * load_some(w + c, lanes);
        const Vec h = (load_some(x + c, lanes) - mean) * rstd;
        const Vec own = rstd * fnma(h, pull, g - level);
        store_some(dx + c, before != nullptr ? load_some(before + row * a.cols + c, lanes) + own : own,
                   lanes);
      });
    }
  });
}

// y1 = x1 cos - x2 sin,  y2 = x2 cos + x1 sin, and what lies past them as it is
template <class Y>
static void rope_to(const Rope& a) {
  const int64_t turned = a.rotary_dim > 0 ? a.rotary_dim : a.head_dim, half = turned / 2;
  const bool add = a.mode == Write::accumulate;
  const Vec sign = set1(a.inverse ? -1.0f : 1.0f);
  parallel(a.rows, rows_per_task(a.heads * a.head_dim), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * a.heads; i < end * a.heads; ++i) {
      const float* cos = static_cast<const float*>(a.cos) + i / a.heads * half;
      const float* sin = static_cast<const float*>(a.sin) + i / a.heads * half;
      const float* x = static_cast<const float*>(a.x) + i * a.head_dim;
      Y* y = static_cast<Y*>(a.y) + i * a.head_dim;
      each(0, half, [&](int64_t j, int64_t lanes) {
        const Vec x1 = load_some(x + j, lanes), x2 = load_some(x + j + half, lanes);
        const Vec c = load_some(cos + j, lanes), s = load_some(sin + j, lanes) * sign;
        put_result(y + j, fnma(x2, s, x1 * c), add, lanes);
        put_result(y + j + half, fma(x1, s, x2 * c), add, lanes);
      });
      each(turned, a.head_dim,
           [&](int64_t j, int64_t lanes) { put_result(y + j, load_some(x + j, lanes), add, lanes); });
    }
  });
}
static void rope(const Rope& a) {
  a.y_type == DType::bf16 ? rope_to<uint16_t>(a) : rope_to<float>(a);
}

static void copy_columns(const CopyColumns& a) {
  const bool add = a.mode == Write::accumulate;
  parallel(a.rows, rows_per_task(a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(a.x) + row * a.x_stride;
      float* y = static_cast<float*>(a.y) + row * a.y_stride;
      each(0, a.cols, [&](int64_t c, int64_t lanes) { put(y + c, load_some(x + c, lanes), add, lanes); });
    }
  });
}
