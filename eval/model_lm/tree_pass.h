#pragma once
// Runs the model over a tree of sequences and hands out what it says about the rows that were asked for.
//
// Nodes are computed in waves: of siblings, as many of those that others go on from as may be kept, together
// with ends of sequences until a pass is full; then all that goes on from them; then their keys and values
// are freed and the next siblings follow. Where a node lies, and with what, changes no bit.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/ops/prefix.h"
#include "eval/lm.h"
#include "eval/model_lm/request_tree.h"

namespace qlora {

// A sequence, and what its row `first + t` shall predict: targets[t].
struct Ask {
  SequenceView sequence;
  int64_t first = 0;
  std::span<const int32_t> targets = {};
};

// What the model says at one row about one target.
struct RowAnswer {
  double loss = 0;                     // -log-probability of the target
  int32_t best = 0;                    // the largest logit's first index
  std::span<const float> logits = {};  // of the vocabulary; with TreePass::Options::logits
};

class TreePass {
 public:
  struct Options {
    DType type = DType::f32;
    bool share = true;
    bool logits = false;  // answers carry the whole row
    int64_t max_batch_tokens = 4096, max_prefix_tokens = 2048;
  };
  // All must outlive it. `adapters` by subject.
  TreePass(const Model&, Memory&, std::span<Adapter* const> adapters, std::span<const Ask>, const Options&);

  // `answer(ask, t, row)` for every target of every ask, once; `after_pass()` after every forward pass.
  using OnRow = std::function<void(size_t ask, int64_t t, const RowAnswer&)>;
  void run(const OnRow& answer, const std::function<void()>& after_pass);

  const RequestTree& tree() const { return tree_; }

 private:
  struct Read {
    int64_t position;  // in the sequence
    size_t ask;
    int64_t t;
  };
  // The rows that one piece of the head's product computes, and who reads each.
  struct Piece {
    std::vector<int32_t> rows;
    std::vector<std::span<const Read>> reads;
  };

  void place_reads();
  int64_t rows_of(int32_t node) const;
  int64_t joined_rows_of(int32_t node) const;
  void descend(std::span<const int32_t> siblings);
  void forward(std::vector<int32_t> batch);
  std::vector<int32_t> rows_read(const Axis&, std::span<const int32_t> batch) const;
  // `hidden`: of the rows that are read, in order.
  void read_batch(Context&, const Tensor& hidden, std::span<const int32_t> batch);
  void read_piece(Context&, const Tensor& hidden, const Piece&);
  std::vector<double> losses(const Tensor& logits, std::span<const int32_t> targets,
                             std::vector<int32_t>* best);

  const Model& model_;
  Memory& memory_;
  std::span<Adapter* const> adapters_;
  std::span<const Ask> asks_;
  Options options_;
  RequestTree tree_;
  std::vector<std::vector<Read>> reads_;  // by node, by position
  std::vector<PrefixPtr> prefixes_;       // by node: while something goes on from it
  const OnRow* answer_ = nullptr;
  const std::function<void()>* after_pass_ = nullptr;
};

}  // namespace qlora
