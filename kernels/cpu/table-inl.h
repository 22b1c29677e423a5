// The functions of this region, for class Cpu.

static Kernels make_table(const char* name) {
  Kernels t;
  t.name = name;
  t.lanes = kLanes;
  t.fma_peak = fma_peak;
  t.gemm = gemm;
  t.dequantize = dequantize;
  t.absmax = expand_absmax;
  return t;
}
