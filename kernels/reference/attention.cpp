// Attention over ragged sequences, two passes per query. Sums over keys run one key after another from the
// first visible key, so that a query's bits depend on its own sequence only.

#include <cmath>
#include <vector>

#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

// Numbers the rows of all sequences (queries, or keys) from 0, and finds a row's sequence.
class RowIndex {
 public:
  RowIndex(std::span<const SequenceSpan> sequences, bool keys) {
    int64_t total = 0;
    for (const SequenceSpan& s : sequences) {
      first_.push_back(total);
      total += keys ? s.k_len : s.q_len;
    }
    total_ = total;
  }
  int64_t total() const { return total_; }
  size_t sequence(int64_t index) const {
    return static_cast<size_t>(std::upper_bound(first_.begin(), first_.end(), index) - first_.begin()) - 1;
  }
  int64_t first(size_t sequence) const { return first_[sequence]; }

 private:
  std::vector<int64_t> first_;
  int64_t total_ = 0;
};

// The keys that a query at `position` sees: [first, position].
int64_t first_key(const Attention& a, int64_t position) {
  return a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0;
}

int64_t longest(const Attention& a) {
  int64_t keys = 1;
  for (const SequenceSpan& s : a.sequences) keys = std::max(keys, s.k_len);
  return a.window > 0 ? std::min(keys, a.window) : keys;
}

// Q and K: of queries, and of keys and values, as they are stored: T or bf16.
template <class T, class Q, class K>
T dot(const Q* a, const K* b, int64_t n, Operands operands = Operands::as_stored) {
  T sum = 0;
  for (int64_t c = 0; c < n; ++c)
    sum += operand(widened<T>(a[c]), operands) * operand(widened<T>(b[c]), operands);
  return sum;
}

// y += weight x
template <class T, class K>
void add_weighted(T weight, const K* x, int64_t n, Operands operands, T* y) {
  weight = operand(weight, operands);
  for (int64_t c = 0; c < n; ++c) y[c] += weight * operand(widened<T>(x[c]), operands);
}

template <class T>
struct Heads {
  explicit Heads(const Attention& args) : a(args), scale(static_cast<T>(args.scale)) {}
  const Attention& a;
  T scale;
  template <class Q>
  const Q* query(const void* p, int64_t row, int64_t head) const {
    return static_cast<const Q*>(p) + at(row, head);
  }
  template <class K>
  const K* key(const void* p, int64_t row, int64_t kv_head) const {
    return static_cast<const K*>(p) + at_kv(row, kv_head);
  }
  int64_t at(int64_t row, int64_t head) const { return (row * a.heads + head) * a.head_dim; }
  int64_t at_kv(int64_t row, int64_t kv_head) const { return (row * a.kv_heads + kv_head) * a.head_dim; }
  int64_t kv_head(int64_t head) const { return head / (a.heads / a.kv_heads); }
  T lse(int64_t row, int64_t head) const { return static_cast<const T*>(a.lse)[row * a.heads + head]; }
};

// Rows of keys or values of one key head: shared tiles first, then the sequence's own.
template <class T, class K>
class KeyRows {
 public:
  KeyRows(const Heads<T>& h, const SequenceSpan& s, const void* own, const void* SharedTile::*side,
          int64_t kv_head)
      : heads_(h), s_(s), own_(own), side_(side), kv_head_(kv_head) {}
  const K* operator[](int64_t key) const {
    const int64_t tile = key / kKeyTile;
    if (tile < s_.shared_tiles) return row(s_.shared[tile].*side_, key % kKeyTile);
    return row(own_, s_.k_row + key - s_.shared_tiles * kKeyTile);
  }

 private:
  const K* row(const void* p, int64_t key_row) const {
    return static_cast<const K*>(p) + heads_.at_kv(key_row, kv_head_);
  }

  const Heads<T>& heads_;
  const SequenceSpan& s_;
  const void* own_;
  const void* SharedTile::*side_;
  int64_t kv_head_;
};

// A score before the mask, and its slope: the derivative with respect to scale * q·k.
template <class T>
struct Score {
  T value, slope;
};

template <class T, class Q, class K>
Score<T> score_of(const Heads<T>& h, const Q* q, const K* k, int64_t head, int64_t distance) {
  const Attention& a = h.a;
  Score<T> s{h.scale * dot<T>(q, k, a.head_dim, a.operands), T{1}};
  if (a.softcap > 0) {
    const T cap = static_cast<T>(a.softcap), t = std::tanh(s.value / cap);
    s = {cap * t, T{1} - t * t};
  }
  if (a.bias != nullptr) s.value += static_cast<const T*>(a.bias)[head * a.distances + distance];
  return s;
}

template <class T, class Q, class K>
void forward_query(const Heads<T>& h, const SequenceSpan& s, int64_t i, int64_t head, std::vector<T>& p) {
  const Attention& a = h.a;
  int64_t row = s.q_row + i, position = s.k_len - s.q_len + i, first = first_key(a, position);
  const Q* q = h.template query<Q>(a.q, row, head);
  auto count = static_cast<size_t>(position - first + 1);
  const KeyRows<T, K> keys(h, s, a.k, &SharedTile::k, h.kv_head(head)),
      values(h, s, a.v, &SharedTile::v, h.kv_head(head));
  T largest = -std::numeric_limits<T>::infinity();
  for (size_t j = 0; j < count; ++j) {
    const int64_t key = first + static_cast<int64_t>(j);
    p[j] = score_of(h, q, keys[key], head, position - key).value;
    largest = std::max(largest, p[j]);
  }
  T total = 0;
  for (size_t j = 0; j < count; ++j) total += p[j] = std::exp(p[j] - largest);
  T* o = static_cast<T*>(a.o) + h.at(row, head);
  std::fill_n(o, a.head_dim, T{0});
  for (size_t j = 0; j < count; ++j)
    add_weighted(p[j], values[first + static_cast<int64_t>(j)], a.head_dim, a.operands, o);
  for (int64_t c = 0; c < a.head_dim; ++c) o[c] /= total;
  if (a.lse != nullptr) static_cast<T*>(a.lse)[row * a.heads + head] = largest + std::log(total);
}

