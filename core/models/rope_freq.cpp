#include <cmath>

#include "core/models/hf_config.h"

namespace qlora {

namespace {

// All in f32 and in this order of operations, as the tables of published models were made.
float scale_llama3(float freq, const RopeConfig& r) {
  auto low = static_cast<float>(r.low_freq_factor), high = static_cast<float>(r.high_freq_factor);
  auto factor = static_cast<float>(r.factor), original = static_cast<float>(r.original_max_position);
  float wavelength = static_cast<float>(2 * M_PI) * (1.0f / freq);
  if (wavelength > static_cast<float>(static_cast<double>(r.original_max_position) / r.low_freq_factor)) {
    return freq / factor;
  }
  if (wavelength < static_cast<float>(static_cast<double>(r.original_max_position) / r.high_freq_factor))
    return freq;
  float smooth = (original * (1.0f / wavelength) - low) / (high - low);
  return (1.0f - smooth) * freq / factor + smooth * freq;
}

}  // namespace

std::vector<float> rope_inv_freq(const RopeConfig& r, int64_t dim) {
  std::vector<float> freqs;
  auto theta = static_cast<float>(r.theta);
  for (int64_t i = 0; i < dim; i += 2) {
    float freq = 1.0f / std::pow(theta, static_cast<float>(i) / static_cast<float>(dim));
    if (r.type == "linear") freq /= static_cast<float>(r.factor);
    if (r.type == "llama3") freq = scale_llama3(freq, r);
    freqs.push_back(freq);
  }
  return freqs;
}

}  // namespace qlora
