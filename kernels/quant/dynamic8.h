#pragma once
// The signed dynamic 8-bit data type (Dettmers, "8-bit approximations for parallelism", 2015; as bitsandbytes
// builds it): 256 ascending values in (-1, 1]. Seven decades, each halving the number of equally spaced
// values of the one above it; zero has index 127.

#include <array>
#include <cstdint>
#include <span>

namespace qlora {

using Map8 = std::array<float, 256>;

// Equal to the map of bitsandbytes bit for bit (f32, with the fused multiply-add of torch's linspace).
const Map8& signed_dynamic_map();
// The same for numbers that are never negative: twice as many values a decade; zero has index 0.
const Map8& unsigned_dynamic_map();

// Encodes blocks of `block` values: absmax = max |x|, code = index of the map's value nearest to x *
// (1/absmax); an exact tie goes to the even index. A block whose absmax is zero or denormal gets the code of
// zero and absmax 0. REQUIRES: finite values; an ascending map that holds 0; room for x.size() codes and
// block_count() absmax.
void encode_dynamic8(std::span<const float> x, int64_t block, const Map8&, uint8_t* codes, float* absmax);

}  // namespace qlora
