// Attention over ragged sequences, and its gradients. One task is a block of queries of one head (forward),
// or all queries of the heads that share keys (backward), so every output is written by one task and nothing
// depends on threads. All products run through the packed product of gemm-inl.h on strided views.
//
// Scores of a block are held whole: [queries, keys], two passes, no running maximum. Sums over keys run in
// tiles of kKeyTile counted from key 0 of the sequence; masked keys count as exact zeros, so that a query's
// bits do not depend on the block that it shares, nor on whether the keys come from a cache. Where the causal
// mask cuts a block, products are cut along it, as far as whole tiles allow: what they leave out would add
// zeros.

// How queries and keys are cut for products of an operand, by the order of its sums alone: so that tiles of
// AMX and what stands for them sum the same queries together. kTile: queries are left out in whole tiles;
// kKeyStep: of keys as rows of a product, few whole tiles; kQueries in a block, half of it where sequences
// are short.
template <class Operand>
struct Blocking {
  static constexpr bool kAmx = Operand::kChunkStep == kAmxDepth;
  static constexpr int64_t kTile = kAmx ? kAmxDepth : kMr;
  static constexpr int64_t kKeyStep = kAmx ? kAmxDepth : 28 / kMr * kMr;
  static constexpr int64_t kQueries = kAmx ? 128 : 84;
  static constexpr int64_t kSumStep = kAmx ? kAmxDepth : 2;
  static_assert(kKeyTile <= Operand::kChunkMax && kKeyTile % Operand::kChunkStep == 0,
                "a tile of keys must be one chunk of a product");
  static_assert(kQueries / 2 % kSumStep == 0 && kTile % kSumStep == 0,
                "sums over queries must keep their steps");
};
constexpr int64_t kQueriesMax = 128, kQueriesOfHeads = 84;

// A block of queries of one head: queries [i0, i1) of the sequence, keys [k0, k1) that any of them may see.
// Where a sequence has one query, that of all heads which share keys: rows i are then heads from `head` on.
struct Block {
  const Attention* a;
  SequenceSpan s;
  int64_t head, kv_head, i0, i1, k0, k1, width;  // width: of a row of scores
  bool of_heads = false;

  int64_t rows() const { return i1 - i0; }
  int64_t position(int64_t i) const { return s.k_len - s.q_len + (of_heads ? 0 : i); }
  int64_t first_key(int64_t i) const { return a->window > 0 ? larger(0, position(i) - a->window + 1) : 0; }
  int64_t q_stride() const { return of_heads ? a->head_dim : a->heads * a->head_dim; }
  int64_t kv_stride() const { return a->kv_heads * a->head_dim; }
  int64_t q_at(int64_t i) const { return (s.q_row * a->heads + head) * a->head_dim + i * q_stride(); }
  int64_t kv_at(int64_t key) const {  // of a key that is not shared
    return (s.k_row + key - s.shared_tiles * kKeyTile) * kv_stride() + kv_head * a->head_dim;
  }
  // Keys from here on are hidden from some of the queries.
  int64_t diagonal() const { return position(i0) + 1; }
  // Where keys that begin at `key` end, at the latest, if they are to be seen by about the same queries.
  int64_t end_of_keys(int64_t key, int64_t step) const {
    return k0 + ((larger(key, diagonal()) - k0) / step + 1) * step;
  }
  // How many queries, in whole tiles, do not see keys from `key` on.
  int64_t blind_rows(int64_t key, int64_t tile) const { return larger(0, key - position(i0)) / tile * tile; }
  int64_t lse_at(int64_t i) const { return s.q_row * a->heads + head + (of_heads ? i : i * a->heads); }
  // The bias of query i and key k0; that of the next key stands before it.
  int64_t bias_at(int64_t i) const { return (head + (of_heads ? i : 0)) * a->distances + position(i) - k0; }
};

QLORA_INLINE const float* floats(const void* p) {
  return static_cast<const float*>(p);
}
QLORA_INLINE float* floats(void* p) {
  return static_cast<float*>(p);
}

// Rows of queries as they are stored, one of the two null: those that begin with element `at` of x.
struct Queries {
  const float* plain;
  const uint16_t* stored;
};
QLORA_INLINE Queries queries_at(const void* x, DType type, int64_t at) {
  if (type == DType::bf16) return {nullptr, static_cast<const uint16_t*>(x) + at};
  return {floats(x) + at, nullptr};
}

// Long blocks read keys less often, short ones skip more of what the causal mask hides. Depends on the
// sequence alone.
template <class Operand>
QLORA_INLINE int64_t block_length(const SequenceSpan& s) {
  constexpr int64_t kQueries = Blocking<Operand>::kQueries;
  return s.q_len > 2 * kQueries ? kQueries : kQueries / 2;
}
template <class Operand>
QLORA_INLINE int64_t blocks_of(const SequenceSpan& s) {
  return (s.q_len + block_length<Operand>(s) - 1) / block_length<Operand>(s);
}

