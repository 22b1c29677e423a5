#include "core/ops/prefix.h"

#include "core/base/check.h"
#include "core/ops/kept_rows.h"

namespace qlora {

int64_t Prefix::whole_tiles() const {
  return length_ / kKeyTile;
}
int64_t Prefix::ragged() const {
  return length_ % kKeyTile;
}
int64_t Prefix::first_own_tile() const {
  return before_ == nullptr ? 0 : before_->whole_tiles();
}
int64_t Prefix::row_of_tile(int64_t tile) const {
  return first_row_ + (tile - first_own_tile()) * kKeyTile;
}

// Sequences that are kept come first, so that what is kept of a layer is one piece.
void PrefixPass::lay_out(const std::vector<int32_t>& cu) {
  QLORA_CHECK(sequences_.size() + 1 == cu.size(), failure, "prefix pass: {} sequences, {} on the axis",
              sequences_.size(), cu.size() - 1);
  first_row_.resize(sequences_.size());
  kept_.resize(sequences_.size());
  for (bool keep : {true, false}) {
    for (size_t s = 0; s < sequences_.size(); ++s) {
      const Sequence& sequence = sequences_[s];
      if (sequence.keep != keep) continue;
      const int64_t before = sequence.after == nullptr ? 0 : sequence.after->length(),
                    own = cu[s + 1] - cu[s];
      first_row_[s] = rows_;
      rows_ += before % kKeyTile + own;
      if (!keep) continue;
      auto prefix = std::make_shared<Prefix>();
      prefix->before_ = sequence.after;
      prefix->length_ = before + own;
      prefix->layers_ = layers_;
      prefix->first_row_ = first_row_[s];
      kept_[s] = std::move(prefix);
    }
    if (keep) kept_rows_ = rows_;
  }
}

// The tiles of a layer that come before what goes on from `after`.
void PrefixPass::add_tiles(const Prefix* after, size_t layer) {
  if (after == nullptr) return;
  add_tiles(after->before_.get(), layer);
  const Prefix::Rows& rows = (*after->layers_)[layer];
  for (int64_t tile = after->first_own_tile(); tile < after->whole_tiles(); ++tile) {
    const int64_t row = after->row_of_tile(tile);
    tiles_.push_back({rows.keys.slice_rows(row, row + kKeyTile).data(),
                      rows.values.slice_rows(row, row + kKeyTile).data()});
  }
}

PrefixPass::Layer PrefixPass::join(int64_t layer, const Tensor& k, const Tensor& v,
                                   const std::vector<int32_t>& cu, DType type) {
  if (kept_.empty()) lay_out(cu);
  const auto l = static_cast<size_t>(layer);
  Tensor keys(k.memory(), {rows_, k.cols()}, type), values(k.memory(), {rows_, k.cols()}, type);
  auto copy = [&](int64_t to, const Tensor& from_k, const Tensor& from_v, int64_t from, int64_t rows) {
    if (rows == 0) return;
    keep_rows(from_k.slice_rows(from, from + rows), keys.slice_rows(to, to + rows));
    keep_rows(from_v.slice_rows(from, from + rows), values.slice_rows(to, to + rows));
  };
  std::vector<SequenceSpan> spans;
  tiles_.clear();
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const Prefix* after = sequences_[s].after.get();
    const int64_t lo = cu[s], rows = cu[s + 1] - lo, ragged = after == nullptr ? 0 : after->ragged();
    if (after != nullptr) {
      const Prefix::Rows& before = (*after->layers_)[l];
      copy(first_row_[s], before.keys, before.values, after->row_of_tile(after->whole_tiles()), ragged);
    }
    copy(first_row_[s] + ragged, k, v, lo, rows);
    spans.push_back({.q_row = lo,
                     .q_len = rows,
                     .k_row = first_row_[s],
                     .k_len = (after == nullptr ? 0 : after->length()) + rows,
                     .shared_tiles = after == nullptr ? 0 : after->whole_tiles()});
    add_tiles(after, l);
  }
  const SharedTile* tile = tiles_.data();
  for (SequenceSpan& span : spans) {
    span.shared = tile;
    tile += span.shared_tiles;
  }
  keep(keys, values);
  return {std::move(keys), std::move(values), std::move(spans)};
}

void PrefixPass::keep(const Tensor& keys, const Tensor& values) {
  if (kept_rows_ == rows_) {
    layers_->push_back({keys, values});
  } else if (kept_rows_ > 0) {
    const Shape shape = {kept_rows_, keys.cols()};
    Prefix::Rows kept{Tensor(keys.memory(), shape, keys.type()), Tensor(keys.memory(), shape, keys.type())};
    kept.keys.copy_from(keys.slice_rows(0, kept_rows_));
    kept.values.copy_from(values.slice_rows(0, kept_rows_));
    layers_->push_back(std::move(kept));
  }
}

}  // namespace qlora
