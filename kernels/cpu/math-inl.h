// Elementary functions.

// exp(x) to about one unit in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, Taylor's series of exp(r)
// to the seventh power (the rest is below 2^-27), times 2^n in two steps so that subnormal results and
// infinity come out. NaN stays NaN: the limits come first in min and max.
QLORA_INLINE Vec exp(Vec x) {
  x = max(set1(-105.0f), min(set1(89.0f), x));
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
  return p * first * second;
}

// 1 / (1 + exp(-x))
QLORA_INLINE Vec sigmoid(Vec x) {
  return set1(1.0f) / (set1(1.0f) + exp(zero() - x));
}

static void exp_many(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t lanes = smaller(kLanes, n - i);
    store_some(y + i, exp(load_some(x + i, lanes)), lanes);
  }
}
