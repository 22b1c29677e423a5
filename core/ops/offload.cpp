#include "core/ops/offload.h"

#include "core/base/check.h"

namespace qlora {

// A copy on its way writes to memory that others are given next.
Offload::~Offload() {
  if (!coming_) return;
  try {
    memory_->backend().await_copies();
  } catch (const Error&) {  // told by whatever waits next
  }
}

size_t Offload::put(const Tensor& x) {
  QLORA_CHECK(!coming_, failure, "offload: backward has begun");
  away_.push_back({HostArray(*memory_, x.bytes(), Tag::activations), x.shape(), x.type()});
  memory_->backend().copy_beside(away_.back().bytes.data(), x.data(), x.bytes(), CopyKind::device_to_host);
  return away_.size() - 1;
}

void Offload::settle() {
  memory_->backend().await_copies();
}

void Offload::drop(size_t place) {
  if (coming_ && place < away_.size()) {
    settle();
    coming_ = Tensor();
  }
  while (away_.size() > place) away_.pop_back();
}

void Offload::begin_to_load(size_t place) {
  const Away& a = away_[place];
  coming_ = Tensor(*memory_, a.shape, a.type);
  memory_->backend().copy_beside(coming_.data(), a.bytes.data(), coming_.bytes(), CopyKind::host_to_device);
}

Tensor Offload::take(size_t place) {
  QLORA_CHECK(place < away_.size(), failure, "offload: place {} of {}", place, away_.size());
  drop(place + 1);
  if (!coming_) begin_to_load(place);
  settle();
  Tensor x = std::move(coming_);
  coming_ = Tensor();
  away_.pop_back();
  if (place > 0) begin_to_load(place - 1);
  return x;
}

std::shared_ptr<Offload> make_offload(const Context& c) {
  const bool away =
      c.tape != nullptr && c.checkpointing == Checkpointing::offload && !c.backend.host_memory();
  return away ? std::make_shared<Offload>(c.memory) : nullptr;
}

}  // namespace qlora
