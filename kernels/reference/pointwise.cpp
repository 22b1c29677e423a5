// Activations and sums, element by element.

#include <cmath>

#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

template <class T>
void gated(const SwiGlu& a) {
  const auto *gate = static_cast<const T*>(a.gate), *up = static_cast<const T*>(a.up);
  auto* y = static_cast<T*>(a.y);
  split(a.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = gate[i] / (T{1} + std::exp(-gate[i])) * up[i];
  });
}

// With s = 1 / (1 + exp(-g)):  d silu / dg = s (1 + g (1 - s)).
template <class T>
void gated_backward(const SwiGluBackward& a) {
  const auto *gate = static_cast<const T*>(a.gate), *up = static_cast<const T*>(a.up);
  const auto* dy = static_cast<const T*>(a.dy);
  auto *dgate = static_cast<T*>(a.dgate), *dup = static_cast<T*>(a.dup);
  split(a.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T g = gate[i], s = T{1} / (T{1} + std::exp(-g));
      T d = dy[i], u = up[i];  // read before either is written: dgate and dup may lie over gate and up
      if (dgate != nullptr) store(dgate[i], d * u * (s * (T{1} + g * (T{1} - s))), a.gate_mode);
      if (dup != nullptr) store(dup[i], d * (g * s), a.up_mode);
    }
  });
}

template <class T>
void sum(const Add& a) {
  const auto *x = static_cast<const T*>(a.a), *z = static_cast<const T*>(a.b);
  auto* y = static_cast<T*>(a.y);
  split(a.n, 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = x[i] + z[i];
  });
}

}  // namespace

void Reference::swiglu(const SwiGlu& a) {
  by_compute_type(a.type, [&]<class T>(T) { gated<T>(a); });
}

void Reference::swiglu_backward(const SwiGluBackward& a) {
  by_compute_type(a.type, [&]<class T>(T) { gated_backward<T>(a); });
}

void Reference::add(const Add& a) {
  by_compute_type(a.type, [&]<class T>(T) { sum<T>(a); });
}

}  // namespace qlora
