#include "kernels/cuda/product_time.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {
namespace {

// Random bits of [-1, 1], the same again and again: how much power a device takes, and with it how fast it
// is, depends on what it multiplies.
bf16* random_matrix(Device& d, Room room, int64_t n) {
  constexpr int64_t kPiece = int64_t{1} << 20;
  std::vector<bf16> values(static_cast<size_t>(std::min(n, kPiece)));
  PhiloxStream random(static_cast<uint64_t>(room));
  for (bf16& v : values) v = to_bf16(2 * random.uniform() - 1);
  bf16* to = d.room<bf16>(room, static_cast<size_t>(n));
  for (int64_t at = 0; at < n; at += kPiece)
    d.stream.copy_in(to + at, values.data(), static_cast<size_t>(std::min(kPiece, n - at)) * sizeof(bf16));
  return to;
}

}  // namespace

double time_of_product(int64_t m, int64_t n, int64_t k, bool w_is_kn, bool quick) {
  using Clock = std::chrono::steady_clock;
  Device d;
  Blas* blas = d.blas();
  if (blas == nullptr) return 0;
  const BlasProduct product{.x = random_matrix(d, Room::narrow, m * k),
                            .x_pitch = k,
                            .w = random_matrix(d, Room::decoded, n * k),
                            .w_pitch = w_is_kn ? n : k,
                            .w_is_kn = w_is_kn,
                            .y = d.room<float>(Room::y, static_cast<size_t>(m * n)),
                            .y_pitch = n,
                            .m = m,
                            .n = n,
                            .k = k};
  const auto seconds = [&](int calls) {
    d.stream.wait();
    const auto start = Clock::now();
    for (int i = 0; i < calls; ++i) blas->product(product);
    d.stream.wait();
    return std::chrono::duration<double>(Clock::now() - start).count() / calls;
  };
  const double first = seconds(1);
  if (quick) return first;
  const int calls = std::clamp(static_cast<int>(0.1 / std::max(first, 1e-6)), 1, 10000);
  std::array<double, 5> rounds;
  for (double& round : rounds) round = seconds(calls);
  std::sort(rounds.begin(), rounds.end());
  return rounds[rounds.size() / 2];
}

}  // namespace qlora::cuda
