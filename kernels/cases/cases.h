#pragma once
// For tests: the case table. A case is one kernel at one shape with its operands; a test runs it on any
// backend, in any type, at any alignment, and compares. Adding a kernel means adding its cases here; parity
// with the oracle, independence of threads and of alignment follow.

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/philox.h"
#include "kernels/backend.h"

namespace qlora::test {

using Array = std::vector<double>;

inline bool same_bits(const Array& a, const Array& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

// Puts operands where a backend can use them. Every block stands `offset` elements behind an aligned address
// and has guard bytes on both sides. Frees all with itself.
class Device {
 public:
  Device(Backend& backend, DType type, int64_t offset = 0, Operands operands = Operands::as_stored)
      : backend_(backend), type_(type), offset_(offset), operands_(operands) {}
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  Backend& backend() const { return backend_; }
  DType type() const { return type_; }
  // How the products of the case read their operands.
  Operands operands() const { return operands_; }
  // The values as elements of the device's type.
  void* put(const Array& values);
  // The values rounded to bf16.
  void* put_bf16(const Array& values);
  // Anything else, as it is, aligned; null for an empty vector.
  template <class T>
  T* put_raw(const std::vector<T>& values) {
    return values.empty() ? nullptr : static_cast<T*>(put_bytes(values.data(), values.size() * sizeof(T), 0));
  }
  // The values in memory of the host that the device copies from (Backend::allocate_host), and what lies
  // there after all work.
  void* put_host(const Array& values);
  Array get_host(const void* p, int64_t n) const;
  // Room for n results, filled with NaN.
  void* make(int64_t n);
  Array get(const void* p, int64_t n) const;
  template <class T>
  std::vector<T> get_raw(const T* p, int64_t n) const {
    std::vector<T> values(static_cast<size_t>(n));
    backend_.copy(values.data(), p, values.size() * sizeof(T), CopyKind::device_to_host);
    return values;
  }
  // Throws when a kernel wrote beside any of the blocks.
  void check_guards() const;

 private:
  struct Block {
    std::byte* base;
    size_t before, size, total;
  };
  void* put_bytes(const void* data, size_t bytes, size_t before);
  Backend& backend_;
  DType type_;
  int64_t offset_;
  Operands operands_;
  std::vector<Block> blocks_;
  std::vector<std::pair<void*, size_t>> on_host_;
};

struct Case {
  std::string kernel = {};
  std::string shape = {};          // in words
  int64_t length = 1;              // terms of the longest sum: rounding errors grow with its root
  std::vector<Array> inputs = {};  // values exact in f32
  // Runs the kernel on operands of these values; returns all results, one array each.
  std::function<std::vector<Array>(Device&, const std::vector<Array>&)> run = {};
  // Sizes of numbers that cancel inside a result, one per result array (or empty: none). See parity_test.cpp.
  std::vector<double> cancels = {};
  Operands operands = Operands::as_stored;
  // With bf16 operands: how far a result moves, per result array, when a value that the kernel computes and
  // then reads as an operand falls to the other side of a rounding (or empty: there is none).
  std::vector<double> flips = {};
  // Of the decode class: how far a backend that runs it in whole numbers may be besides, per result array (or
  // empty: the case is of the exact class).
  std::vector<double> whole = {};
};

// Runs the case on its own operands, and checks the guards.
std::vector<Array> evaluate(const Case&, Backend&, DType, int64_t offset = 0);
std::vector<Array> evaluate(const Case&, Backend&, DType, int64_t offset, const std::vector<Array>& inputs);

// The table, by kernel family, and all of it.
std::vector<Case> matmul_cases();
std::vector<Case> linear_cases();
std::vector<Case> attention_cases();
std::vector<Case> row_cases();
std::vector<Case> element_cases();
std::vector<Case> learning_cases();
std::vector<Case> all_cases();
// Steps of AdamW one after another, of several tensors, with states in host memory unless slab_bytes is 0.
Case paged_adam_case(size_t slab_bytes, int64_t steps);
// `plain` and a copy of each with bf16 operands.
std::vector<Case> with_bf16_operands(std::vector<Case> plain);

// Every backend that this machine can run, the reference among them, the 16-lane build over AVX2 registers,
// so that its arithmetic is tested where there is no AVX-512, and the emulated GPU. `make_test_backend` makes
// one of them.
std::vector<std::string> available_backends();
// The kernels of a GPU on the processor: much slower than the others, so that tests spare it what shows
// nothing more.
inline const std::string kEmulatedGpu = "cuda-emulated";
std::unique_ptr<Backend> make_test_backend(const std::string& name);

// ---- operands

// n values of a normal distribution times `scale`, exact in f32.
Array normals(uint64_t seed, int64_t n, double scale = 1);
std::vector<RowKey> row_keys(int64_t rows);

// A weight in any storage, with its bytes on the host.
struct TestWeight {
  Format format = Format::dense;
  int64_t out = 0, in = 0, block = 64;
  Array dense = {};  // what it stands for: decoded, or the dense elements
  std::vector<uint8_t> codes = {}, absmax_codes = {};
  std::vector<float> absmax = {}, nested_absmax = {}, code_map = {};
  float nested_offset = 0;
  bool wide = false;  // dense elements have the device's type where operands are bf16, too
  std::string name() const;
  // On the device; `elements` replace the dense elements of a dense weight when given. Where operands are
  // bf16, dense elements are stored as bf16 unless `wide`.
  WeightView view(Device&, const Array* elements = nullptr) const;
};

TestWeight make_weight(uint64_t seed, Format, bool double_quant, int64_t out, int64_t in, int64_t block = 64);
// Case::whole of x Wᵀ: operands as they are where the oracle rounds them to bf16, and the error that
// kernels/cpu/decode_rows-inl.h states, with the largest elements of w and x for those of every segment.
double error_in_whole_numbers(const TestWeight& w, const Array& x);

// Hands out the arrays of a case one after another.
class Next {
 public:
  explicit Next(const std::vector<Array>& all) : all_(all) {}
  const Array& operator()() { return all_[i_++]; }

 private:
  const std::vector<Array>& all_;
  size_t i_ = 0;
};

}  // namespace qlora::test
