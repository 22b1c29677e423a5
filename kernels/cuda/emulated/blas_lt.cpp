// cublasLt's part of the emulation: descriptors as cublasLt takes them, of which none may be used that was
// destroyed; an algorithm is good for what it was asked for, at addresses as aligned as was said, with the
// workspace that it needs. Where rows of x do not begin at whole vectors there is none.

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <set>

#include "kernels/cuda/emulated/blas_product.h"
#include "kernels/cuda/repeats.h"

namespace qlora::cuda::emulated_blas {
namespace {

constexpr uint64_t kNeeded = uint64_t{1} << 20;  // workspace

enum class Kind : uint8_t { handle, product, layout, preference };

struct Descriptor {
  Kind kind;
  std::map<int, uint64_t> attributes = {};
  int type = 0;  // of a layout
  int64_t rows = 0, columns = 0, pitch = 0;
};

// All that there are.
struct {
  std::mutex mutex;
  std::set<const void*> descriptors;
} live;

int create(void** to, Descriptor descriptor) {
  *to = new Descriptor(std::move(descriptor));
  std::lock_guard lock(live.mutex);
  live.descriptors.insert(*to);
  return 0;
}

Descriptor& known(const void* p, Kind kind) {
  std::lock_guard lock(live.mutex);
  const auto* descriptor = static_cast<const Descriptor*>(p);
  if (!live.descriptors.contains(p) || descriptor->kind != kind)
    throw emulated::Fault("cublasLt: a descriptor that is none, or was destroyed");
  return const_cast<Descriptor&>(*descriptor);
}

template <Kind kind>
int destroy(void* p) {
  const Descriptor* descriptor = &known(p, kind);
  std::lock_guard lock(live.mutex);
  live.descriptors.erase(p);
  delete descriptor;
  return 0;
}

template <Kind kind>
int set(void* p, int attribute, const void* value, size_t bytes) {
  const bool wide = kind == Kind::preference && attribute == kLtWorkspace;
  if (bytes != (wide ? sizeof(uint64_t) : sizeof(uint32_t))) return kBlasInvalid;
  uint64_t bits = 0;
  std::memcpy(&bits, value, bytes);
  known(p, kind).attributes[attribute] = bits;
  return 0;
}

uint64_t attribute_of(const Descriptor& d, int attribute) {
  const auto found = d.attributes.find(attribute);
  if (found == d.attributes.end())
    throw emulated::Fault("cublasLt: attribute " + std::to_string(attribute) + " was not said");
  return found->second;
}

int create_handle(void** to) {
  return create(to, {.kind = Kind::handle});
}
int create_product(void** to, int compute, int scale_type) {
  if (compute != kBlasSumsInF32 || scale_type != kBlasF32) return kBlasUnsupported;
  return create(to, {.kind = Kind::product});
}
int create_layout(void** to, int type, uint64_t rows, uint64_t columns, int64_t pitch) {
  return create(to, {.kind = Kind::layout,
                     .type = type,
                     .rows = static_cast<int64_t>(rows),
                     .columns = static_cast<int64_t>(columns),
                     .pitch = pitch});
}
int create_preference(void** to) {
  return create(to, {.kind = Kind::preference});
}

// The product without its numbers; or a status.
int shape(const void* product, const void* a, const void* b, const void* c, const void* d, Product& p) {
  const Descriptor &of_a = known(a, Kind::layout), &of_b = known(b, Kind::layout),
                   &of_c = known(c, Kind::layout), &of_d = known(d, Kind::layout);
  if (of_a.type != kBlasBf16 || of_b.type != kBlasBf16 || of_d.type != kBlasF32) return kBlasUnsupported;
  p.a_transposed = attribute_of(known(product, Kind::product), kLtOpA) == kBlasTransposed;
  p.b_transposed = attribute_of(known(product, Kind::product), kLtOpB) == kBlasTransposed;
  p.m = of_d.rows, p.n = of_d.columns, p.k = p.a_transposed ? of_a.rows : of_a.columns;
  p.lda = of_a.pitch, p.ldb = of_b.pitch, p.ldc = of_d.pitch;
  const bool meet = (p.a_transposed ? of_a.columns : of_a.rows) == p.m &&
                    (p.b_transposed ? of_b.rows : of_b.columns) == p.n &&
                    (p.b_transposed ? of_b.columns : of_b.rows) == p.k && of_c.rows == p.m &&
                    of_c.columns == p.n && of_c.pitch == p.ldc && of_c.type == of_d.type;
  return meet ? check(p) : kBlasInvalid;
}

uint64_t number_of(const Product& p) {
  return shape_of({p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.a_transposed, p.b_transposed});
}

// The first answer cannot be used here, the second needs more workspace than anybody has, the third is good.
int heuristic(void* handle, void* product, void* a, void* b, void* c, void* d, void* preference, int asked,
              LtAnswer* answers, int* answered) {
  known(handle, Kind::handle);
  const Descriptor& wanted = known(preference, Kind::preference);
  *answered = 0;
  Product p{};
  if (const int status = shape(product, a, b, c, d, p); status != 0) return status;
  if (std::max({p.m, p.n, p.k}) > std::numeric_limits<int32_t>::max()) return kBlasUnsupported;
  if (p.ldb % 8 != 0 || attribute_of(wanted, kLtWorkspace) < kNeeded) return kBlasUnsupported;
  LtAnswer usable{.workspace = kNeeded};
  usable.algorithm.data[0] = number_of(p);
  for (int i = 0; i < 3; ++i)
    usable.algorithm.data[1 + i] = attribute_of(wanted, kLtAlignmentA + (i == 2 ? 3 : i));
  LtAnswer unusable = usable;
  unusable.algorithm.data[0] = 0;
  unusable.state = kBlasUnsupported;
  LtAnswer too_much = usable;
  too_much.algorithm.data[0] = 0;
  too_much.workspace = SIZE_MAX;
  for (const LtAnswer& answer : {unusable, too_much, usable})
    if (*answered < asked) answers[(*answered)++] = answer;
  return 0;
}

int multiply(void* handle, void* product, const void* alpha, const void* a, void* layout_a, const void* b,
             void* layout_b, const void* beta, const void* c, void* layout_c, void* d, void* layout_d,
             const LtAlgorithm* algorithm, void* workspace, size_t bytes, void* stream) {
  known(handle, Kind::handle);
  Product p{.a = static_cast<const bf16*>(a), .b = static_cast<const bf16*>(b), .c = static_cast<float*>(d)};
  if (const int status = shape(product, layout_a, layout_b, layout_c, layout_d, p); status != 0)
    return status;
  if (c != d) return kBlasUnsupported;  // nobody asks for it
  if (algorithm->data[0] != number_of(p)) return kBlasInvalid;
  const void* const at[] = {a, b, d};
  for (size_t i = 0; i < 3; ++i)
    if (reinterpret_cast<uintptr_t>(at[i]) % algorithm->data[1 + i] != 0) return kBlasInvalid;
  if (bytes < kNeeded || reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return kBlasInvalid;
  std::memcpy(&p.alpha, alpha, sizeof(float));
  std::memcpy(&p.beta, beta, sizeof(float));
  give(p, static_cast<Stream*>(stream), workspace, bytes);
  return 0;
}

}  // namespace

LtTable lt_table() {
  return {.create = create_handle,
          .destroy = destroy<Kind::handle>,
          .create_product = create_product,
          .destroy_product = destroy<Kind::product>,
          .set_product = set<Kind::product>,
          .create_layout = create_layout,
          .destroy_layout = destroy<Kind::layout>,
          .create_preference = create_preference,
          .destroy_preference = destroy<Kind::preference>,
          .set_preference = set<Kind::preference>,
          .heuristic = heuristic,
          .multiply = multiply};
}

}  // namespace qlora::cuda::emulated_blas