template <class T, class Q, class K>
void forward(const Attention& a) {
  Heads<T> h(a);
  RowIndex rows(a.sequences, false);
  int64_t keys = longest(a);
  split(rows.total() * a.heads, keys * a.head_dim * 2, [&](int64_t begin, int64_t end) {
    std::vector<T> p(static_cast<size_t>(keys));
    for (int64_t item = begin; item < end; ++item) {
      int64_t index = item / a.heads;
      size_t s = rows.sequence(index);
      forward_query<T, Q, K>(h, a.sequences[s], index - rows.first(s), item % a.heads, p);
    }
  });
}

// What both halves of the backward pass need of one (query, key) pair, q, k and v being stored as S:
//   p = exp(score - lse);  ds = p * (dout · v - dout · o) * scale * slope of the score
template <class T>
struct Pair {
  T p, ds;
};

template <class T, class S>
Pair<T> pair_of(const Heads<T>& h, const AttentionBackward& b, int64_t row, int64_t head, int64_t key_row,
                int64_t distance, T delta) {
  const Attention& a = h.a;
  int64_t kv = h.kv_head(head);
  Score<T> score =
      score_of(h, h.template query<S>(a.q, row, head), h.template key<S>(a.k, key_row, kv), head, distance);
  T p = std::exp(score.value - h.lse(row, head));
  T dp = dot<T>(h.template query<T>(b.dout, row, head), h.template key<S>(a.v, key_row, kv), a.head_dim,
                a.operands);
  return {p, p * (dp - delta) * h.scale * score.slope};
}

template <class T, class S>
void backward_query(const Heads<T>& h, const AttentionBackward& b, const SequenceSpan& s, int64_t i,
                    int64_t head, T& delta) {
  const Attention& a = h.a;
  int64_t row = s.q_row + i, position = s.k_len - s.q_len + i;
  delta = dot<T>(h.template query<T>(b.dout, row, head), h.template query<T>(a.o, row, head), a.head_dim);
  T* dq = static_cast<T*>(b.dq) + h.at(row, head);
  std::fill_n(dq, a.head_dim, T{0});
  for (int64_t j = first_key(a, position); j <= position; ++j) {
    T ds = pair_of<T, S>(h, b, row, head, s.k_row + j, position - j, delta).ds;
    add_weighted(ds, h.template key<S>(a.k, s.k_row + j, h.kv_head(head)), a.head_dim, a.operands, dq);
  }
}

// delta: of the sequence's queries, [q_len, heads].
template <class T, class S>
void backward_key(const Heads<T>& h, const AttentionBackward& b, const SequenceSpan& s, int64_t j,
                  int64_t kv_head, const T* delta) {
  const Attention& a = h.a;
  int64_t key_row = s.k_row + j, before = s.k_len - s.q_len, group = a.heads / a.kv_heads;
  T* dk = static_cast<T*>(b.dk) + h.at_kv(key_row, kv_head);
  T* dv = static_cast<T*>(b.dv) + h.at_kv(key_row, kv_head);
  std::fill_n(dk, a.head_dim, T{0});
  std::fill_n(dv, a.head_dim, T{0});
  int64_t first = std::max<int64_t>(0, j - before);
  int64_t last = a.window > 0 ? std::min(s.q_len, j - before + a.window) : s.q_len;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t i = first; i < last; ++i) {
      int64_t row = s.q_row + i;
      Pair<T> pair = pair_of<T, S>(h, b, row, head, key_row, before + i - j, delta[i * a.heads + head]);
      add_weighted(pair.ds, h.template query<S>(a.q, row, head), a.head_dim, a.operands, dk);
      add_weighted(pair.p, h.template query<T>(b.dout, row, head), a.head_dim, a.operands, dv);
    }
  }
}

template <class T, class S>
void backward(const AttentionBackward& b) {
  const Attention& a = b.forward;
  Heads<T> h(a);
  RowIndex queries(a.sequences, false), keys(a.sequences, true);
  std::vector<T> delta(static_cast<size_t>(queries.total() * a.heads));
  int64_t work = longest(a) * a.head_dim * 3;
  split(queries.total() * a.heads, work, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      int64_t index = item / a.heads;
      size_t s = queries.sequence(index);
      backward_query<T, S>(h, b, a.sequences[s], index - queries.first(s), item % a.heads,
                           delta[static_cast<size_t>(item)]);
    }
  });
  split(keys.total() * a.kv_heads, work * (a.heads / a.kv_heads), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      int64_t index = item / a.kv_heads;
      size_t s = keys.sequence(index);
      backward_key<T, S>(h, b, a.sequences[s], index - keys.first(s), item % a.kv_heads,
                         delta.data() + queries.first(s) * a.heads);
    }
  });
}

}  // namespace

void Reference::attention(const Attention& a) {
  by_types(a.type, a.kv_type,
           [&]<class T, class K>(T, K) { a.q_type == a.type ? forward<T, T, K>(a) : forward<T, K, K>(a); });
}

void Reference::attention_backward(const AttentionBackward& b) {
  by_types(b.forward.type, b.forward.kv_type, [&]<class T, class S>(T, S) { backward<T, S>(b); });
}

}  // namespace qlora
