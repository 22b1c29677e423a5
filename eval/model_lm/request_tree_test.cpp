#include "eval/model_lm/request_tree.h"

#include <catch2/catch.hpp>
#include <map>
#include <numeric>

#include "eval/model_lm/test_requests.h"

using namespace qlora;
using test::Ids;

namespace {

std::vector<SequenceView> views(const std::vector<test::TestSequence>& sequences) {
  std::vector<SequenceView> out;
  for (const test::TestSequence& s : sequences) {
    const std::span<const int32_t> ids(s.ids);
    const size_t cut = ids.size() / 2;  // where the pieces meet matters to nobody
    out.push_back({s.subject, ids.first(cut), ids.subspan(cut)});
  }
  return out;
}

Ids tokens_of(const SequenceView& s, int64_t begin, int64_t end) {
  Ids ids;
  for (int64_t i = begin; i < end; ++i) ids.push_back(s[i]);
  return ids;
}

// Subject, and all tokens from the root to the end of a node.
using Path = std::pair<SubjectIndex, Ids>;
std::map<Path, int64_t> paths_of(const RequestTree& tree, std::span<const SequenceView> sequences) {
  std::map<Path, int64_t> paths;
  for (const RequestTree::Node& node : tree.nodes)
    paths[{sequences[node.sequence].subject, tokens_of(sequences[node.sequence], 0, node.end)}] = node.begin;
  return paths;
}

Ids concat(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("paths of a request tree spell the sequences and its nodes keep the rule") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const auto sequences = test::random_prefix_tree(seed, 40, 3, 61);
    const auto all = views(sequences);
    const RequestTree tree = build_request_tree(all, true);
    INFO("seed " << seed);
    for (size_t i = 0; i < all.size(); ++i) {
      // From the end of the path up: contiguous runs that agree with the sequence, down to token 0.
      const RequestTree::Node* node = &tree.nodes[static_cast<size_t>(tree.node_of[i])];
      CHECK(node->end >= all[i].size());
      // The end of a sequence that another one begins with lies further up.
      while (node->begin >= all[i].size()) node = &tree.nodes[static_cast<size_t>(node->parent)];
      for (int64_t known = all[i].size(); known > 0;) {
        CHECK(all[node->sequence].subject == all[i].subject);
        CHECK(tokens_of(all[node->sequence], node->begin, std::min(known, node->end)) ==
              tokens_of(all[i], node->begin, std::min(known, node->end)));
        known = node->begin;
        if (known == 0) break;
        REQUIRE(node->parent >= 0);
        node = &tree.nodes[static_cast<size_t>(node->parent)];
        CHECK(node->end == known);
      }
    }
    int64_t tokens = 0;
    for (const RequestTree::Node& node : tree.nodes) {
      tokens += node.end - node.begin;
      CHECK(node.end > node.begin);
      if (node.children.empty()) continue;
      CHECK(node.children.size() >= 2);
      CHECK(node.end - node.begin >= kShortestRun);
    }
    CHECK(tokens == tree.tokens);
    CHECK(tree.tokens < build_request_tree(all, false).tokens);
  }
}

TEST_CASE("a request tree does not depend on the order of requests") {
  auto sequences = test::random_prefix_tree(7, 60, 2, 61);
  const auto forward = views(sequences);
  const auto paths = paths_of(build_request_tree(forward, true), forward);
  std::reverse(sequences.begin(), sequences.end());
  const auto backward = views(sequences);
  CHECK(paths_of(build_request_tree(backward, true), backward) == paths);
}

TEST_CASE("a request tree joins what is worth it and nothing else") {
  const Ids shared(40, 7), few(kShortestRun - 1, 7);
  auto tokens = [](const std::vector<test::TestSequence>& s) {
    return build_request_tree(views(s), true).tokens;
  };
  // 40 common tokens of two save 40: too few. Of three they save 80.
  CHECK(tokens({{0, concat(shared, {1})}, {0, concat(shared, {2})}}) == 82);
  CHECK(tokens({{0, concat(shared, {1})}, {0, concat(shared, {2})}, {0, concat(shared, {3})}}) == 43);
  // Other subjects have other keys and values.
  CHECK(tokens({{0, concat(shared, {1})}, {1, concat(shared, {2})}, {2, concat(shared, {3})}}) == 123);
  // However many share it, a short run is computed by each.
  std::vector<test::TestSequence> many;
  for (int32_t i = 0; i < 30; ++i) many.push_back({0, concat(few, {i})});
  CHECK(tokens(many) == 30 * kShortestRun);
  // What another sequence begins with costs nothing.
  CHECK(tokens({{0, {1, 2, 3}}, {0, {1, 2}}, {0, {1, 2, 3}}, {0, {1, 2, 3, 4}}}) == 4);
  CHECK(tokens({}) == 0);
}
