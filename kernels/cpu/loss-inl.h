// Cross-entropy over large vocabularies: one pass for the largest logit, one for the sum of exponentials
// (kept in dlogits where it is wanted), one to scale.

QLORA_INLINE int32_t first_index_of(const float* x, int64_t n, float value) {
  for (int64_t c = 0; c < n; ++c)
    if (x[c] == value) return static_cast<int32_t>(c);
  return 0;
}

QLORA_INLINE float largest_of(const float* x, int64_t n) {
  const Vec least = set1(-__builtin_inff());
  Vec best[4] = {least, least, least, least};
  int64_t c = 0;
  for (; c + 4 * kLanes <= n; c += 4 * kLanes)
    for (int i = 0; i < 4; ++i) best[i] = max(load(x + c + i * kLanes), best[i]);
  for (; c < n; c += kLanes) {
    const int64_t lanes = smaller(kLanes, n - c);
    best[0] = max(first_n(load_some(x + c, lanes), lanes, least), best[0]);
  }
  return largest(max(max(best[0], best[1]), max(best[2], best[3])));
}

// Sum over c of exp(x[c] - shift); the exponentials go to y when it is not null. Partial sums of 4,096
// elements are added in f64.
static double sum_of_exponentials(const float* x, int64_t n, float shift, float* y) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 4096) {
    Vec partial = zero();
    each(begin, smaller(n, begin + 4096), [&](int64_t c, int64_t lanes) {
      const Vec e = exp(load_some(x + c, lanes) - set1(shift));
      if (y != nullptr) store_some(y + c, e, lanes);
      partial = partial + (lanes == kLanes ? e : first_n(e, lanes, zero()));
    });
    total += static_cast<double>(sum(partial));
  }
  return total;
}

// Sum over c of exp(capped x[c] - shift), as above; the capped logits go to y when it is not null.
static double sum_of_capped(const float* x, int64_t n, const Cap& cap, float shift, float* y) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 4096) {
    Vec partial = zero();
    each(begin, smaller(n, begin + 4096), [&](int64_t c, int64_t lanes) {
      const Vec v = capped(cap, load_some(x + c, lanes)), e = exp(v - set1(shift));
      if (y != nullptr) store_some(y + c, v, lanes);
      partial = partial + (lanes == kLanes ? e : first_n(e, lanes, zero()));
    });
    total += static_cast<double>(sum(partial));
  }
  return total;
}

// loss and dlogits of one row of capped logits; `most` is its largest logit as given. Exponentials are
// computed twice, since the slope of the cap is wanted beside them. Not inlined, so that rows without a cap
// run as if this were not here.
[[gnu::noinline]] static void capped_entropy_row(const CrossEntropy& a, int64_t row, float most) {
  const float* x = static_cast<const float*>(a.logits) + row * a.vocab;
  float* dx = a.dlogits == nullptr ? nullptr : static_cast<float*>(a.dlogits) + row * a.vocab;
  const int32_t target = a.targets[row];
  const Cap cap = cap_of(a.softcap);
  const float top = largest(capped(cap, set1(most))), at_target = largest(capped(cap, set1(x[target])));
  const double total = sum_of_capped(x, a.vocab, cap, top, dx);
  static_cast<float*>(a.loss)[row] =
      static_cast<float>(__builtin_log(total) + static_cast<double>(top) - static_cast<double>(at_target));
  if (dx == nullptr) return;
  const float weight = a.weights == nullptr ? 1.0f : a.weights[row];
  const Vec share = set1(static_cast<float>(static_cast<double>(weight) / total));
  each(0, a.vocab, [&](int64_t c, int64_t lanes) {
    const Vec v = load_some(dx + c, lanes), t = v * cap.inverse;
    store_some(dx + c, exp(v - set1(top)) * share * fnma(t, t, set1(1.0f)), lanes);
  });
  const float t = at_target / static_cast<float>(a.softcap);
  dx[target] -= weight * (1.0f - t * t);
}

static void softcap(const Softcap& a) {
  const auto* x = static_cast<const float*>(a.x);
  auto* y = static_cast<float*>(a.y);
  parallel(a.n, kElementsPerTask, [&](int64_t begin, int64_t end) {
    const Cap cap = cap_of(a.cap);
    each(begin, end,
         [&](int64_t i, int64_t lanes) { store_some(y + i, capped(cap, load_some(x + i, lanes)), lanes); });
  });
}

QLORA_INLINE void entropy_row(const CrossEntropy& a, int64_t row) {
  const float* x = static_cast<const float*>(a.logits) + row * a.vocab;
  float* dx = a.dlogits == nullptr ? nullptr : static_cast<float*>(a.dlogits) + row * a.vocab;
  float& loss = static_cast<float*>(a.loss)[row];
  const int32_t target = a.targets[row];
  const float top = target >= 0 || a.argmax != nullptr ? largest_of(x, a.vocab) : 0.0f;
  if (a.argmax != nullptr) a.argmax[row] = first_index_of(x, a.vocab, top);
  if (target < 0) {
    loss = 0;
    if (dx != nullptr) __builtin_memset(dx, 0, static_cast<size_t>(a.vocab) * sizeof(float));
    return;
  }
  if (a.softcap > 0) return capped_entropy_row(a, row, top);
  const float at_target = x[target];  // before dlogits overwrite the logits
  const double total = sum_of_exponentials(x, a.vocab, top, dx);
  loss = static_cast<float>(__builtin_log(total) + static_cast<double>(top) - static_cast<double>(at_target));
  if (dx == nullptr) return;
  const float weight = a.weights == nullptr ? 1.0f : a.weights[row];
  const Vec share = set1(static_cast<float>(static_cast<double>(weight) / total));
  each(0, a.vocab,
       [&](int64_t c, int64_t lanes) { store_some(dx + c, load_some(dx + c, lanes) * share, lanes); });
  dx[target] -= weight;
}

static void cross_entropy(const CrossEntropy& a) {
  parallel(a.rows, rows_per_task(a.vocab), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) entropy_row(a, row);
  });
}
