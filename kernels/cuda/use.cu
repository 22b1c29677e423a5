#include "kernels/cuda/use.h"

namespace qlora::cuda {

Used& used() {
  static Used all;
  return all;
}

DeviceUse device_use() {
  return {used().by_lt, used().by_gemm, used().asked, used().graphs};
}

}  // namespace qlora::cuda
