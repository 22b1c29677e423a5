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
