// Activations and sums, element by element.

#include <cmath>

#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

template <class T>
struct Curve {
  T value, slope;
};

// Each kind: act(g), and beside it, as backward reads it, act'(g).

struct Silu {
  template <class T>
  static T value(T g) {
    return g / (T{1} + std::exp(-g));
  }
  // With s = 1 / (1 + exp(-g)):  g s,  s (1 + g (1 - s)).
  template <class T>
  static Curve<T> at(T g) {
    const T s = T{1} / (T{1} + std::exp(-g));
    return {g * s, s * (T{1} + g * (T{1} - s))};
  }
};

// With P the distribution function of the normal distribution and p its density:  g P(g),  P(g) + g p(g).
struct Gelu {
  template <class T>
  static T distribution(T g) {
    return T{0.5} * std::erfc(-g * static_cast<T>(M_SQRT1_2));
  }
  template <class T>
  static T value(T g) {
    return g * distribution(g);
  }
  template <class T>
  static Curve<T> at(T g) {
    const T share = distribution(g);
    const T density = std::exp(T{-0.5} * g * g) * static_cast<T>(M_2_SQRTPI * M_SQRT1_2 / 2);
    return {g * share, share + g * density};
  }
};

// With s = 1 / (1 + exp(-2 u)):  g s,  s + g s (1 - s) 2 u'.  With e = exp(-2 |u|) and t = 1 / (1 + e),
// nothing cancels: s is t or e t, and s (1 - s) is e t².
struct GeluTanh {
  static constexpr double kTwice = 2 * M_2_SQRTPI * M_SQRT1_2, kCube = 0.044715;  // 2 sqrt(2 / pi)
  template <class T>
  struct Share {
    T s, rest;  // s (1 - s)
  };
  template <class T>
  static Share<T> share(T g) {
    const T e = std::exp(-static_cast<T>(kTwice) * std::abs(g + static_cast<T>(kCube) * g * g * g));
    const T t = T{1} / (T{1} + e);
    return {g < T{0} ? e * t : t, e * t * t};
  }
  template <class T>
  static T value(T g) {
    return g * share(g).s;
  }
  template <class T>
  static Curve<T> at(T g) {
    const auto [s, rest] = share(g);
    const T rise = static_cast<T>(kTwice) * (T{1} + static_cast<T>(3 * kCube) * g * g);
    return {g * s, s + g * rest * rise};
  }
};

struct Relu {
  template <class T>
  static T value(T g) {
    return g < T{0} ? T{0} : g;  // NaN stays
  }
  template <class T>
  static Curve<T> at(T g) {
    return {value(g), g > T{0} ? T{1} : T{0}};
  }
};

template <class Body>
void by_kind(Activation kind, Body&& body) {
  switch (kind) {
    case Activation::silu:
      return body(Silu{});
    case Activation::gelu:
      return body(Gelu{});
    case Activation::gelu_tanh:
      return body(GeluTanh{});
    case Activation::relu:
      return body(Relu{});
  }
}

template <class Kind, class T, class Y>
void activated(const Activate& a) {
  const auto *gate = static_cast<const T*>(a.gate), *up = static_cast<const T*>(a.up);
  auto* y = static_cast<Y*>(a.y);
  split(a.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T value = Kind::value(gate[i]);
      store(y[i], up != nullptr ? value * up[i] : value);
    }
  });
}

template <class Kind, class T>
void activated_backward(const ActivateBackward& a) {
  const auto *gate = static_cast<const T*>(a.gate), *up = static_cast<const T*>(a.up);
  const auto* dy = static_cast<const T*>(a.dy);
  auto *dgate = static_cast<T*>(a.dgate), *dup = static_cast<T*>(a.dup);
  split(a.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      // Read before either is written: dgate and dup may lie over gate and up.
      const Curve<T> act = Kind::at(gate[i]);
      const T d = dy[i], arriving = up != nullptr ? d * up[i] : d;
      if (dgate != nullptr) store(dgate[i], arriving * act.slope, a.gate_mode);
      if (dup != nullptr) store(dup[i], d * act.value, a.up_mode);
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

void Reference::activate(const Activate& a) {
  by_types(a.type, a.y_type, [&]<class T, class Y>(T, Y) {
    by_kind(a.kind, [&]<class Kind>(Kind) { activated<Kind, T, Y>(a); });
  });
}

void Reference::activate_backward(const ActivateBackward& a) {
  by_compute_type(a.type, [&]<class T>(T) {
    by_kind(a.kind, [&]<class Kind>(Kind) { activated_backward<Kind, T>(a); });
  });
}

void Reference::add(const Add& a) {
  by_compute_type(a.type, [&]<class T>(T) { sum<T>(a); });
}

}  // namespace qlora