QLORA_INLINE Block with_keys(Block b) {
  b.k0 = b.first_key(b.i0) / kKeyTile * kKeyTile;
  b.k1 = b.position(b.i1 - 1) + 1;
  b.width = (b.k1 - b.k0 + kLanes - 1) / kLanes * kLanes;
  return b;
}
template <class Operand>
QLORA_INLINE Block block_of_queries(const Attention& a, const SequenceSpan& s, int64_t head, int64_t number) {
  const int64_t length = block_length<Operand>(s), i0 = number * length;
  return with_keys({&a, s, head, head / (a.heads / a.kv_heads), i0, smaller(s.q_len, i0 + length), 0, 0, 0});
}

// One query reads its keys once for all heads that share them.
QLORA_INLINE bool joins_heads(const Attention& a, const SequenceSpan& s) {
  return s.q_len == 1 && a.heads / a.kv_heads <= kQueriesOfHeads;
}
template <class Operand>
QLORA_INLINE int64_t tasks_of(const Attention& a, const SequenceSpan& s) {
  return joins_heads(a, s) ? a.kv_heads : blocks_of<Operand>(s) * a.heads;
}
template <class Operand>
QLORA_INLINE Block block_of_task(const Attention& a, const SequenceSpan& s, int64_t task) {
  const int64_t group = a.heads / a.kv_heads;
  if (joins_heads(a, s)) return with_keys({&a, s, task * group, task, 0, group, 0, 0, 0, true});
  return block_of_queries<Operand>(a, s, task % a.heads, task / a.heads);
}

// Which of a key's two rows.
enum class Side { key, value };

// Rows of keys or values in one piece from `key` on, one of the two as they are stored.
struct Piece {
  const float* dense;
  const uint16_t* dense_bf16;
  int64_t end;  // the key behind it
};

// The rows that begin with element `at` of w.
QLORA_INLINE Piece piece_at(const Block& b, const void* w, int64_t at, int64_t end) {
  if (b.a->kv_type == DType::bf16) return {nullptr, static_cast<const uint16_t*>(w) + at, end};
  return {floats(w) + at, nullptr, end};
}

// `w`: the keys or the values of the batch.
QLORA_INLINE Piece piece_of(const Block& b, const void* w, Side side, int64_t key) {
  const int64_t tiles = b.s.shared_tiles, tile = key / kKeyTile;
  if (tile >= tiles) return piece_at(b, w, b.kv_at(key), b.k1);
  const SharedTile& shared = b.s.shared[tile];
  return piece_at(b, side == Side::key ? shared.k : shared.v,
                  key % kKeyTile * b.kv_stride() + b.kv_head * b.a->head_dim,
                  smaller(b.k1, (tile + 1) * kKeyTile));
}

// out[rows, width] = alpha * rows of x (queries or their gradients, stored as `type`) times rows of w (keys
// or values), transposed. What queries do not see is left as it is, in part.
template <class Operand>
static void row_products(const Block& b, const void* x, DType type, const void* w, Side side, float alpha,
                         float* out) {
  for (int64_t key = b.k0; key < b.k1;) {
    const Piece piece = piece_of(b, w, side, key);
    const int64_t end = smaller(piece.end, b.end_of_keys(key, kNr)),
                  skip = b.blind_rows(key, Blocking<Operand>::kTile);
    const Queries rows = queries_at(x, type, b.q_at(b.i0 + skip));
    gemm_of<Operand>({.layout = Layout::nt,
                      .x = rows.plain,
                      .x_bf16 = rows.stored,
                      .dense = piece.dense,
                      .dense_bf16 = piece.dense_bf16,
                      .y = out + skip * b.width + (key - b.k0),
                      .ldx = b.q_stride(),
                      .ldw = b.kv_stride(),
                      .ldy = b.width,
                      .m = b.rows() - skip,
                      .n = end - key,
                      .k = b.a->head_dim,
                      .alpha = alpha});
    key = end;
  }
}

// Queries [r0, r1) of the block, keys [k, end) of one tile.
template <class Operand>
static void add_weighted(const Block& b, const float* weights, const Piece& values, int64_t k, int64_t end,
                         int64_t r0, int64_t r1, float* y) {
  if (r0 >= r1 || k >= end) return;
  gemm_of<Operand>({.layout = Layout::nn,
                    .x = weights + r0 * b.width + (k - b.k0),
                    .dense = values.dense,
                    .dense_bf16 = values.dense_bf16,
                    .y = y + b.q_at(b.i0 + r0),
                    .ldx = b.width,
                    .ldw = b.kv_stride(),
                    .ldy = b.q_stride(),
                    .m = r1 - r0,
                    .n = b.a->head_dim,
                    .k = end - k,
                    .add = k > b.k0});
}

