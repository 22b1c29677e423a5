#include "eval/model_lm/request_tree.h"

#include <algorithm>
#include <numeric>

namespace qlora {
namespace {

// How many tokens both begin with.
int64_t common_beginning(const SequenceView& a, const SequenceView& b) {
  const int64_t most = std::min(a.size(), b.size());
  int64_t n = 0;
  while (n < most && a[n] == b[n]) ++n;
  return n;
}

class Builder {
 public:
  explicit Builder(std::span<const SequenceView> sequences) : sequences_(sequences) {
    tree_.node_of.resize(sequences.size(), -1);
  }

  RequestTree apart() {
    for (size_t i = 0; i < sequences_.size(); ++i) add(i, -1, 0, sequences_[i].size());
    return std::move(tree_);
  }

  RequestTree shared() {
    sort();
    for (size_t lo = 0; lo < paths_.size();) {
      size_t hi = lo + 1;
      while (hi < paths_.size() && subject(hi) == subject(lo)) ++hi;
      grow(lo, hi, 0, -1);
      lo = hi;
    }
    for (const auto& [sequence, path] : inside_) tree_.node_of[sequence] = tree_.node_of[paths_[path]];
    return std::move(tree_);
  }

 private:
  SubjectIndex subject(size_t path) const { return sequences_[paths_[path]].subject; }

  // Orders the sequences, sets those aside that their successor begins with, and notes what neighbours have
  // in common.
  void sort() {
    std::vector<size_t> order(sequences_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) {
      const SequenceView &a = sequences_[i], &b = sequences_[j];
      if (a.subject != b.subject) return a.subject < b.subject;
      const int64_t n = common_beginning(a, b);
      if (n < std::min(a.size(), b.size())) return a[n] < b[n];
      return a.size() < b.size();
    });
    int64_t before = 0;  // common with the path before
    for (size_t k = 0; k < order.size(); ++k) {
      const SequenceView& a = sequences_[order[k]];
      const bool last = k + 1 == order.size() || sequences_[order[k + 1]].subject != a.subject;
      const int64_t next = last ? 0 : common_beginning(a, sequences_[order[k + 1]]);
      if (!last && next == a.size()) {
        inside_.emplace_back(order[k], paths_.size());  // `before` holds for the successor too
        continue;
      }
      paths_.push_back(order[k]);
      common_.push_back(before);
      before = next;
    }
  }

  void add(size_t sequence, int32_t parent, int64_t begin, int64_t end) {
    const auto id = static_cast<int32_t>(tree_.nodes.size());
    tree_.nodes.push_back({parent, sequence, begin, end, {}});
    (parent < 0 ? tree_.roots : tree_.nodes[static_cast<size_t>(parent)].children).push_back(id);
    tree_.node_of[sequence] = id;
    tree_.tokens += end - begin;
  }

  // Paths [lo, hi), of whose tokens `done` lie on the way to `parent`.
  void grow(size_t lo, size_t hi, int64_t done, int32_t parent) {
    if (hi - lo == 1) return add(paths_[lo], parent, done, sequences_[paths_[lo]].size());
    const auto begin = common_.begin() + static_cast<std::ptrdiff_t>(lo) + 1,
               end = common_.begin() + static_cast<std::ptrdiff_t>(hi);
    const int64_t common = *std::min_element(begin, end), run = common - done;
    if (run >= kShortestRun && run * static_cast<int64_t>(hi - lo - 1) >= kSaved) {
      add(paths_[lo], parent, done, common);
      parent = static_cast<int32_t>(tree_.nodes.size()) - 1;
      done = common;
    }
    for (size_t first = lo; first < hi;) {
      size_t next = first + 1;
      while (next < hi && common_[next] > common) ++next;
      grow(first, next, done, parent);
      first = next;
    }
  }

  std::span<const SequenceView> sequences_;
  RequestTree tree_;
  std::vector<size_t> paths_;                      // sequences that no other begins with, in order
  std::vector<int64_t> common_;                    // by path: tokens in common with the path before it
  std::vector<std::pair<size_t, size_t>> inside_;  // a sequence, and the path that begins with it
};

}  // namespace

RequestTree build_request_tree(std::span<const SequenceView> sequences, bool share) {
  Builder builder(sequences);
  return share ? builder.shared() : builder.apart();
}

}  // namespace qlora
