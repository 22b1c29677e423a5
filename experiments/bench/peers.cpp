#include "experiments/bench/peers.h"

#ifdef QLORA_PEER_OPENMP
#include <omp.h>
#endif

namespace qlora::bench {

std::vector<std::unique_ptr<GemmPeer>> gemm_peers([[maybe_unused]] bool avx2) {
  std::vector<std::unique_ptr<GemmPeer>> peers;
#ifdef QLORA_PEER_ONEDNN
  peers.push_back(make_onednn(avx2));
#endif
#ifdef QLORA_PEER_OPENBLAS
  peers.push_back(make_openblas(avx2));
#endif
  return peers;
}

void set_peer_threads([[maybe_unused]] int threads) {
#ifdef QLORA_PEER_OPENMP
  omp_set_num_threads(threads);
#endif
}

std::string absent_peers() {
  std::string missing;
#ifndef QLORA_PEER_ONEDNN
  missing += "oneDNN (libdnnl-dev)";
#endif
#ifndef QLORA_PEER_OPENBLAS
  missing += std::string(missing.empty() ? "" : ", ") + "OpenBLAS (libopenblas-openmp-dev)";
#endif
  return missing.empty() ? "" : "peer absent: " + missing + " at build time with -DQLORA_BENCH=ON";
}

}  // namespace qlora::bench
