#include "core/tensor/arena.h"

#include <algorithm>
#include <iterator>

#include "core/base/error.h"

namespace qlora {

namespace {

constexpr size_t kUnit = 256;
constexpr size_t kPage = size_t{2} << 20;    // a huge page
constexpr size_t kLeast = size_t{16} << 20;  // of a slab; costs addresses, not memory, until it is touched

constexpr size_t kMost = ~size_t{0} / 4;

size_t round_up(size_t bytes, size_t unit) {
  return std::max(unit, (bytes + unit - 1) / unit * unit);
}

}  // namespace

void* Arena::allocate(size_t bytes) {
  if (bytes > kMost) return obtain(bytes);  // says that there is no so much
  bytes = round_up(bytes, kUnit);
  // The smallest region that fits; of equal ones the first, so that addresses stay low.
  Slab* slab = nullptr;
  std::map<size_t, size_t>::iterator best;
  for (Slab& s : slabs_)
    for (auto it = s.free.begin(); it != s.free.end(); ++it)
      if (it->second >= bytes && (slab == nullptr || it->second < best->second)) {
        slab = &s;
        best = it;
      }
  if (slab != nullptr) return take(*slab, best, bytes);
  add_slab(bytes);
  return take(slabs_.back(), slabs_.back().free.begin(), bytes);
}

void* Arena::take(Slab& slab, std::map<size_t, size_t>::iterator region, size_t bytes) {
  const auto [offset, size] = *region;
  slab.free.erase(region);
  if (size > bytes) slab.free.emplace(offset + bytes, size - bytes);
  slab.used += bytes;
  slab.extent = std::max(slab.extent, offset + bytes);
  return slab.base + offset;
}

void* Arena::obtain(size_t bytes) {
  return side_ == Side::host ? backend_->allocate_host(bytes) : backend_->allocate(bytes);
}

void Arena::add_slab(size_t bytes) {
  size_t held = 0;
  for (const Slab& s : slabs_) held += s.size;
  const size_t wanted = taken_by(std::max(bytes, held / 4));
  slabs_.reserve(slabs_.size() + 1);  // so that nothing can fail once there is memory
  Slab slab;
  try {
    slab.size = wanted;
    slab.base = static_cast<std::byte*>(obtain(wanted));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::memory) throw;
    trim();
    slab.size = round_up(bytes, kUnit);
    slab.base = static_cast<std::byte*>(obtain(slab.size));
  }
  slab.free.emplace(0, slab.size);
  slabs_.push_back(std::move(slab));
}

void Arena::release(void* p, size_t bytes) noexcept {
  bytes = round_up(bytes, kUnit);
  auto* at = static_cast<std::byte*>(p);
  auto slab = std::find_if(slabs_.begin(), slabs_.end(),
                           [at](const Slab& s) { return at >= s.base && at < s.base + s.size; });
  slab->used -= bytes;
  auto offset = static_cast<size_t>(at - slab->base);
  auto next = slab->free.lower_bound(offset);
  if (next != slab->free.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      slab->free.erase(before);
    }
  }
  if (next != slab->free.end() && offset + bytes == next->first) {
    bytes += next->second;
    slab->free.erase(next);
  }
  try {
    slab->free.emplace(offset, bytes);
  } catch (...) {  // no memory to remember it: it comes back with its slab
  }
  merge_if_empty();
}

// What grew in pieces becomes one piece as soon as nothing is in use.
void Arena::merge_if_empty() {
  if (slabs_.size() < 2) return;
  if (std::any_of(slabs_.begin(), slabs_.end(), [](const Slab& s) { return s.used > 0; })) return;
  const size_t all = extent();
  trim();
  try {
    add_slab(all);
  } catch (...) {  // asked for again, and said, when it is needed
  }
}

void Arena::reserve(size_t bytes) {
  for (const Slab& s : slabs_)
    if (s.used > 0 || s.size >= bytes) return;
  trim();
  add_slab(bytes);
}

size_t Arena::taken_by(size_t reserved) {
  return round_up(std::max(reserved, kLeast), kPage);
}

void Arena::trim() noexcept {
  std::erase_if(slabs_, [this](Slab& s) {
    if (s.used > 0) return false;
    side_ == Side::host ? backend_->release_host(s.base, s.size) : backend_->release(s.base, s.size);
    return true;
  });
}

size_t Arena::extent() const {
  size_t sum = 0;
  for (const Slab& s : slabs_) sum += s.extent;
  return sum;
}

void Arena::reset_extent() {
  for (Slab& s : slabs_) {
    s.extent = s.size;
    if (s.free.empty()) continue;
    auto last = std::prev(s.free.end());
    if (last->first + last->second == s.size) s.extent = last->first;
  }
}

}  // namespace qlora
