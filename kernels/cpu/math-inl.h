// Elementary functions.

// exp(x) to about one unit in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, Taylor's series of exp(r)
// to the seventh power (the rest is below 2^-27), times 2^n in two steps so that subnormal results and
// infinity come out. NaN stays NaN: the limit comes first in min, and NaN is not below it.
QLORA_INLINE Vec exp(Vec x) {
  // Masked scores would be results too small for f32, which Intel's processors round in hundreds of cycles.
  const Mask nothing = x < set1(-104.0f);
  x = select(nothing, zero(), min(set1(89.0f), x));
  const Vec n = round(x * set1(1.44269504f));
  // ln 2 as a sum of two floats; the products are fused, so the first is exact.
  const Vec r = fnma(n, set1(-1.90465430e-9f), fnma(n, set1(0.693147182f), x));
  Vec p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  const IVec whole = to_int(n), half_of_it = shift_right_signed<1>(whole);
  const IVec bias = iset1(127);
  const Vec first = as_float(shift_left<23>(half_of_it + bias));
  const Vec second = as_float(shift_left<23>(whole - half_of_it + bias));
  return select(nothing, zero(), p * first * second);
}

// 1 / (1 + exp(-x))
QLORA_INLINE Vec sigmoid(Vec x) {
  return set1(1.0f) / (set1(1.0f) + exp(zero() - x));
}

// tanh(x) to a few units in the last place, as e / (e + 2) with e = exp(2 x) - 1: as exp(), but 1 is left out
// of the series and comes in last, so that nothing cancels where x is small. From 10 on it is 1 in f32.
QLORA_INLINE Vec tanh(Vec x) {
  const Vec y = max(set1(-20.0f), min(set1(20.0f), x + x));
  const Vec n = round(y * set1(1.44269504f));
  const Vec r = fnma(n, set1(-1.90465430e-9f), fnma(n, set1(0.693147182f), y));
  Vec p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  const Vec power = as_float(shift_left<23>(to_int(n) + iset1(127)));
  const Vec e = fma(power, p * r, power - set1(1.0f));
  return e / (e + set1(2.0f));
}

// Of a softcap: cap tanh(x / cap).
struct Cap {
  Vec cap, inverse;
};
QLORA_INLINE Cap cap_of(double cap) {
  return {set1(static_cast<float>(cap)), set1(static_cast<float>(1 / cap))};
}
QLORA_INLINE Vec capped(const Cap& c, Vec x) {
  return c.cap * tanh(x * c.inverse);
}

static void exp_many(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t lanes = smaller(kLanes, n - i);
    store_some(y + i, exp(load_some(x + i, lanes)), lanes);
  }
}
