#include "eval/agreement/cluster_bootstrap.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"

namespace qlora {

namespace {

// Linear between order statistics. REQUIRES: sorted, not empty.
double quantile(const std::vector<double>& sorted, double q) {
  double position = q * static_cast<double>(sorted.size() - 1);
  auto low = static_cast<size_t>(position);
  size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (position - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

}  // namespace

std::vector<Estimate> cluster_bootstrap(int64_t clusters, const BootstrapOptions& options,
                                        const Statistics& statistics) {
  QLORA_CHECK(options.resamples >= 0 && options.resamples != 1, usage,
              "resamples must be 0 (no interval) or at least 2, not {}", options.resamples);
  std::vector<int32_t> once(static_cast<size_t>(clusters), 1);
  std::vector<Estimate> estimates;
  for (std::optional<double> value : statistics(once)) estimates.push_back({value, {}, {}, 0});

  std::vector<std::vector<std::optional<double>>> drawn(static_cast<size_t>(options.resamples));
  parallel_for(options.resamples, 1, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> weights(static_cast<size_t>(clusters));
    for (int64_t b = begin; b < end; ++b) {
      std::fill(weights.begin(), weights.end(), 0);
      PhiloxStream random(mix_seed(options.seed, static_cast<uint64_t>(b)));
      for (int64_t i = 0; i < clusters; ++i) ++weights[random.below(static_cast<uint32_t>(clusters))];
      drawn[static_cast<size_t>(b)] = statistics(weights);
    }
  });
  for (size_t s = 0; s < estimates.size(); ++s) {
    std::vector<double> values;
    for (const auto& sample : drawn)
      if (sample[s]) values.push_back(*sample[s]);
    estimates[s].undefined = options.resamples - static_cast<int64_t>(values.size());
    if (values.empty()) continue;
    std::sort(values.begin(), values.end());
    estimates[s].lo = quantile(values, 0.025);
    estimates[s].hi = quantile(values, 0.975);
  }
  return estimates;
}

}  // namespace qlora
