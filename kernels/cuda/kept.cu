#include "kernels/cuda/kept.h"

#include <algorithm>

#include "core/base/error.h"

namespace qlora::cuda {

Stack& Kept::stack(std::span<const WeightView> weights, int64_t rows, int64_t pitch) {
  Stack wanted{.rows = rows, .pitch = pitch};
  std::transform(weights.begin(), weights.end(), wanted.weights.begin(),
                 [](const WeightView& w) { return w.data; });
  for (Entry& e : entries_)
    if (e.stack.weights == wanted.weights && e.stack.rows == rows && e.stack.pitch == pitch) return e.stack;
  const int64_t n = rows * pitch;
  if (n > size_)
    throw Error(ErrorKind::failure, "CUDA: decoded weights are to stay that are larger than their room");
  if (next_ + n > size_) next_ = 0;
  const int64_t begin = next_, end = begin + n;
  std::erase_if(entries_, [&](const Entry& e) { return e.begin < end && begin < e.end; });
  wanted.at = room_.of<bf16>(static_cast<size_t>(size_)) + begin;
  next_ = end;
  entries_.push_back({begin, end, wanted});
  return entries_.back().stack;
}

void Kept::forget(const void* p, size_t bytes) {
  const auto lies_there = [&](const void* data) {
    const auto at = reinterpret_cast<uintptr_t>(data), begin = reinterpret_cast<uintptr_t>(p);
    return data != nullptr && at >= begin && at < begin + bytes;
  };
  std::erase_if(entries_, [&](const Entry& e) {
    return std::any_of(e.stack.weights.begin(), e.stack.weights.end(), lies_there);
  });
}

}  // namespace qlora::cuda
