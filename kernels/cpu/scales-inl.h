// Double-quantized scales: out[i] = f32(f32(map[codes[i]] * nested) + offset), of the n <= 256 that share
// `nested`.

// Where map[0, 256) is looked up.
struct ScaleMap {
  const float* values;
  explicit ScaleMap(const float* map) : values(map) {}
};
QLORA_INLINE void expand_group(const ScaleMap& map, const uint8_t* codes, int64_t n, float nested,
                               float offset, float* out) {
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; ++i) out[i] = map.values[codes[i]] * nested + offset;
}
