#include "kernels/round_operands.h"

#include <algorithm>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"

namespace qlora {

// Called for every row of a token step, so that the kernels are asked for once.
void round_operands(const float* from, int64_t n, bf16* to) {
  static const cpu::Kernels* const kernels = cpu::best_kernels();
  if (kernels == nullptr) {
    std::transform(from, from + n, to, to_operand);
  } else {
    kernels->round_operands(from, n, &to->bits);
  }
}

}  // namespace qlora
