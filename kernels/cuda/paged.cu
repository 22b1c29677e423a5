// AdamW over states in pinned host memory. They pass through two slabs of the device: while one is updated,
// the next is loaded into the other and the one before is stored. No managed memory: it pages when it likes,
// and more of it than a shared device has free may hang that.

#include <algorithm>
#include <vector>

#include "kernels/cuda/optimizer.h"

namespace qlora::cuda {
namespace {

// Elements [begin, begin + n) of a tensor.
struct Piece {
  const AdamTensor* tensor = nullptr;
  int64_t begin = 0, n = 0;

  float* at(void* state) const { return static_cast<float*>(state) + begin; }
};

// Cuts the tensors, in order, into slabs of at most `most` elements.
std::vector<std::vector<Piece>> slabs_of(std::span<const AdamTensor> tensors, int64_t most) {
  std::vector<std::vector<Piece>> slabs;
  int64_t room = 0;
  for (const AdamTensor& t : tensors)
    for (int64_t begin = 0, n = 0; begin < t.n; begin += n, room -= n) {
      if (room == 0) {
        slabs.emplace_back();
        room = most;
      }
      n = std::min(room, t.n - begin);
      slabs.back().push_back({&t, begin, n});
    }
  return slabs;
}

// Calls copy(host, place, n) for every stretch of the slab's m (or v) that lies in one piece on the host;
// `place` counts its elements from the slab's begin.
template <class Copy>
void for_stretches(const std::vector<Piece>& slab, void* AdamTensor::*state, Copy&& copy) {
  float* host = nullptr;
  int64_t place = 0, n = 0;
  for (const Piece& piece : slab) {
    float* next = piece.at(piece.tensor->*state);
    if (n > 0 && next != host + n) {
      copy(host, place, static_cast<size_t>(n));
      place += n;
      n = 0;
    }
    if (n == 0) host = next;
    n += piece.n;
  }
  copy(host, place, static_cast<size_t>(n));
}

// The pieces as tensors of their own, with their states in the slab.
std::vector<AdamTensor> tensors_in(const std::vector<Piece>& slab, float* m, float* v) {
  std::vector<AdamTensor> tensors;
  for (const Piece& piece : slab) {
    AdamTensor t = *piece.tensor;
    t.p = piece.at(t.p);
    t.g = static_cast<const float*>(t.g) + piece.begin;
    t.m = m;
    t.v = v;
    t.n = piece.n;
    tensors.push_back(t);
    m += piece.n;
    v += piece.n;
  }
  return tensors;
}

void load(Stream& in, const std::vector<Piece>& slab, float* m, float* v) {
  for_stretches(slab, &AdamTensor::m,
                [&](float* host, int64_t at, size_t n) { in.load(m + at, host, n * sizeof(float)); });
  for_stretches(slab, &AdamTensor::v,
                [&](float* host, int64_t at, size_t n) { in.load(v + at, host, n * sizeof(float)); });
}

void store(Stream& out, const std::vector<Piece>& slab, const float* m, const float* v) {
  for_stretches(slab, &AdamTensor::m,
                [&](float* host, int64_t at, size_t n) { out.store(host, m + at, n * sizeof(float)); });
  for_stretches(slab, &AdamTensor::v,
                [&](float* host, int64_t at, size_t n) { out.store(host, v + at, n * sizeof(float)); });
}

}  // namespace

void adamw_paged(Device& d, const AdamW& a) {
  const int64_t most = slab_elements(a);
  if (most == 0) return;
  if (d.paging == nullptr) d.paging = std::make_shared<Paging>();
  Paging& paging = *d.paging;
  auto* room = d.room<float>(Room::slabs, 4 * static_cast<size_t>(most));
  size_t i = 0;
  for (const std::vector<Piece>& slab : slabs_of(a.tensors, most)) {
    float *m = room + 2 * static_cast<int64_t>(i) * most, *v = m + most;
    paging.in.wait_for(paging.stored[i]);  // also of the step before, whose states these are
    load(paging.in, slab, m, v);
    paging.in.record(paging.loaded[i]);
    d.stream.wait_for(paging.loaded[i]);
    adam_step(d, a, tensors_in(slab, m, v));
    d.stream.record(paging.updated[i]);
    paging.out.wait_for(paging.updated[i]);
    store(paging.out, slab, m, v);
    paging.out.record(paging.stored[i]);
    i = 1 - i;
  }
}

void wait_for_pages(Device& d) {
  if (d.paging == nullptr) return;
  d.paging->out.wait();  // which waits for the others
}

}  // namespace qlora::cuda
