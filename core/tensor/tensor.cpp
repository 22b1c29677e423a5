#include "core/tensor/tensor.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/base/half.h"

namespace qlora {

struct Tensor::Buffer {
  Memory* memory;
  size_t bytes;
  Tag tag;
  void* data;
  std::shared_ptr<const void> owner = nullptr;  // of bytes that are not the memory's

  Buffer(Memory& m, size_t n, Tag t) : memory(&m), bytes(n), tag(t), data(m.allocate(n, t)) {}
  // Nobody writes weights, which is what such bytes are.
  Buffer(Memory& m, std::span<const std::byte> theirs, Tag t, std::shared_ptr<const void> o)
      : memory(&m),
        bytes(theirs.size()),
        tag(t),
        data(const_cast<std::byte*>(theirs.data())),
        owner(std::move(o)) {
    m.adopt(bytes, tag);
  }
  ~Buffer() { owner ? memory->disown(bytes, tag) : memory->release(data, bytes, tag); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

namespace {

int64_t elements(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) {
    QLORA_CHECK(d >= 0, failure, "tensor: a shape cannot be negative: {}", to_string(shape));
    n *= d;
  }
  return n;
}

template <class To, class From>
std::vector<To> convert(std::span<const From> from) {
  std::vector<To> to(from.size());
  std::transform(from.begin(), from.end(), to.begin(), [](From v) { return static_cast<To>(v); });
  return to;
}

}  // namespace

std::string to_string(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Tensor::Tensor(Memory& memory, Shape shape, DType type, Tag tag) : shape_(std::move(shape)), type_(type) {
  buffer_ = std::make_shared<Buffer>(memory, static_cast<size_t>(elements(shape_)) * size_of(type), tag);
}

Tensor Tensor::zeros(Memory& memory, Shape shape, DType type, Tag tag) {
  Tensor t(memory, std::move(shape), type, tag);
  t.fill_zero();
  return t;
}

Tensor Tensor::from_host(Memory& memory, Shape shape, DType type, std::span<const std::byte> bytes, Tag tag) {
  Tensor t(memory, std::move(shape), type, tag);
  QLORA_CHECK(bytes.size() == t.bytes(), failure, "tensor: {} {} elements take {} bytes, given {}",
              to_string(t.shape_), name_of(type), t.bytes(), bytes.size());
  if (!bytes.empty()) t.backend().copy(t.data(), bytes.data(), bytes.size(), CopyKind::host_to_device);
  return t;
}

Tensor Tensor::over(Memory& memory, Shape shape, DType type, std::span<const std::byte> bytes,
                    std::shared_ptr<const void> owner, Tag tag) {
  if (!memory.backend().host_memory()) return from_host(memory, std::move(shape), type, bytes, tag);
  QLORA_CHECK(owner != nullptr && reinterpret_cast<uintptr_t>(bytes.data()) % 256 == 0 &&
                  bytes.size() == static_cast<size_t>(elements(shape)) * size_of(type),
              failure, "tensor: {} bytes at {} are no {} {}", bytes.size(),
              static_cast<const void*>(bytes.data()), name_of(type), to_string(shape));
  Tensor t;
  t.shape_ = std::move(shape);
  t.type_ = type;
  t.buffer_ = std::make_shared<Buffer>(memory, bytes, tag, std::move(owner));
  return t;
}

Tensor Tensor::from_floats(Memory& memory, Shape shape, DType type, std::span<const float> values, Tag tag) {
  Tensor t(memory, std::move(shape), type, tag);
  QLORA_CHECK(static_cast<size_t>(t.size()) == values.size(), failure, "tensor: {} has {} elements, given {}",
              to_string(t.shape_), t.size(), values.size());
  t.write_floats(0, values);
  return t;
}

void Tensor::write_floats(int64_t begin, std::span<const float> values) const {
  auto copy_in = [&](const void* host) {
    const size_t width = size_of(type_);
    if (values.empty()) return;
    backend().copy(as<std::byte>() + static_cast<size_t>(begin) * width, host, values.size() * width,
                   CopyKind::host_to_device);
  };
  if (type_ == DType::f32) return copy_in(values.data());
  if (type_ == DType::bf16) {
    std::vector<bf16> narrow(values.size());
    std::transform(values.begin(), values.end(), narrow.begin(), to_bf16);
    return copy_in(narrow.data());
  }
  QLORA_CHECK(type_ == DType::f64, failure, "tensor: floats become f32, f64 or bf16 elements, not {}",
              name_of(type_));
  copy_in(convert<double>(values).data());
}

int64_t Tensor::size() const {
  return buffer_ == nullptr ? 0 : elements(shape_);
}

int64_t Tensor::cols() const {
  int64_t n = 1;
  for (size_t i = 1; i < shape_.size(); ++i) n *= shape_[i];
  return n;
}

Memory& Tensor::memory() const {
  QLORA_CHECK(buffer_ != nullptr, failure, "tensor: an empty tensor has no memory");
  return *buffer_->memory;
}

void* Tensor::data() const {
  return buffer_ == nullptr ? nullptr : static_cast<std::byte*>(buffer_->data) + offset_;
}

bool Tensor::shared() const {
  return buffer_.use_count() > 1;
}

Tensor Tensor::slice_rows(int64_t lo, int64_t hi) const {
  QLORA_CHECK(!shape_.empty() && 0 <= lo && lo <= hi && hi <= rows(), failure,
              "tensor: no rows [{}, {}) in {}", lo, hi, to_string(shape_));
  Tensor view = *this;
  view.offset_ += static_cast<size_t>(lo * cols()) * size_of(type_);
  view.shape_[0] = hi - lo;
  return view;
}

Tensor Tensor::reshape(Shape shape) const {
  QLORA_CHECK(elements(shape) == size(), failure, "tensor: {} cannot be seen as {}", to_string(shape_),
              to_string(shape));
  Tensor view = *this;
  view.shape_ = std::move(shape);
  return view;
}

void Tensor::fill_zero() const {
  if (bytes() > 0) backend().fill(data(), bytes(), 0);
}

void Tensor::copy_from(const Tensor& from) const {
  QLORA_CHECK(from.size() == size() && from.type_ == type_, failure, "tensor: cannot copy {} {} to {} {}",
              name_of(from.type_), to_string(from.shape_), name_of(type_), to_string(shape_));
  if (bytes() > 0) backend().copy(data(), from.data(), bytes(), CopyKind::device_to_device);
}

void Tensor::to_host(std::span<std::byte> out) const {
  QLORA_CHECK(out.size() == bytes(), failure, "tensor: {} {} elements take {} bytes, room for {}",
              to_string(shape_), name_of(type_), bytes(), out.size());
  if (out.empty()) return;
  backend().copy(out.data(), data(), out.size(), CopyKind::device_to_host);
  backend().synchronize();
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  QLORA_CHECK(type_ == DType::f32 || type_ == DType::f64 || type_ == DType::bf16, failure,
              "tensor: {} elements are no floats", name_of(type_));
  auto n = static_cast<size_t>(size());
  if (type_ == DType::bf16) {
    std::vector<bf16> host(n);
    to_host(std::as_writable_bytes(std::span(host)));
    std::vector<T> wide(n);
    std::transform(host.begin(), host.end(), wide.begin(),
                   [](bf16 v) { return static_cast<T>(to_float(v)); });
    return wide;
  }
  if (type_ == DType::f32) {
    std::vector<float> host(n);
    to_host(std::as_writable_bytes(std::span(host)));
    return convert<T>(std::span<const float>(host));
  }
  std::vector<double> host(n);
  to_host(std::as_writable_bytes(std::span(host)));
  return convert<T>(std::span<const double>(host));
}

std::vector<float> Tensor::to_floats() const {
  return to_vector<float>();
}
std::vector<double> Tensor::to_doubles() const {
  return to_vector<double>();
}

}  // namespace qlora