// y (rows of queries) = weights[rows, keys] times rows of w (keys or values), tile by tile.
template <class Operand>
static void weighted_sum(const Block& b, const float* weights, const void* w, Side side, float* y) {
  const int64_t half = b.rows() / 2 / Blocking<Operand>::kTile * Blocking<Operand>::kTile;
  for (int64_t k = b.k0; k < b.k1; k += kKeyTile) {
    const Piece values = piece_of(b, w, side, k);
    const int64_t end = smaller(k + kKeyTile, b.k1), skip = b.blind_rows(k, Blocking<Operand>::kTile);
    // The first half of the queries sees fewer keys of a tile that the mask cuts.
    const int64_t middle = end > b.diagonal() ? larger(skip, half) : skip;
    add_weighted<Operand>(b, weights, values, k, smaller(end, b.position(b.i0 + middle)), skip, middle, y);
    add_weighted<Operand>(b, weights, values, k, end, middle, b.rows(), y);
  }
}

// y (rows of keys) += weights[rows, keys] transposed times rows of x (queries or their gradients).
template <class Operand>
static void add_to_keys(const Block& b, const float* weights, const void* x, DType type, float* y) {
  for (int64_t key = b.k0; key < b.k1;) {
    const int64_t end = smaller(b.k1, b.end_of_keys(key, Blocking<Operand>::kKeyStep)),
                  skip = b.blind_rows(key, Blocking<Operand>::kTile);
    const Queries rows = queries_at(x, type, b.q_at(b.i0 + skip));
    gemm_of<Operand>({.layout = Layout::tn,
                      .x = weights + skip * b.width + (key - b.k0),
                      .dense = rows.plain,
                      .dense_bf16 = rows.stored,
                      .y = y + b.kv_at(key),
                      .ldx = b.width,
                      .ldw = b.q_stride(),
                      .ldy = b.kv_stride(),
                      .m = end - key,
                      .n = b.a->head_dim,
                      .k = b.rows() - skip,
                      .add = true});
    key = end;
  }
}

QLORA_INLINE bool shapes_scores(const Attention& a) {
  return a.softcap > 0 || a.bias != nullptr;
}

// scale * q·k of the keys that query i sees become scores. Where they have a softcap and dp is given, dp
// becomes (dp - delta) times the softcap's slope. Not inlined, so that other scores are made as if this were
// not here.
[[gnu::noinline]] static void shape_row(const Block& b, int64_t i, float* scores, float* dp, Vec delta) {
  const Attention& a = *b.a;
  const int64_t first = b.first_key(i) - b.k0, end = b.position(i) + 1 - b.k0;
  if (a.softcap > 0) {
    const Cap cap = cap_of(a.softcap);
    each(first, end, [&](int64_t c, int64_t lanes) {
      const Vec t = tanh(load_some(scores + c, lanes) * cap.inverse);
      store_some(scores + c, cap.cap * t, lanes);
      if (dp != nullptr)
        store_some(dp + c, (load_some(dp + c, lanes) - delta) * fnma(t, t, set1(1.0f)), lanes);
    });
  }
  if (a.bias != nullptr) {
    const float* bias = floats(a.bias) + b.bias_at(i);
    for (int64_t c = first; c < end; ++c) scores[c] += bias[-c];
  }
}

// Keys that query i does not see get the score -infinity, so that their exponential is zero.
QLORA_INLINE void mask_row(const Block& b, int64_t i, float* scores) {
  const float none = -__builtin_inff();
  const int64_t first = b.first_key(i), last = b.position(i) + 1;
  for (int64_t c = 0; c < first - b.k0; ++c) scores[c] = none;
  for (int64_t c = last - b.k0; c < b.width; ++c) scores[c] = none;
}

// scores = exp(scores - shift); their sum, by lanes of the key's number.
QLORA_INLINE float exponentials(float* scores, int64_t width, float shift) {
  Vec total = zero();
  for (int64_t c = 0; c < width; c += kLanes) {
    const Vec e = exp(load(scores + c) - set1(shift));
    store(scores + c, e);
    total = total + e;
  }
  return sum(total);
}

