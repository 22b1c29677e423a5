#include "kernels/cuda/device.h"

#include <algorithm>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/kept.h"
#include "kernels/cuda/uploads.h"

namespace qlora::cuda {

Scratch::~Scratch() {
  release_device(block_);
}

void* Scratch::bytes(size_t n) {
  if (n > size_) {
    release_device(block_);
    block_ = nullptr;
    size_ = 0;
    block_ = allocate_device(n);
    size_ = n;
  }
  return block_;
}

void Uploads::begin() {
  if (blocks_.size() > 1) blocks_.erase(blocks_.begin(), blocks_.end() - 1);
  used_ = 0;
}

void* Uploads::take(size_t bytes) {
  bytes = (bytes + kUploadAlignment - 1) / kUploadAlignment * kUploadAlignment;
  if (used_ + bytes > room_) {
    room_ = std::max({kFirstUploads, 2 * room_, bytes});
    blocks_.push_back(std::make_unique<Scratch>());
    blocks_.back()->bytes(room_);
    used_ = 0;
  }
  void* p = static_cast<std::byte*>(blocks_.back()->bytes(room_)) + used_;
  used_ += bytes;
  return p;
}

Blas* Device::blas() {
  if (options.blas && !blas_looked_for) {
    const FoundBlas found = find_blas();
    if (found.usable) blas_made = std::make_shared<Blas>(found, stream);
    blas_looked_for = true;
  }
  return blas_made.get();
}

Kept& Device::kept() {
  if (kept_weights == nullptr) kept_weights = std::make_shared<Kept>(options.kept_bytes);
  return *kept_weights;
}

}  // namespace qlora::cuda
