// The table of backends.

#include <cstdlib>

#include "core/base/check.h"
#include "core/base/names.h"
#include "kernels/backend.h"
#include "kernels/cpu/best512.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/isa.h"
#include "kernels/cuda/load.h"
#include "kernels/devices.h"
#include "kernels/reference/reference.h"
#if defined(QLORA_CUDA_EMULATED)
#include "kernels/cuda/backend.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/product_time.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/use.h"
#endif

namespace qlora {
namespace {

// One backend that this build knows. Texts are asked for only when somebody reads them, and whether it is
// there without making it: a backend of a GPU takes memory there.
struct Entry {
  std::string name;
  bool by_name_only;  // `auto` never takes it
  std::string (*what)();
  std::string (*missing)();  // what the machine lacks; empty: nothing
  std::unique_ptr<Backend> (*make)(const DeviceOptions&);
};

std::string nothing() {
  return "";
}
std::string lacks_avx512() {
  return make_avx512() != nullptr ? "" : "this machine has no AVX-512 (F, BW, DQ, VL)";
}
std::string lacks_avx2() {
  return make_avx2() != nullptr ? "" : "this machine has no AVX2 with FMA";
}
std::string lacks_gpu() {
  return gpu_report().trouble;
}
std::string what_gpu() {
  const GpuReport& report = gpu_report();
  return describe(report.gpus.at(0)) + ", driver " + report.driver + "; " + report.libraries;
}
std::string what_avx512() {
  return std::string("f32 kernels of 16 lanes, bf16 products by ") +
         (cpu::vdpbf16ps_is_faster() ? "vdpbf16ps, "
          : cpu_has_avx512_bf16()    ? "two multiply-adds (faster here than vdpbf16ps), "
                                     : "two multiply-adds, ") +
         (cpu_has_amx_bf16() ? "bf16_amx products by its tiles, " : "") + cpu_brand();
}

// Best first: `auto` takes the first that can be made. CUDA waits to be named until it has run on a GPU.
const std::vector<Entry>& table() {
  static const std::vector<Entry> entries = {
      {"cuda", true, what_gpu, lacks_gpu,
       [](const DeviceOptions& options) { return std::unique_ptr<Backend>(cuda::plugin().make(&options)); }},
      {"avx512", false, what_avx512, lacks_avx512, [](const DeviceOptions&) { return make_avx512(); }},
      {"avx2", false,
       [] { return "f32 kernels of 8 lanes, bf16 products by two multiply-adds, " + cpu_brand(); },
       lacks_avx2, [](const DeviceOptions&) { return make_avx2(); }},
      {"reference", false,
       [] { return std::string("plain loops, any processor; f32 and f64, operands of products also bf16"); },
       nothing, [](const DeviceOptions&) { return std::unique_ptr<Backend>(std::make_unique<Reference>()); }},
  };
  return entries;
}

const std::string kEmulated = "cuda-emulated";

// What a name stands for: an entry of the table, or a backend apart from it.
struct Choice {
  std::string name;
  const Entry* entry = nullptr;
};

Choice best() {
  for (const Entry& entry : table())
    if (!entry.by_name_only && entry.missing().empty()) return {entry.name, &entry};
  fail(ErrorKind::failure, "no backend is available");
}

Choice choose(std::string_view name) {
  std::string asked(name), source;
  if (asked == "auto") {
    const char* chosen = std::getenv("QLORA_BACKEND");
    if (chosen == nullptr || *chosen == '\0' || std::string_view(chosen) == "auto") return best();
    asked = chosen;
    source = " (from the environment variable QLORA_BACKEND)";
  }
  if (asked == "counting") return {asked};
#if defined(QLORA_CUDA_EMULATED)
  // In builds with tests, and only when it is asked for: the kernels of a GPU, on the processor, slowly.
  if (asked == kEmulated) return {asked};
#endif
  std::vector<std::string> known = {"auto"};
  for (const Entry& entry : table()) {
    known.push_back(entry.name);
    if (entry.name != asked) continue;
    const std::string missing = entry.missing();
    QLORA_CHECK(missing.empty(), usage, "backend `{}`{} is not available: {}", asked, source, missing);
    return {asked, &entry};
  }
  fail(ErrorKind::usage, "{}{}", unknown_name("backend", asked, known), source);
}

}  // namespace

std::vector<BackendInfo> list_backends() {
  std::vector<BackendInfo> all;
  for (const Entry& entry : table()) {
    const std::string missing = entry.missing();
    all.push_back({entry.name, missing.empty(), missing.empty() ? entry.what() : missing});
  }
  return all;
}

std::string backend_named(std::string_view name) {
  return choose(name).name;
}

std::unique_ptr<Backend> make_backend(std::string_view name, const DeviceOptions& options) {
  const Choice choice = choose(name);
  if (choice.entry != nullptr) return choice.entry->make(options);
#if defined(QLORA_CUDA_EMULATED)
  if (choice.name == kEmulated) return cuda::make_backend(options);
#endif
  return make_counting_backend();
}

bool has_blas(std::string_view backend) {
  if (backend == "cuda") return gpu_report().blas;
#if defined(QLORA_CUDA_EMULATED)
  if (backend == kEmulated) return cuda::find_blas().usable;
#endif
  return false;
}

double time_of_blas(std::string_view backend, int64_t m, int64_t n, int64_t k, bool w_is_kn, bool quick) {
  if (backend == "cuda") return cuda::plugin().time_product(m, n, k, w_is_kn, quick);
#if defined(QLORA_CUDA_EMULATED)
  if (backend == kEmulated) return cuda::time_of_product(m, n, k, w_is_kn, quick);
#endif
  return 0;
}

DeviceUse device_use(std::string_view backend) {
  DeviceUse use;
  if (backend == "cuda") cuda::plugin().device_use(&use);
#if defined(QLORA_CUDA_EMULATED)
  if (backend == kEmulated) use = cuda::device_use();
#endif
  return use;
}

size_t most_gpu_bytes(const Backend& backend) {
  if (backend.name() == "cuda") return cuda::plugin().most_bytes();
#if defined(QLORA_CUDA_EMULATED)
  if (backend.name() == kEmulated) return cuda::device_bytes().most;
#endif
  return 0;
}

}  // namespace qlora
