// Activations, gated or not: element by element, with masked lanes at the end.

constexpr int64_t kElementsPerTask = 16384;

// act(g), and act'(g).
struct Curve {
  Vec value, slope;
};

struct Silu {
  QLORA_INLINE Vec value(Vec g) { return g * sigmoid(g); }
  // With s = sigmoid(g):  s (1 + g (1 - s)).
  QLORA_INLINE Curve at(Vec g) {
    const Vec s = sigmoid(g), one = set1(1.0f);
    return {g * s, s * fma(g, one - s, one)};
  }
};

// The density of the normal distribution, and the share of it that lies below x.
struct Normal {
  Vec density, below;
};

// Above |x| lies density(x) * M(|x|), where M falls from sqrt(pi / 2) like 1 / |x|: t = 1 / (1 + 0.4 |x|)
// times a polynomial of t, fitted here at the Chebyshev nodes of |x| from 0 to 14.5 (beyond, the density is 0
// in f32). Off by 3e-7 of it at most, so that small shares are as exact as large ones.
QLORA_INLINE Normal normal(Vec x) {
  const Vec size = max(x, zero() - x), one = set1(1.0f);
  const Vec t = one / fma(size, set1(0.4f), one);
  Vec p = set1(0.0811714828f);
  p = fma(p, t, set1(-0.445682675f));
  p = fma(p, t, set1(0.964465916f));
  p = fma(p, t, set1(-0.946090281f));
  p = fma(p, t, set1(0.306703895f));
  p = fma(p, t, set1(-0.071092315f));
  p = fma(p, t, set1(0.230208367f));
  p = fma(p, t, set1(0.333479524f));
  p = fma(p, t, set1(0.400154054f));
  p = fma(p, t, set1(0.399996221f));
  const Vec density = exp(set1(-0.5f) * x * x) * set1(0.398942280f);  // 1 / sqrt(2 pi)
  const Vec outside = density * (p * t);
  return {density, select(x < zero(), outside, one - outside)};
}

struct Gelu {
  QLORA_INLINE Vec value(Vec g) { return g * normal(g).below; }
  QLORA_INLINE Curve at(Vec g) {
    const Normal n = normal(g);
    return {g * n.below, fma(g, n.density, n.below)};
  }
};

// With s = sigmoid(2 u):  g s,  s + g s (1 - s) 2 u'.  With e = exp(-2 |u|) and t = 1 / (1 + e), nothing
// cancels: s is t or e t, and s (1 - s) is e t².
struct GeluTanh {
  struct Share {
    Vec s, rest;  // s (1 - s)
  };
  QLORA_INLINE Share share(Vec g) {
    const Vec twice = set1(1.59576912f) * fma(set1(0.044715f), g * g * g, g);  // 2 sqrt(2 / pi)
    const Vec e = exp(min(twice, zero() - twice)), one = set1(1.0f), t = one / (one + e), low = e * t;
    return {select(g < zero(), low, t), low * t};
  }
  QLORA_INLINE Vec value(Vec g) { return g * share(g).s; }
  QLORA_INLINE Curve at(Vec g) {
    const Share share_of_g = share(g);
    const Vec rise = set1(1.59576912f) * fma(set1(3 * 0.044715f), g * g, set1(1.0f));
    return {g * share_of_g.s, fma(g * share_of_g.rest, rise, share_of_g.s)};
  }
};

struct Relu {
  QLORA_INLINE Vec value(Vec g) { return max(zero(), g); }  // NaN stays: it comes second
  QLORA_INLINE Curve at(Vec g) { return {value(g), select(zero() < g, set1(1.0f), zero())}; }
};

template <class Kind, class Y>
static void activated_to(const Activate& a) {
  const auto *gate = static_cast<const float*>(a.gate), *up = static_cast<const float*>(a.up);
  auto* y = static_cast<Y*>(a.y);
  parallel(a.n, kElementsPerTask, [&](int64_t begin, int64_t end) {
    each(begin, end, [&](int64_t i, int64_t lanes) {
      const Vec value = Kind::value(load_some(gate + i, lanes));
      put_result(y + i, up != nullptr ? value * load_some(up + i, lanes) : value, false, lanes);
    });
  });
}
template <class Kind>
static void activated(const Activate& a) {
  a.y_type == DType::bf16 ? activated_to<Kind, uint16_t>(a) : activated_to<Kind, float>(a);
}

// All is read before anything is written: dgate and dup may lie over gate and up.
template <class Kind>
static void activated_backward(const ActivateBackward& a) {
  const auto *gate = static_cast<const float*>(a.gate), *up = static_cast<const float*>(a.up);
  const auto* dy = static_cast<const float*>(a.dy);
  auto *dgate = static_cast<float*>(a.dgate), *dup = static_cast<float*>(a.dup);
  parallel(a.n, kElementsPerTask, [&](int64_t begin, int64_t end) {
    each(begin, end, [&](int64_t i, int64_t lanes) {
      const Curve act = Kind::at(load_some(gate + i, lanes));
      const Vec d = load_some(dy + i, lanes);
      const Vec arriving = up != nullptr ? d * load_some(up + i, lanes) : d;
      if (dgate != nullptr) put(dgate + i, arriving * act.slope, a.gate_mode == Write::accumulate, lanes);
      if (dup != nullptr) put(dup + i, d * act.value, a.up_mode == Write::accumulate, lanes);
    });
  });
}

static void activate(const Activate& a) {
  switch (a.kind) {
    case Activation::silu:
      return activated<Silu>(a);
    case Activation::gelu:
      return activated<Gelu>(a);
    case Activation::gelu_tanh:
      return activated<GeluTanh>(a);
    case Activation::relu:
      return activated<Relu>(a);
  }
}

static void activate_backward(const ActivateBackward& a) {
  switch (a.kind) {
    case Activation::silu:
      return activated_backward<Silu>(a);
    case Activation::gelu:
      return activated_backward<Gelu>(a);
    case Activation::gelu_tanh:
      return activated_backward<GeluTanh>(a);
    case Activation::relu:
      return activated_backward<Relu>(a);
  }
}
