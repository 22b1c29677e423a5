#include "experiments/bench/peers.h"

#ifdef QLORA_PEER_OPENMP
#include <omp.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "core/base/check.h"
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

void quiet_peers() {
#ifdef QLORA_PEER_OPENMP
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  ::setenv("GOMP_SPINCOUNT", "10000", 1);
  std::ifstream file("/proc/self/cmdline");  // arguments, a zero after each
  std::string all((std::istreambuf_iterator<char>(file)), {});
  if (!all.ends_with('\0'))
    fail(ErrorKind::failure, "bench: cannot read how it was started, /proc/self/cmdline");
  std::vector<char*> arguments;
  for (size_t at = 0; at < all.size(); at = all.find('\0', at) + 1) arguments.push_back(all.data() + at);
  arguments.push_back(nullptr);
  ::execv("/proc/self/exe", arguments.data());
  fail(ErrorKind::failure, "bench: cannot start again with GOMP_SPINCOUNT set: {}", std::strerror(errno));
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