template <class Operand>
static void attend(const Block& b) {
  const Attention& a = *b.a;
  float* scores = cpu::scratch(cpu::Scratch::scores, b.rows() * b.width);
  row_products<Operand>(b, a.q, a.q_type, a.k, Side::key, static_cast<float>(a.scale), scores);
  alignas(64) float totals[kQueriesMax];
  const bool shapes = shapes_scores(a);
  for (int64_t i = b.i0; i < b.i1; ++i) {
    float* row = scores + (i - b.i0) * b.width;
    if (shapes) shape_row(b, i, row, nullptr, zero());
    mask_row(b, i, row);
    const float top = largest_of(row, b.width);
    const float total = exponentials(row, b.width, top);
    totals[i - b.i0] = total;
    if (a.lse != nullptr) floats(a.lse)[b.lse_at(i)] = top + __builtin_logf(total);
  }
  weighted_sum<Operand>(b, scores, a.v, Side::value, floats(a.o));
  for (int64_t i = b.i0; i < b.i1; ++i) {
    float* o = floats(a.o) + b.q_at(i);
    const Vec total = set1(totals[i - b.i0]);
    each(0, a.head_dim,
         [&](int64_t c, int64_t lanes) { store_some(o + c, load_some(o + c, lanes) / total, lanes); });
  }
}

template <class Operand>
static void attention(const Attention& a, const SequenceSpan* sequences, int64_t count) {
  int64_t tasks = 0;
  for (int64_t s = 0; s < count; ++s) tasks += tasks_of<Operand>(a, sequences[s]);
  parallel(tasks, 1, [&](int64_t begin, int64_t end) {
    int64_t before = 0;
    for (int64_t s = 0; s < count && before < end; ++s) {
      const int64_t here = tasks_of<Operand>(a, sequences[s]);
      for (int64_t t = larger(begin, before); t < smaller(end, before + here); ++t)
        attend<Operand>(block_of_task<Operand>(a, sequences[s], t - before));
      before += here;
    }
  });
}

// With p = exp(score - lse) and delta = dout · o:  ds = p * (dout · v - delta) * scale * the softcap's slope;
//   dq = ds k;  dk += dsᵀ q;  dv += pᵀ dout.
template <class Operand>
static void attend_backward(const Block& b, const AttentionBackward& g) {
  const Attention& a = *b.a;
  float* p = cpu::scratch(cpu::Scratch::scores, b.rows() * b.width);
  float* ds = cpu::scratch(cpu::Scratch::gradients, b.rows() * b.width);
  row_products<Operand>(b, a.q, a.q_type, a.k, Side::key, static_cast<float>(a.scale), p);
  row_products<Operand>(b, g.dout, a.type, a.v, Side::value, 1.0f, ds);
  for (int64_t i = b.i0; i < b.i1; ++i) {
    float *row = p + (i - b.i0) * b.width, *ds_row = ds + (i - b.i0) * b.width;
    const float *o = floats(a.o) + b.q_at(i), *dout = floats(g.dout) + b.q_at(i);
    Vec products = zero();
    each(0, a.head_dim, [&](int64_t c, int64_t lanes) {
      products = fma(load_some(dout + c, lanes), load_some(o + c, lanes), products);
    });
    Vec delta = set1(sum(products));
    const Vec scale = set1(static_cast<float>(a.scale));
    if (shapes_scores(a)) shape_row(b, i, row, ds_row, delta);
    if (a.softcap > 0) delta = zero();  // taken off already
    mask_row(b, i, row);
    exponentials(row, b.width, floats(a.lse)[b.lse_at(i)]);
    // Where the query does not see, ds holds whatever the scratch held.
    const int64_t seen = b.position(i) + 1 - b.k0;
    each(0, seen, [&](int64_t c, int64_t lanes) {
      store_some(ds_row + c, load_some(row + c, lanes) * (load_some(ds_row + c, lanes) - delta) * scale,
                 lanes);
    });
    __builtin_memset(ds_row + seen, 0, static_cast<size_t>(b.width - seen) * sizeof(float));
  }
  weighted_sum<Operand>(b, ds, a.k, Side::key, floats(g.dq));
  add_to_keys<Operand>(b, ds, a.q, a.q_type, floats(g.dk));
  add_to_keys<Operand>(b, p, g.dout, a.type, floats(g.dv));
}

template <class Operand>
static void attention_backward(const AttentionBackward& g, const SequenceSpan* sequences, int64_t count) {
  const Attention& a = g.forward;
  const int64_t group = a.heads / a.kv_heads, kv_stride = a.kv_heads * a.head_dim;
  parallel(count * a.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const SequenceSpan& s = sequences[task / a.kv_heads];
      const int64_t kv_head = task % a.kv_heads;
      for (int64_t key = s.k_row; key < s.k_row + s.k_len; ++key) {
        const int64_t at = key * kv_stride + kv_head * a.head_dim;
        __builtin_memset(floats(g.dk) + at, 0, static_cast<size_t>(a.head_dim) * sizeof(float));
        __builtin_memset(floats(g.dv) + at, 0, static_cast<size_t>(a.head_dim) * sizeof(float));
      }
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
        for (int64_t number = 0; number < blocks_of<Operand>(s); ++number)
          attend_backward<Operand>(block_of_queries<Operand>(a, s, head, number), g);
    }
  });
}
