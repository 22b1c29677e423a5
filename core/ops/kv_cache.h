#pragma once
// Keys and values of rows already computed, per layer and sequence, so that generation computes only new
// rows.

#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"

namespace qlora {

// Every sequence owns a fixed range of rows in each layer's buffer [rows of all, kv_heads * head_dim].
class KvCache {
 public:
  // Room for capacities[s] rows of sequence s, kept as elements of that type: type_of_kept(), kept_rows.h.
  KvCache(Memory&, int64_t layers, const std::vector<int64_t>& capacities, int64_t width, DType);
  KvCache(Memory& memory, int64_t layers, int64_t sequences, int64_t capacity, int64_t width, DType type)
      : KvCache(memory, layers, std::vector<int64_t>(static_cast<size_t>(sequences), capacity), width, type) {
  }
  // Rows of k and v (cut by cu) are appended after what each sequence has. Throws Error(failure) when it is
  // full.
  void append(int64_t layer, const Tensor& k, const Tensor& v, const std::vector<int32_t>& cu);
  // After all layers of a forward pass: the appended rows count.
  void advance(const std::vector<int32_t>& cu);
  // The sequence begins anew with the first `rows` rows of `from`, which may be itself. Throws Error(failure)
  // where there is no room for them.
  void begin(int64_t sequence, int64_t from, int64_t rows) { begin(sequence, *this, from, rows); }
  // The same with rows of another cache of as many layers, of the same width and type.
  void begin(int64_t sequence, const KvCache& other, int64_t from, int64_t rows);
  // The sequence goes on behind its first `rows` rows: those after them, of tokens that were not chosen, are
  // forgotten. Throws Error(failure) where it has fewer.
  void cut(int64_t sequence, int64_t rows);
  int64_t length(int64_t sequence) const { return lengths_[static_cast<size_t>(sequence)]; }
  const Tensor& keys(int64_t layer) const { return keys_[static_cast<size_t>(layer)]; }
  const Tensor& values(int64_t layer) const { return values_[static_cast<size_t>(layer)]; }
  int64_t first_row(int64_t sequence) const { return first_[static_cast<size_t>(sequence)]; }
  int64_t sequences() const { return static_cast<int64_t>(lengths_.size()); }

 private:
  std::vector<int64_t> first_;  // [sequences + 1]
  std::vector<Tensor> keys_, values_;
  std::vector<int64_t> lengths_;
};

}  // namespace qlora
