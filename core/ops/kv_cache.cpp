#include "core/ops/kv_cache.h"

#include "core/base/check.h"
#include "core/ops/kept_rows.h"

namespace qlora {

KvCache::KvCache(Memory& memory, int64_t layers, const std::vector<int64_t>& capacities, int64_t width,
                 DType type)
    : first_{0}, lengths_(capacities.size(), 0) {
  for (int64_t capacity : capacities) first_.push_back(first_.back() + capacity);
  for (int64_t i = 0; i < layers; ++i) {
    keys_.emplace_back(memory, Shape{first_.back(), width}, type);
    values_.emplace_back(memory, Shape{first_.back(), width}, type);
  }
}

void KvCache::append(int64_t layer, const Tensor& k, const Tensor& v, const std::vector<int32_t>& cu) {
  for (int64_t s = 0; s < sequences(); ++s) {
    int64_t lo = cu[static_cast<size_t>(s)], hi = cu[static_cast<size_t>(s) + 1], past = length(s);
    if (lo == hi) continue;
    const int64_t capacity = first_row(s + 1) - first_row(s);
    QLORA_CHECK(past + hi - lo <= capacity, failure,
                "kv cache: sequence {} has room for {} rows, {} are needed", s, capacity, past + hi - lo);
    int64_t to = first_row(s) + past;
    keep_rows(k.slice_rows(lo, hi), keys(layer).slice_rows(to, to + hi - lo));
    keep_rows(v.slice_rows(lo, hi), values(layer).slice_rows(to, to + hi - lo));
  }
}

void KvCache::begin(int64_t sequence, const KvCache& other, int64_t from, int64_t rows) {
  const int64_t to = first_row(sequence), capacity = first_row(sequence + 1) - to;
  QLORA_CHECK(rows <= capacity, failure, "kv cache: sequence {} has room for {} rows, {} are needed",
              sequence, capacity, rows);
  lengths_[static_cast<size_t>(sequence)] = rows;
  if ((&other == this && from == sequence) || rows == 0) return;
  const int64_t lo = other.first_row(from);
  for (int64_t layer = 0; layer < static_cast<int64_t>(keys_.size()); ++layer) {
    keys(layer).slice_rows(to, to + rows).copy_from(other.keys(layer).slice_rows(lo, lo + rows));
    values(layer).slice_rows(to, to + rows).copy_from(other.values(layer).slice_rows(lo, lo + rows));
  }
}

void KvCache::advance(const std::vector<int32_t>& cu) {
  for (size_t s = 0; s < lengths_.size(); ++s) lengths_[s] += cu[s + 1] - cu[s];
}

void KvCache::cut(int64_t sequence, int64_t rows) {
  QLORA_CHECK(rows >= 0 && rows <= length(sequence), failure,
              "kv cache: sequence {} has {} rows and cannot be cut to {}", sequence, length(sequence), rows);
  lengths_[static_cast<size_t>(sequence)] = rows;
}

}  // namespace qlora
