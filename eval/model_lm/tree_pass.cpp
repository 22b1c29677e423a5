#include "eval/model_lm/tree_pass.h"

#include <algorithm>

#include "core/ops/ops.h"

namespace qlora {
namespace {

// Ragged tiles that are copied in front of rows make a pass by this factor longer, at most.
constexpr int64_t kJoined = 2;
// Rows of logits that exist at one time: 64 rows of a 128k vocabulary are 32 MiB.
constexpr size_t kLogitRows = 64;

std::vector<SequenceView> sequences_of(std::span<const Ask> asks) {
  std::vector<SequenceView> sequences;
  for (const Ask& ask : asks) sequences.push_back(ask.sequence);
  return sequences;
}

}  // namespace

TreePass::TreePass(const Model& model, Memory& memory, std::span<Adapter* const> adapters,
                   std::span<const Ask> asks, const Options& options)
    : model_(model),
      memory_(memory),
      adapters_(adapters),
      asks_(asks),
      options_(options),
      tree_(build_request_tree(sequences_of(asks), options.share)) {
  place_reads();
  prefixes_.resize(tree_.nodes.size());
}

// A row is read where it is computed: on the node of the path that holds its position.
void TreePass::place_reads() {
  reads_.resize(tree_.nodes.size());
  for (size_t i = 0; i < asks_.size(); ++i) {
    int32_t node = tree_.node_of[i];
    for (auto t = static_cast<int64_t>(asks_[i].targets.size()) - 1; t >= 0; --t) {
      const int64_t position = asks_[i].first + t;
      while (position < tree_.nodes[static_cast<size_t>(node)].begin)
        node = tree_.nodes[static_cast<size_t>(node)].parent;
      reads_[static_cast<size_t>(node)].push_back({position, i, t});
    }
  }
  for (std::vector<Read>& reads : reads_)
    std::stable_sort(reads.begin(), reads.end(),
                     [](const Read& a, const Read& b) { return a.position < b.position; });
}

void TreePass::run(const OnRow& answer, const std::function<void()>& after_pass) {
  answer_ = &answer;
  after_pass_ = &after_pass;
  descend(tree_.roots);
}

int64_t TreePass::rows_of(int32_t node) const {
  const RequestTree::Node& n = tree_.nodes[static_cast<size_t>(node)];
  return n.end - n.begin;
}

// With the copy of the ragged tile before it.
int64_t TreePass::joined_rows_of(int32_t node) const {
  return rows_of(node) + tree_.nodes[static_cast<size_t>(node)].begin % kKeyTile;
}

void TreePass::descend(std::span<const int32_t> siblings) {
  std::vector<int32_t> inner, ends;
  for (int32_t node : siblings)
    (tree_.nodes[static_cast<size_t>(node)].children.empty() ? ends : inner).push_back(node);
  std::vector<int32_t> batch, children;
  int64_t rows = 0, joined = 0, kept = 0;
  size_t i = 0, e = 0;
  while (i < inner.size() || e < ends.size()) {
    batch.clear(), children.clear();
    rows = joined = kept = 0;
    auto take = [&](int32_t node) {
      const bool fits = rows + rows_of(node) <= options_.max_batch_tokens &&
                        joined + joined_rows_of(node) <= kJoined * options_.max_batch_tokens;
      if (!batch.empty() && !fits) return false;
      batch.push_back(node);
      rows += rows_of(node);
      joined += joined_rows_of(node);
      return true;
    };
    for (; i < inner.size(); ++i) {
      kept += joined_rows_of(inner[i]);
      if ((!batch.empty() && kept > options_.max_prefix_tokens) || !take(inner[i])) break;
      const std::vector<int32_t>& after = tree_.nodes[static_cast<size_t>(inner[i])].children;
      children.insert(children.end(), after.begin(), after.end());
    }
    const std::vector<int32_t> kept_nodes = batch;
    while (e < ends.size() && take(ends[e])) ++e;
    forward(batch);
    if (children.empty()) continue;
    descend(children);
    for (int32_t node : kept_nodes) prefixes_[static_cast<size_t>(node)].reset();
  }
}

void TreePass::forward(std::vector<int32_t> batch) {
  auto node_at = [&](int32_t node) -> const RequestTree::Node& {
    return tree_.nodes[static_cast<size_t>(node)];
  };
  auto subject_of = [&](int32_t node) { return asks_[node_at(node).sequence].sequence.subject; };
  std::stable_sort(batch.begin(), batch.end(),
                   [&](int32_t a, int32_t b) { return subject_of(a) < subject_of(b); });
  Axis axis;
  axis.cu = {0};
  std::vector<PrefixPass::Sequence> sequences;
  bool plain = true;
  for (int32_t id : batch) {
    const RequestTree::Node& node = node_at(id);
    const SequenceView& sequence = asks_[node.sequence].sequence;
    for (int64_t t = node.begin; t < node.end; ++t) {
      axis.tokens.push_back(sequence[t]);
      axis.positions.push_back(static_cast<int32_t>(t));
      axis.keys.push_back({0, static_cast<uint32_t>(t)});
    }
    const int64_t end = axis.rows();
    Adapter* adapter = sequence.subject < 0 ? nullptr : adapters_[static_cast<size_t>(sequence.subject)];
    if (!axis.spans.empty() && axis.spans.back().adapter == adapter)
      axis.spans.back().hi = end;
    else
      axis.spans.push_back({axis.cu.back(), end, adapter, 0, 0});
    axis.cu.push_back(static_cast<int32_t>(end));
    sequences.push_back(
        {node.parent < 0 ? nullptr : prefixes_[static_cast<size_t>(node.parent)], !node.children.empty()});
    plain = plain && node.parent < 0 && node.children.empty();
  }
  PrefixPass pass(std::move(sequences));
  Context c{.backend = memory_.backend(),
            .memory = memory_,
            .axis = &axis,
            .type = options_.type,
            .prefixes = plain ? nullptr : &pass};
  const WantedRows wanted = wanted_rows(axis, rows_read(axis, batch));
  if (wanted.axis.rows() < axis.rows()) c.wanted = &wanted;
  Var hidden = model_.hidden(c);
  if (!plain)
    for (size_t s = 0; s < batch.size(); ++s) prefixes_[static_cast<size_t>(batch[s])] = pass.kept(s);
  read_batch(c, hidden.value, batch);
  (*after_pass_)();
}

// The rows of the axis that somebody reads; the last where a pass is for keys and values alone.
std::vector<int32_t> TreePass::rows_read(const Axis& axis, std::span<const int32_t> batch) const {
  std::vector<int32_t> rows;
  for (size_t s = 0; s < batch.size(); ++s) {
    const auto node = static_cast<size_t>(batch[s]);
    for (const Read& read : reads_[node]) {
      const int32_t row = axis.cu[s] + static_cast<int32_t>(read.position - tree_.nodes[node].begin);
      if (rows.empty() || rows.back() != row) rows.push_back(row);
    }
  }
  if (rows.empty()) rows.push_back(static_cast<int32_t>(axis.rows()) - 1);
  return rows;
}

void TreePass::read_batch(Context& c, const Tensor& hidden, std::span<const int32_t> batch) {
  Piece piece;
  int32_t row = 0;
  for (int32_t node : batch) {
    const std::span<const Read> reads = reads_[static_cast<size_t>(node)];
    for (size_t lo = 0; lo < reads.size();) {
      size_t hi = lo + 1;
      while (hi < reads.size() && reads[hi].position == reads[lo].position) ++hi;
      piece.rows.push_back(row++);
      piece.reads.push_back(reads.subspan(lo, hi - lo));
      lo = hi;
      if (piece.rows.size() < kLogitRows) continue;
      read_piece(c, hidden, piece);
      piece = {};
    }
  }
  if (!piece.rows.empty()) read_piece(c, hidden, piece);
}

// A row has one loss kernel for each of its targets, so that an answer does not depend on who else asks.
void TreePass::read_piece(Context& c, const Tensor& hidden, const Piece& piece) {
  const Tensor logits = logits_of(c, model_.output(), hidden, piece.rows);
  std::vector<float> host;
  if (options_.logits) host = logits.to_floats();
  const auto vocab = static_cast<size_t>(logits.cols());
  std::vector<int32_t> best;
  size_t most = 0;
  for (const auto& reads : piece.reads) most = std::max(most, reads.size());
  for (size_t n = 0; n < most; ++n) {
    std::vector<int32_t> targets;
    for (const auto& reads : piece.reads)
      targets.push_back(n < reads.size() ? asks_[reads[n].ask].targets[static_cast<size_t>(reads[n].t)] : -1);
    const std::vector<double> loss = losses(logits, targets, n == 0 ? &best : nullptr);
    for (size_t row = 0; row < piece.reads.size(); ++row) {
      if (n >= piece.reads[row].size()) continue;
      const Read& read = piece.reads[row][n];
      RowAnswer answer{loss[row], best[row], {}};
      if (options_.logits) answer.logits = std::span(host).subspan(row * vocab, vocab);
      (*answer_)(read.ask, read.t, answer);
    }
  }
}

// -log-probability of every row's target; 0 where it is negative. `best` gets the argmax of every row.
std::vector<double> TreePass::losses(const Tensor& logits, std::span<const int32_t> targets,
                                     std::vector<int32_t>* best) {
  Tensor loss(memory_, {logits.rows()}, options_.type, Tag::scratch);
  Tensor argmax(memory_, {logits.rows()}, DType::i32, Tag::scratch);
  CrossEntropy args;
  args.logits = logits.data();
  args.targets = targets.data();
  args.loss = loss.data();
  args.argmax = best == nullptr ? nullptr : argmax.as<int32_t>();
  args.rows = logits.rows();
  args.vocab = logits.cols();
  args.type = options_.type;
  memory_.backend().cross_entropy(args);
  if (best != nullptr) {
    best->resize(targets.size());
    argmax.to_host(std::as_writable_bytes(std::span(*best)));
  }
  return loss.to_doubles();
}

}  // namespace qlora
