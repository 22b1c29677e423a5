// The files of a region, in the order in which they need each other (after a vec*-inl.h, a codes*-inl.h and
// a scales*-inl.h). QLORA_PAIRS says whether the first has dot_pairs(),
// QLORA_TILES whether an amx*-inl.h came before. Defines what all of them use:
// QLORA_INLINE functions disappear into their callers.

// clang-format off
#include "kernels/cpu/parallel-inl.h"
#include "kernels/cpu/pack-inl.h"
#include "kernels/cpu/decode-inl.h"
#include "kernels/cpu/operands-inl.h"
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/amx_sums-inl.h"
#include "kernels/cpu/amx_tiles-inl.h"
#include "kernels/cpu/dropout-inl.h"
#include "kernels/cpu/deltas-inl.h"
#include "kernels/cpu/amx_panels-inl.h"
#include "kernels/cpu/amx_blocks-inl.h"
#include "kernels/cpu/thin-inl.h"
#include "kernels/cpu/amx_thin-inl.h"
#include "kernels/cpu/small_rows-inl.h"
#include "kernels/cpu/small_codes-inl.h"
#include "kernels/cpu/amx_few_rows-inl.h"
#include "kernels/cpu/decode_rows-inl.h"
#include "kernels/cpu/decode_tiles-inl.h"
#include "kernels/cpu/codec-inl.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/rows-inl.h"
#include "kernels/cpu/activations-inl.h"
#include "kernels/cpu/loss-inl.h"
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/table-inl.h"
// clang-format on
