#pragma once
// Beginnings that sequences share: their keys and values are computed once, by a pass of their own, and read
// by every sequence that goes on from there. Beginnings form chains: one may go on from another.
//
// The bits of a row are those of the whole sequence in one pass, on every backend: keys and values are kept
// as attention reads them, and tiles of keys are counted from key 0 of the sequence. So a beginning's whole
// tiles are shared where they lie, and its ragged last tile is copied in front of what goes on from it.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/tensor/tensor.h"

namespace qlora {

// The keys and values of the tokens [0, length) of some sequence. Made by PrefixPass.
class Prefix {
 public:
  int64_t length() const { return length_; }

 private:
  friend class PrefixPass;
  // The rows of a layer that one pass keeps, [rows, kv_heads * head_dim]; its prefixes share them.
  struct Rows {
    Tensor keys, values;
  };
  using Layers = std::vector<Rows>;

  int64_t whole_tiles() const;
  int64_t ragged() const;          // rows of the last tile, if it is not whole
  int64_t first_own_tile() const;  // tiles before that belong to those it goes on from
  int64_t row_of_tile(int64_t tile) const;

  std::shared_ptr<const Prefix> before_;  // null: it begins with token 0
  int64_t length_ = 0;
  std::shared_ptr<const Layers> layers_;
  int64_t first_row_ = 0;  // of its rows there: from the beginning of its first own tile on
};
using PrefixPtr = std::shared_ptr<const Prefix>;

// What one forward pass reads of prefixes and keeps as new ones. Belongs to a Context; attention calls it.
class PrefixPass {
 public:
  // One entry a sequence of the axis, whose rows follow those of `after` (null: they begin at token 0).
  struct Sequence {
    PrefixPtr after;
    bool keep = false;  // it becomes a prefix itself
  };
  explicit PrefixPass(std::vector<Sequence> sequences) : sequences_(std::move(sequences)) {}

  // Keys and values of a layer where attention finds them; good until the next layer's.
  struct Layer {
    Tensor keys, values;
    std::vector<SequenceSpan> spans;
  };
  // k, v: the new rows, cut by cu; `type`: how they are kept, type_of_kept(). To be called once a layer, in
  // order. Throws Error(failure) when the axis has another number of sequences.
  Layer join(int64_t layer, const Tensor& k, const Tensor& v, const std::vector<int32_t>& cu, DType type);

  // After the pass: the prefix of sequence s, null where none was asked for.
  PrefixPtr kept(size_t s) const { return kept_[s]; }

 private:
  void lay_out(const std::vector<int32_t>& cu);
  void add_tiles(const Prefix* after, size_t layer);
  void keep(const Tensor& keys, const Tensor& values);

  std::vector<Sequence> sequences_;
  std::vector<int64_t> first_row_;  // by sequence: of the ragged tile before it and its own rows
  int64_t rows_ = 0, kept_rows_ = 0;
  std::shared_ptr<Prefix::Layers> layers_ = std::make_shared<Prefix::Layers>();
  std::vector<PrefixPtr> kept_;
  std::vector<SharedTile> tiles_;  // of the layer at hand
};

}  // namespace qlora
