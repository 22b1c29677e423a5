#include "core/ops/axis.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace qlora {

namespace {

void check_tables(const Axis& a) {
  size_t n = a.tokens.size();
  QLORA_CHECK(a.positions.size() == n && a.keys.size() == n, failure,
              "axis: {} tokens, {} positions, {} row keys", n, a.positions.size(), a.keys.size());
  QLORA_CHECK(!a.cu.empty() && a.cu.front() == 0 && a.cu.back() == a.rows(), failure,
              "axis: sequences must cover the {} rows from 0", n);
  QLORA_CHECK(std::is_sorted(a.cu.begin(), a.cu.end()), failure, "axis: sequence boundaries must not fall");
}

void check_tokens(const Axis& a, int64_t vocab) {
  for (size_t i = 0; i < a.tokens.size(); ++i) {
    QLORA_CHECK(a.tokens[i] >= 0 && a.tokens[i] < vocab, failure, "axis: token {} of row {} is outside 0..{}",
                a.tokens[i], i, vocab - 1);
  }
}

void check_positions(const Axis& a) {
  for (int64_t s = 0; s < a.sequences(); ++s) {
    auto lo = static_cast<size_t>(a.cu[static_cast<size_t>(s)]),
         hi = static_cast<size_t>(a.cu[static_cast<size_t>(s) + 1]);
    for (size_t i = lo; i < hi; ++i) {
      int32_t expected = i == lo ? std::max(a.positions[lo], 0) : a.positions[i - 1] + 1;
      QLORA_CHECK(a.positions[i] == expected, failure,
                  "axis: row {} of sequence {} stands at position {}, not {}", i, s, a.positions[i],
                  expected);
    }
  }
}

void check_spans(const Axis& a) {
  int64_t at = 0;
  for (const AdapterSpan& s : a.spans) {
    QLORA_CHECK(s.lo == at && s.hi >= s.lo, failure, "axis: span [{}, {}) does not follow row {}", s.lo, s.hi,
                at);
    QLORA_CHECK(std::binary_search(a.cu.begin(), a.cu.end(), static_cast<int32_t>(s.hi)), failure,
                "axis: span [{}, {}) cuts a sequence", s.lo, s.hi);
    at = s.hi;
  }
  QLORA_CHECK(at == a.rows(), failure, "axis: spans end at row {} of {}", at, a.rows());
}

// Of the wanted rows, those before this row of the axis.
int64_t wanted_before(const std::vector<int32_t>& ids, int64_t row) {
  return std::lower_bound(ids.begin(), ids.end(), row) - ids.begin();
}

}  // namespace

WantedRows wanted_rows(const Axis& a, std::vector<int32_t> ids) {
  WantedRows wanted{std::move(ids), {}};
  for (int32_t id : wanted.ids) {
    const auto row = static_cast<size_t>(id);
    wanted.axis.tokens.push_back(a.tokens[row]);
    wanted.axis.positions.push_back(a.positions[row]);
    wanted.axis.keys.push_back(a.keys[row]);
  }
  for (int32_t row : a.cu) wanted.axis.cu.push_back(static_cast<int32_t>(wanted_before(wanted.ids, row)));
  for (AdapterSpan span : a.spans) {
    span.lo = wanted_before(wanted.ids, span.lo);
    span.hi = wanted_before(wanted.ids, span.hi);
    wanted.axis.spans.push_back(span);
  }
  return wanted;
}

void Axis::validate(int64_t vocab) const {
  check_tables(*this);
  check_tokens(*this, vocab);
  check_positions(*this);
  check_spans(*this);
}

}  // namespace qlora
