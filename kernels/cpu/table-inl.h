// The functions of this region, for class Cpu.

static Kernels make_table(const char* name) {
  Kernels t;
  t.name = name;
  t.lanes = kLanes;
  t.fma_peak = fma_peak;
  t.gemm = gemm;
  t.gemm_bf16 = gemm_of<Bf16Best>;
  t.gemm_bf16_fma = gemm_of<Bf16>;
  t.gemm_amx = gemm_of<AmxBest>;
  t.gemm_amx_fma = gemm_of<AmxSums>;
  t.thin = thin_products<AsStored>;
  t.thin_bf16 = thin_products<Bf16Best>;
  t.thin_amx = thin_products<AmxBest>;
  t.thin_amx_fma = thin_products<AmxSums>;
  t.decode_rows = decode_rows;
  t.decode_rows_halves = decode_rows_halves;
  t.decode_rows_amx = decode_rows_amx;
  t.dequantize = dequantize;
  t.dequantize_bf16 = dequantize_bf16;
  t.encode = encode;
  t.round_operands = round_operands;
  t.attention = attention<AsStored>;
  t.attention_backward = attention_backward<AsStored>;
  t.attention_bf16 = attention<Bf16Best>;
  t.attention_backward_bf16 = attention_backward<Bf16Best>;
  t.attention_amx = attention<AmxBest>;
  t.attention_backward_amx = attention_backward<AmxBest>;
  t.attention_amx_fma = attention<AmxSums>;
  t.attention_backward_amx_fma = attention_backward<AmxSums>;
  t.rms_norm = rms_norm;
  t.rms_norm_backward = rms_norm_backward;
  t.layer_norm = layer_norm;
  t.layer_norm_backward = layer_norm_backward;
  t.activate = activate;
  t.activate_backward = activate_backward;
  t.rope = rope;
  t.copy_columns = copy_columns;
  t.drop_rows = drop_rows;
  t.cross_entropy = cross_entropy;
  t.softcap = softcap;
  t.exp = exp_many;
  return t;
}
