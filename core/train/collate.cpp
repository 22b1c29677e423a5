#include "core/train/collate.h"

#include "core/base/check.h"

namespace qlora {

void append_example(Batch& batch, const TokenExample& example, uint32_t index) {
  Axis& axis = batch.axis;
  QLORA_CHECK(!example.ids.empty() && example.ids.size() == example.labels.size(), failure,
              "collate: an example has {} tokens and {} labels", example.ids.size(), example.labels.size());
  if (axis.cu.empty()) axis.cu.push_back(0);
  const size_t size = example.ids.size();
  for (size_t t = 0; t < size; ++t) {
    axis.tokens.push_back(example.ids[t]);
    axis.positions.push_back(static_cast<int32_t>(t));
    axis.keys.push_back({.example = index, .position = static_cast<uint32_t>(t)});
    // Row t predicts token t + 1; the last row predicts nothing.
    batch.targets.push_back(t + 1 < size ? example.labels[t + 1] : -100);
  }
  axis.cu.push_back(static_cast<int32_t>(axis.rows()));
}

void append_span(Batch& batch, std::span<const TokenExample> examples, int64_t first, AdapterSpan span) {
  RunRows rows{.lo = batch.axis.rows()};
  for (size_t i = 0; i < examples.size(); ++i) {
    append_example(batch, examples[i], static_cast<uint32_t>(first) + static_cast<uint32_t>(i));
    rows.labels += label_count(examples[i]);
  }
  span.lo = rows.lo;
  span.hi = rows.hi = batch.axis.rows();
  batch.axis.spans.push_back(span);
  batch.runs.push_back(rows);
}

Batch collate(std::span<Run* const> runs, std::span<const Run::Micro> micros) {
  QLORA_CHECK(runs.size() == micros.size(), failure, "collate: {} runs but {} micro-batches", runs.size(),
              micros.size());
  Batch batch;
  for (size_t i = 0; i < runs.size(); ++i)
    append_span(batch, micros[i].examples, micros[i].first,
                {.adapter = &runs[i]->adapter(),
                 .seed = runs[i]->config().seed,
                 .step = static_cast<uint32_t>(runs[i]->step())});
  return batch;
}

std::vector<double> example_losses(const Batch& batch, const RunRows& rows, std::span<const double> losses) {
  std::vector<double> sums;
  for (size_t s = 0; s + 1 < batch.axis.cu.size(); ++s) {
    const int64_t lo = batch.axis.cu[s], hi = batch.axis.cu[s + 1];
    if (lo < rows.lo || hi > rows.hi) continue;
    double sum = 0;
    for (int64_t row = lo; row < hi; ++row) sum += losses[static_cast<size_t>(row)];
    sums.push_back(sum);
  }
  return sums;
}

}  // namespace qlora
