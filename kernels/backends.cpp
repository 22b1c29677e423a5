// The table of backends.

#include <cstdlib>

#include "core/base/check.h"
#include "core/base/names.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/isa.h"
#include "kernels/cuda/load.h"
#include "kernels/reference/reference.h"
#if defined(QLORA_CUDA_EMULATED)
#include "kernels/cuda/backend.h"
#endif

namespace qlora {
namespace {

// One backend that this build knows. `make` returns null where the machine lacks what it needs, and `missing`
// says what that is. Texts are asked for only when somebody reads them: looking for a GPU takes memory on it.
struct Entry {
  std::string name;
  bool by_name_only;  // `auto` never takes it
  std::string (*what)();
  std::string (*missing)();
  std::unique_ptr<Backend> (*make)();
};

std::unique_ptr<Backend> make_reference() {
  return std::make_unique<Reference>();
}
std::string find_cuda() {
  return cuda::find_device().text;
}
std::string what_avx512() {
  return std::string("f32 kernels of 16 lanes, bf16 products by ") +
         (cpu_has_avx512_bf16() ? "vdpbf16ps, " : "two multiply-adds, ") + cpu_brand() +
         (cpu_has_amx_bf16() ? "; its AMX tiles are not used" : "");
}

// Best first: `auto` takes the first that can be made. CUDA waits to be named until it has run on a GPU.
const std::vector<Entry>& table() {
  static const std::vector<Entry> entries = {
      {"cuda", true, find_cuda, find_cuda, cuda::make_from_plugin},
      {"avx512", false, what_avx512,
       [] { return std::string("this machine has no AVX-512 (F, BW, DQ, VL)"); }, make_avx512},
      {"avx2", false,
       [] { return "f32 kernels of 8 lanes, bf16 products by two multiply-adds, " + cpu_brand(); },
       [] { return std::string("this machine has no AVX2 with FMA"); }, make_avx2},
      {"reference", false,
       [] { return std::string("plain loops, any processor; f32 and f64, operands of products also bf16"); },
       [] { return std::string(); }, make_reference},
  };
  return entries;
}

// The backend, or null and why not.
std::unique_ptr<Backend> try_make(const Entry& entry, std::string& why) {
  try {
    std::unique_ptr<Backend> backend = entry.make();
    if (backend == nullptr) why = entry.missing();
    return backend;
  } catch (const Error& e) {
    why = e.what();
    return nullptr;
  }
}

std::unique_ptr<Backend> best() {
  std::string why;
  for (const Entry& entry : table()) {
    if (entry.by_name_only) continue;
    if (std::unique_ptr<Backend> backend = try_make(entry, why)) return backend;
  }
  fail(ErrorKind::failure, "no backend is available: {}", why);
}

}  // namespace

std::vector<BackendInfo> list_backends() {
  std::vector<BackendInfo> all;
  for (const Entry& entry : table()) {
    std::string why;
    const bool available = try_make(entry, why) != nullptr;
    all.push_back({entry.name, available, available ? entry.what() : why});
  }
  return all;
}

std::unique_ptr<Backend> make_backend(std::string_view name) {
  std::string asked(name), source;
  if (asked == "auto") {
    const char* chosen = std::getenv("QLORA_BACKEND");
    if (chosen == nullptr || *chosen == '\0' || std::string_view(chosen) == "auto") return best();
    asked = chosen;
    source = " (from the environment variable QLORA_BACKEND)";
  }
  if (asked == "counting") return make_counting_backend();
#if defined(QLORA_CUDA_EMULATED)
  // In builds with tests, and only when it is asked for: the kernels of a GPU, on the processor, slowly.
  if (asked == "cuda-emulated") return cuda::make_backend();
#endif
  std::vector<std::string> known = {"auto"};
  for (const Entry& entry : table()) {
    known.push_back(entry.name);
    if (entry.name != asked) continue;
    std::string why;
    std::unique_ptr<Backend> backend = try_make(entry, why);
    QLORA_CHECK(backend != nullptr, usage, "backend `{}`{} is not available: {}", asked, source, why);
    return backend;
  }
  fail(ErrorKind::usage, "{}{}", unknown_name("backend", asked, known), source);
}

}  // namespace qlora
