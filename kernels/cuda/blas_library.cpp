// Where cuBLAS is on this machine.

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cuda/blas_table.h"

namespace qlora::cuda {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 3> kVersions = {"13", "12", "11"};  // of one set of signatures
const char* const kHowTo = "pip install nvidia-cublas, or QLORA_CUBLAS=/path/of/libcublas.so.13";

FoundBlas without(std::string why) {
  return {.text = "no cuBLAS (" + std::move(why) + ")"};
}

// The value of a variable as a path, then what it is extended by; empty where it is not set.
fs::path under(const char* variable, const char* rest) {
  const char* value = std::getenv(variable);
  return value == nullptr || *value == '\0' ? fs::path() : fs::path(value) / rest;
}

// pip puts libraries in nvidia/cublas/lib (CUDA 12) or nvidia/cu13/lib of the packages of each Python.
void add_packages(std::vector<fs::path>& folders, const fs::path& lib) {
  std::error_code none;
  for (const auto& python : fs::directory_iterator(lib, none))
    for (const char* package : {"nvidia/cu13/lib", "nvidia/cublas/lib"}) {
      const fs::path folder = python.path() / "site-packages" / package;
      if (fs::is_directory(folder, none)) folders.push_back(folder);
    }
}

std::vector<fs::path> folders() {
  std::vector<fs::path> all;
  for (const char* environment : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const fs::path lib = under(environment, "lib");
    if (lib.empty()) continue;
    add_packages(all, lib);
    all.push_back(lib);
  }
  add_packages(all, under("HOME", ".local/lib"));
  all.push_back(under("CUDA_HOME", "lib64"));
  all.emplace_back("/usr/local/cuda/lib64");
  return all;
}

// The libcublasLt that belongs to a libcublas: beside it, or of the same version where the loader finds it.
// Null: not there.
void* open_lt(const fs::path& blas) {
  const std::string name = blas.filename().string(), prefix = "libcublas.so";
  if (!name.starts_with(prefix)) return nullptr;
  const std::string lt = "libcublasLt.so" + name.substr(prefix.size());
  if (blas.has_parent_path())
    if (void* library = dlopen((blas.parent_path() / lt).c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  return dlopen(lt.c_str(), RTLD_NOW | RTLD_LOCAL);
}

template <class F>
bool take(void* library, const char* name, F& function, std::string& missing) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr && missing.empty()) missing = name;
  return function != nullptr;
}

std::string version_of(void* library) {
  using Property = int (*)(int which, int* value);
  const auto property = reinterpret_cast<Property>(dlsym(library, "cublasGetProperty"));
  int part[3] = {};
  if (property == nullptr) return {};
  std::string text;
  for (int i = 0; i < 3; ++i) {
    property(i, &part[i]);
    text += (i == 0 ? " " : ".") + std::to_string(part[i]);
  }
  return text;
}

FoundBlas join_lt(FoundBlas found, void* library) {
  if (library == nullptr) return without_lt(std::move(found), "libcublasLt is not found beside it");
  LtTable table;
  std::string missing;
  take(library, "cublasLtCreate", table.create, missing);
  take(library, "cublasLtDestroy", table.destroy, missing);
  take(library, "cublasLtMatmulDescCreate", table.create_product, missing);
  take(library, "cublasLtMatmulDescDestroy", table.destroy_product, missing);
  take(library, "cublasLtMatmulDescSetAttribute", table.set_product, missing);
  take(library, "cublasLtMatrixLayoutCreate", table.create_layout, missing);
  take(library, "cublasLtMatrixLayoutDestroy", table.destroy_layout, missing);
  take(library, "cublasLtMatmulPreferenceCreate", table.create_preference, missing);
  take(library, "cublasLtMatmulPreferenceDestroy", table.destroy_preference, missing);
  take(library, "cublasLtMatmulPreferenceSetAttribute", table.set_preference, missing);
  take(library, "cublasLtMatmulAlgoGetHeuristic", table.heuristic, missing);
  take(library, "cublasLtMatmul", table.multiply, missing);
  if (!missing.empty()) return without_lt(std::move(found), "it has no " + missing);
  return with_lt(std::move(found), table);
}

// The libraries stay loaded: their code may run until the process ends.
FoundBlas table_of(void* library, void* lt, const std::string& where) {
  FoundBlas found{.usable = true};
  std::string missing;
  take(library, "cublasCreate_v2", found.table.create, missing);
  take(library, "cublasDestroy_v2", found.table.destroy, missing);
  take(library, "cublasSetStream_v2", found.table.set_stream, missing);
  take(library, "cublasSetWorkspace_v2", found.table.set_workspace, missing);
  take(library, "cublasGemmEx", found.table.gemm, missing);
  if (!missing.empty()) return without(where + " has no " + missing);
  found.text = "cuBLAS" + version_of(library) + " (" + where + ")";
  return join_lt(std::move(found), lt);
}

// libcublas needs its own libcublasLt, which need not be where the loader looks: once it is loaded, its name
// is enough. None where there is no such file.
std::optional<FoundBlas> look_in(const fs::path& folder, const std::string& version) {
  const fs::path path = folder / ("libcublas.so." + version);
  std::error_code none;
  if (folder.empty() || !fs::exists(path, none)) return {};
  void* const lt = open_lt(path);
  if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))
    return table_of(library, lt, path.string());
  return {};
}

FoundBlas look() {
  for (const char* version : kVersions) {
    const std::string name = std::string("libcublas.so.") + version;
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL))
      return table_of(library, open_lt(name), name);
  }
  for (const fs::path& folder : folders())
    for (const char* version : kVersions)
      if (std::optional<FoundBlas> found = look_in(folder, version)) return *std::move(found);
  return without(std::string("libcublas.so.13, .12 and .11 are not found: ") + kHowTo);
}

}  // namespace

FoundBlas find_blas_library() {
  if (blas_is_off()) return without("QLORA_CUBLAS=off");
  const char* chosen = std::getenv("QLORA_CUBLAS");
  if (chosen == nullptr || *chosen == '\0') {
    static const FoundBlas found = look();
    return found;
  }
  void* const lt = open_lt(chosen);
  void* library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return without(std::string("QLORA_CUBLAS: ") + dlerror());
  return table_of(library, lt, chosen);
}

}  // namespace qlora::cuda
