// Grouped products: a block finds the product that its tile belongs to.

#include "kernels/cuda/groups.h"

#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/tiles.cuh"
#include "kernels/cuda/uploads.h"

namespace qlora::cuda {
namespace {

// A source with dropout, for x (rows are tokens) or for w of Layout::tn (k runs over tokens).
template <class Source, bool rows_are_tokens>
struct Dropped {
  static constexpr bool along_k = Source::along_k, computed = true;
  Source source;
  Keep keep;
  __device__ float at(const float* levels, int64_t row, int64_t k) const {
    return keep.apply(source.at(levels, row, k), rows_are_tokens ? row : k, rows_are_tokens ? k : row);
  }
  __device__ float level(int) const { return 0; }
};

template <class Source>
struct Scaled {
  static constexpr bool along_k = Source::along_k, computed = Source::computed;
  Source source;
  float factor;
  __device__ __forceinline__ float at(const float* levels, int64_t row, int64_t k) const {
    return factor * source.at(levels, row, k);
  }
  __device__ __forceinline__ float level(int) const { return 0; }
};

struct Range {
  int64_t begin, end;
};

// A SmallProduct on the device.
struct Item {
  const float *x, *w;
  float* y;
  int64_t m, n, k;
  float alpha;
  Sums sums;
  Keep keep;
  int32_t first_range, ranges;
  int32_t first_tile, columns;  // tiles of all items before, tiles side by side
};
static_assert(sizeof(Item) <= kSmallProductBytes && sizeof(Range) == kRangeBytes);

__device__ const Item& item_of(const Item* items, int count, int tile) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (items[middle].first_tile <= tile ? low : high) = middle;
  }
  return items[low];
}

// The operands of a range of k.
template <Layout layout>
__device__ Dense<float, layout != Layout::tn> x_of(const Item& item, int64_t begin) {
  if constexpr (layout == Layout::tn) return {item.x + begin * item.m, item.m};
  return {item.x + begin, item.k};
}
template <Layout layout>
__device__ Dense<float, layout == Layout::nt> w_of(const Item& item, int64_t begin) {
  if constexpr (layout == Layout::nt) return {item.w + begin, item.k};
  return {item.w + begin * item.n, item.n};
}

template <class Tile, Layout layout, Drops drops>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksAtOnce)
    grouped(const Item* items, int count, const Range* ranges) {
  auto& shared = shared_as<typename Tile::Shared>();
  const Item& item = item_of(items, count, static_cast<int>(blockIdx.x));
  const int tile = static_cast<int>(blockIdx.x) - item.first_tile;
  const int64_t m0 = static_cast<int64_t>(tile / item.columns) * kSide;
  const int64_t n0 = static_cast<int64_t>(tile % item.columns) * kSide;
  for (int i = 0; i < item.ranges; ++i) {
    const Range range = ranges[item.first_range + i];
    const bool goes_on = item.sums == Sums::go_on, adds = item.sums == Sums::are_added || i > 0;
    auto start = [&](int64_t m, int64_t n) { return goes_on ? item.y[m * item.n + n] : 0.0f; };
    auto store = [&](int64_t m, int64_t n, float sum) {
      float& y = item.y[m * item.n + n];
      if (goes_on) {
        y = sum;
      } else if constexpr (drops == Drops::y) {
        const float value = item.keep.apply(item.alpha * sum, m, n);
        y = adds ? y + value : value;
      } else {
        y = adds ? fmaf(item.alpha, sum, y) : item.alpha * sum;
      }
    };
    const auto x = x_of<layout>(item, range.begin);
    const auto w = w_of<layout>(item, range.begin);
    const int64_t depth = range.end - range.begin;
    if constexpr (drops == Drops::x) {
      Tile::product(shared, Dropped<decltype(x), true>{x, item.keep}, w, m0, item.m, n0, item.n, depth,
                    FromZero{}, store);
    } else if constexpr (drops == Drops::w) {
      Keep keep = item.keep;
      if (keep.keys != nullptr) keep.keys += range.begin;
      Tile::product(shared, x, Dropped<decltype(w), false>{w, keep}, m0, item.m, n0, item.n, depth,
                    FromZero{}, store);
    } else if constexpr (drops == Drops::nothing && layout == Layout::nt) {
      const Scaled<decltype(x)> scaled{x, goes_on ? item.alpha : 1.0f};
      Tile::product(shared, scaled, w, m0, item.m, n0, item.n, depth, start, store);
    } else {
      Tile::product(shared, x, w, m0, item.m, n0, item.n, depth, start, store);
    }
  }
}

template <Layout layout, Drops drops>
void launch(Device& d, Operands operands, const std::vector<Item>& items, const Range* ranges, int tiles) {
  const Item* on_device = d.uploads.put(d.stream, items.data(), items.size());
  const int count = static_cast<int>(items.size());
  const dim3 grid(static_cast<unsigned>(tiles));
  if (is_bf16(operands)) {
    d.stream.launch(grouped<MmaTile, layout, drops>, grid, dim3(MmaTile::kThreads), sizeof(MmaTile::Shared),
                    on_device, count, ranges);
  } else {
    d.stream.launch(grouped<PlainTile, layout, drops>, grid, dim3(PlainTile::kThreads),
                    sizeof(PlainTile::Shared), on_device, count, ranges);
  }
}

}  // namespace

void small_products(Device& d, Layout layout, Drops drops, Operands operands,
                    const std::vector<SmallProduct>& products) {
  std::vector<Item> items;
  std::vector<Range> ranges;
  int tiles = 0;
  for (const SmallProduct& p : products) {
    if (p.m == 0 || p.n == 0 || p.ranges.empty()) continue;
    const int columns = static_cast<int>(blocks_for(p.n, kSide));
    items.push_back({p.x, p.w, p.y, p.m, p.n, p.ranges.back().second, p.alpha, p.sums,
                     keep_of(p.dropout, p.keys), static_cast<int32_t>(ranges.size()),
                     static_cast<int32_t>(p.ranges.size()), tiles, columns});
    for (auto [begin, end] : p.ranges) ranges.push_back({begin, end});
    tiles += columns * static_cast<int>(blocks_for(p.m, kSide));
  }
  if (items.empty()) return;
  const Range* on_device = d.uploads.put(d.stream, ranges.data(), ranges.size());
  switch (layout) {
    case Layout::nt:
      return drops == Drops::x ? launch<Layout::nt, Drops::x>(d, operands, items, on_device, tiles)
                               : launch<Layout::nt, Drops::nothing>(d, operands, items, on_device, tiles);
    case Layout::nn:
      return drops == Drops::y ? launch<Layout::nn, Drops::y>(d, operands, items, on_device, tiles)
                               : launch<Layout::nn, Drops::nothing>(d, operands, items, on_device, tiles);
    default:
      return launch<Layout::tn, Drops::w>(d, operands, items, on_device, tiles);
  }
}

}  // namespace qlora::cuda
