#pragma once
// Which tokens of many sequences are computed once: a tree of runs of tokens. A node is a run that all
// sequences below it continue with; a sequence is the path from a root to its node. Siblings begin
// differently or were not worth joining.
//
// The tree is decided by the sequences alone, never by memory, batches or machines. A common run of tokens
// becomes a node of its own when it is the longest one of its sequences, has kShortestRun tokens or more
// beyond the node that it goes on from, and so saves the computing of kSaved tokens or more. A sequence that
// another one of the same subject begins with is no path of its own: its rows are found on the other's.

#include <cstdint>
#include <span>
#include <vector>

#include "eval/lm.h"

namespace qlora {

// What sharing costs a sequence, copying the ragged tile of keys and a pass that waits for another, is far
// below computing a few tokens; two bounds keep trees of many tiny nodes away.
inline constexpr int64_t kShortestRun = 16, kSaved = 64;

// The tokens of a sequence, in two pieces (a context and its continuation) that the caller owns.
struct SequenceView {
  SubjectIndex subject = -1;
  std::span<const int32_t> head = {}, tail = {};
  int64_t size() const { return static_cast<int64_t>(head.size() + tail.size()); }
  int32_t operator[](int64_t i) const {
    const auto at = static_cast<size_t>(i);
    return at < head.size() ? head[at] : tail[at - head.size()];
  }
};

struct RequestTree {
  struct Node {
    int32_t parent = -1;         // -1: a root; else an earlier node
    size_t sequence = 0;         // one that passes through here
    int64_t begin = 0, end = 0;  // the node is tokens [begin, end) of it
    std::vector<int32_t> children;
  };
  std::vector<Node> nodes;
  std::vector<int32_t> roots;
  std::vector<int32_t> node_of;  // by sequence: on whose path, from the root to its end, all its tokens lie
  int64_t tokens = 0;            // of all nodes
};

// `share` false: one root for every sequence.
RequestTree build_request_tree(std::span<const SequenceView>, bool share);

}  // namespace qlora
