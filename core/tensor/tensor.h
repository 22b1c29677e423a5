#pragma once
// A contiguous row-major array in a Memory. Copying the handle shares the bytes; the last handle frees them.
// No strides.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/tensor/memory.h"

namespace qlora {

using Shape = std::vector<int64_t>;
std::string to_string(const Shape&);  // "[3, 64]"

class Tensor {
 public:
  Tensor() = default;                                     // empty: false
  Tensor(Memory&, Shape, DType, Tag = Tag::activations);  // uninitialised
  static Tensor zeros(Memory&, Shape, DType, Tag = Tag::activations);
  // Copies host bytes. REQUIRES: bytes.size() == size() * size_of(type).
  static Tensor from_host(Memory&, Shape, DType, std::span<const std::byte>, Tag = Tag::activations);
  // Converts host floats to f32, f64 or bf16 elements.
  static Tensor from_floats(Memory&, Shape, DType, std::span<const float>, Tag = Tag::activations);

  // Bytes that somebody else keeps (a mapped file), read-only and 256-byte aligned, which live as long as
  // `owner`. Used where they lie if the backend reads host memory, copied otherwise. REQUIRES: as above.
  static Tensor over(Memory&, Shape, DType, std::span<const std::byte>, std::shared_ptr<const void> owner,
                     Tag = Tag::weights);

  explicit operator bool() const { return buffer_ != nullptr; }
  // Whether another handle shares the bytes.
  bool shared() const;
  const Shape& shape() const { return shape_; }
  int64_t rows() const { return shape_.empty() ? 1 : shape_[0]; }
  int64_t cols() const;  // elements of a row
  int64_t size() const;
  DType type() const { return type_; }
  size_t bytes() const { return static_cast<size_t>(size()) * size_of(type_); }
  Memory& memory() const;
  Backend& backend() const { return memory().backend(); }
  void* data() const;
  template <class T>
  T* as() const {
    return static_cast<T*>(data());
  }

  Tensor slice_rows(int64_t lo, int64_t hi) const;  // a view
  Tensor reshape(Shape) const;                      // a view
  void fill_zero() const;
  void copy_from(const Tensor&) const;  // same size and type, same backend
  // Converts host floats to its elements from `begin` on, which are f32, f64 or bf16. REQUIRES: room for
  // them.
  void write_floats(int64_t begin, std::span<const float>) const;

  // Copies to the host (synchronises).
  void to_host(std::span<std::byte> out) const;
  std::vector<float> to_floats() const;    // f32, f64 or bf16 elements
  std::vector<double> to_doubles() const;  // likewise

 private:
  struct Buffer;
  template <class T>
  std::vector<T> to_vector() const;

  std::shared_ptr<Buffer> buffer_;
  size_t offset_ = 0;
  Shape shape_;
  DType type_ = DType::f32;
};

}  // namespace qlora
