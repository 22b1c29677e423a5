#pragma once
// Everything that Backend asks for, as functions on a Device, one family a file. Element type f32; what the
// arguments point to and who may alias whom is said in kernels/args_*.h.

#include "kernels/backend.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {

// rows.cu
void rms_norm(Device&, const RmsNorm&);
void rms_norm_backward(Device&, const RmsNormBackward&);
void layer_norm(Device&, const LayerNorm&);
void layer_norm_backward(Device&, const LayerNormBackward&);
void rope_table(Device&, const RopeTable&);
void rope(Device&, const Rope&);
// elements.cu
void activate(Device&, const Activate&);
void activate_backward(Device&, const ActivateBackward&);
void add(Device&, const Add&);
void gather_rows(Device&, const GatherRows&);
void scatter_rows(Device&, const ScatterRows&);
void copy_columns(Device&, const CopyColumns&);
// learning.cu
void cross_entropy(Device&, const CrossEntropy&);
void softcap(Device&, const Softcap&);
void sum_squares(Device&, const SumSquares&);
void adamw(Device&, const AdamW&);
void adamw8(Device&, const AdamW8&);
// sample.cu
void sample(Device&, const Sample&);
// codes.cu
void dequantize(Device&, const Dequantize&);
// products.cu
void gemm(Device&, const Gemm&);
void qgemm(Device&, const QGemm&);
void qgemm(Device&, const QGemm&, Sums);  // instead of a.mode
// few_rows.cu: x wᵀ of the decode class; false, and nothing done, where rows of the weight, or codes that
// share a scale, do not come in whole segments of 64.
bool few_rows(Device&, const QGemm&);
// linear.cu
void linear(Device&, const Linear&);
void linear_backward(Device&, const LinearBackward&);
// many_rows.cu: what of them many_rows.h sends to cuBLAS
class Blas;
void linear(Device&, Blas&, const Linear&);
void linear_backward(Device&, Blas&, const LinearBackward&);
// attention.cu, attention_backward.cu
void attention(Device&, const Attention&);
void attention_backward(Device&, const AttentionBackward&);

}  // namespace qlora::cuda
