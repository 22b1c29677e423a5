#include "eval/ratings/proportion.h"

#include <algorithm>
#include <cmath>

#include "eval/metrics/distributions.h"

namespace qlora {

namespace {

double z_of(double level) {
  return -normal_quantile((1 - level) / 2);
}

ShareInterval clipped(double middle, double half) {
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

}  // namespace

ShareInterval wilson_interval(double k, double n, double level) {
  double z = z_of(level), share = k / n, spread = 1 + z * z / n;
  double middle = (share + z * z / (2 * n)) / spread;
  double half = z / spread * std::sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  ShareInterval out = clipped(middle, half);
  if (k == 0) out.lo = 0;  // exactly, where rounding leaves 1e-17
  if (k == n) out.hi = 1;
  return out;
}

ShareInterval clopper_pearson_interval(double k, double n, double level) {
  double tail = (1 - level) / 2;
  return {k == 0 ? 0 : beta_quantile(k, n - k + 1, tail), k == n ? 1 : beta_quantile(k + 1, n - k, 1 - tail)};
}

ShareInterval agresti_coull_interval(double k, double n, double level) {
  double z = z_of(level), more = n + z * z, share = (k + z * z / 2) / more;
  return clipped(share, z * std::sqrt(share * (1 - share) / more));
}

ShareInterval normal_share_interval(double k, double n, double level) {
  double share = k / n;
  return clipped(share, z_of(level) * std::sqrt(share * (1 - share) / n));
}

}  // namespace qlora
