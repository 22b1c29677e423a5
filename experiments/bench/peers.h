#pragma once
// Other people's matrix products as yardsticks. They are linked only into builds with QLORA_BENCH=ON on a
// machine that has them; the product never needs them.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/dtype.h"

namespace qlora::bench {

// y[m, n] = x[m, k] w, with w [n, k] read transposed (forward) or w [k, n] as it is (backward). Plain
// row-major layouts, all of one type.
struct DenseProduct {
  bool forward = true;
  DType type = DType::f32;  // of x, w and y: f32 or bf16
  int64_t m = 0, n = 0, k = 0;
  const void* x = nullptr;
  std::vector<const void*> w = {};  // taken in turn, so that weights come from where they would in a model
  void* y = nullptr;
};

class GemmPeer {
 public:
  virtual ~GemmPeer() = default;
  virtual std::string name() const = 0;  // with its version
  // Nothing where the peer has no fast kernel for the type here.
  virtual bool can(DType) const = 0;
  // What to call again and again. REQUIRES: the operands outlive it.
  virtual std::function<void()> prepare(const DenseProduct&) = 0;
};

// What this build has. `avx2`: hold them to AVX2, as our backend of that name is; must be the same in every
// call of a process. `threads` set what they use from now on.
std::vector<std::unique_ptr<GemmPeer>> gemm_peers(bool avx2);
void set_peer_threads(int threads);
// Idle threads of OpenMP, on which peers run, spin for a while, some 14 ms on Intel's processors, and would
// take a core in our turn. Here it becomes half a millisecond: between two calls of their own turn they still
// spin. OpenMP reads the environment before main, so this program starts itself again, once, with
// GOMP_SPINCOUNT set. Does nothing where GOMP_SPINCOUNT or OMP_WAIT_POLICY is set, or no peer is linked. Call
// it before anything else of a benchmark. Throws Error(failure).
void quiet_peers();
// Why the list is empty or short: "peer absent: oneDNN (libdnnl-dev) at build time".
std::string absent_peers();

// One each, defined only where the library was found.
std::unique_ptr<GemmPeer> make_onednn(bool avx2);
std::unique_ptr<GemmPeer> make_openblas(bool avx2);

}  // namespace qlora::bench
