#include "kernels/cuda/graph.h"

#include <cstring>
#include <utility>

#include "kernels/cuda/check.h"

namespace qlora::cuda {
namespace {

constexpr size_t kAlignment = 16;

cudaMemcpyKind kind_of(WorkKind kind) {
  return kind == WorkKind::upload ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice;
}

}  // namespace

void HeldWork::add(const KernelCall& call) {
  Work work{.piece = call.piece(),
            .grid = call.grid,
            .block = call.block,
            .shared = call.shared,
            .first = places_.size(),
            .count = call.count,
            .begin = bytes_.size()};
  for (size_t i = 0; i < call.count; ++i) {
    const size_t place = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(place + call.sizes[i]);
    std::memcpy(bytes_.data() + place, call.arguments[i], call.sizes[i]);
    places_.push_back(place);
  }
  work.end = bytes_.size();
  works_.push_back(std::move(work));
}

void HeldWork::add_copy(WorkPiece piece, void* to, const void* from, size_t bytes) {
  works_.push_back({.piece = piece, .to = to, .from = from, .bytes = bytes});
}

void HeldWork::add_fill(WorkPiece piece, void* to, size_t bytes, uint8_t value) {
  works_.push_back({.piece = piece, .to = to, .bytes = bytes, .value = value});
}

void HeldWork::add_call(WorkPiece piece, std::span<const int64_t> numbers, std::function<void()> call) {
  Work work{.piece = piece, .begin = bytes_.size(), .call = std::move(call)};
  const auto bytes = std::as_bytes(numbers);
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  work.end = bytes_.size();
  works_.push_back(std::move(work));
}

void HeldWork::clear() {
  works_.clear();
  places_.clear();
  bytes_.clear();
}

std::vector<void*> HeldWork::arguments_of(const Work& work) const {
  std::vector<void*> all;
  for (size_t i = work.first; i < work.first + work.count; ++i)
    all.push_back(const_cast<std::byte*>(bytes_.data() + places_[i]));
  return all;
}

void HeldWork::issue(cudaStream_t stream) const {
  for (const Work& work : works_) {
    switch (work.piece.kind) {
      case WorkKind::kernel:
        check(cudaLaunchKernel(work.piece.kernel, work.grid, work.block, arguments_of(work).data(),
                               work.shared, stream),
              "launching a kernel");
        break;
      case WorkKind::fill:
        check(cudaMemsetAsync(work.to, work.value, work.bytes, stream), "filling memory");
        break;
      case WorkKind::library:
        work.call();
        break;
      default:
        check(cudaMemcpyAsync(work.to, work.from, work.bytes, kind_of(work.piece.kind), stream),
              "copying on the device");
    }
  }
}

bool HeldWork::same(size_t i, const HeldWork& other) const {
  const Work &a = works_[i], &b = other.works_[i];
  const auto equal = [](const dim3& x, const dim3& y) { return x.x == y.x && x.y == y.y && x.z == y.z; };
  if (a.piece.kind != WorkKind::kernel && a.piece.kind != WorkKind::library)
    return a.to == b.to && a.from == b.from && a.bytes == b.bytes && a.value == b.value;
  return equal(a.grid, b.grid) && equal(a.block, b.block) && a.shared == b.shared &&
         a.end - a.begin == b.end - b.begin &&
         std::memcmp(bytes_.data() + a.begin, other.bytes_.data() + b.begin, a.end - a.begin) == 0;
}

Graph::~Graph() {
  drop();
}

void Graph::drop() {
  if (ready_ != nullptr) cudaGraphExecDestroy(ready_);
  if (graph_ != nullptr) cudaGraphDestroy(graph_);
  ready_ = nullptr;
  graph_ = nullptr;
  nodes_.clear();
}

namespace {

cudaKernelNodeParams kernel_parameters(const void* kernel, dim3 grid, dim3 block, size_t shared,
                                       void** arguments) {
  cudaKernelNodeParams p{};
  p.func = const_cast<void*>(kernel);
  p.gridDim = grid;
  p.blockDim = block;
  p.sharedMemBytes = static_cast<unsigned>(shared);
  p.kernelParams = arguments;
  return p;
}

cudaMemsetParams fill_parameters(void* to, size_t bytes, uint8_t value) {
  cudaMemsetParams p{};
  p.dst = to;
  p.value = value;
  p.elementSize = 1;
  p.width = bytes;
  p.height = 1;
  return p;
}

// What a call gives to the stream, as a graph of its own.
struct Captured {
  cudaGraph_t graph = nullptr;

  Captured(const std::function<void()>& call, cudaStream_t stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing work of a library");
    try {
      call();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      cudaGetLastError();
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "capturing work of a library");
  }
  ~Captured() { cudaGraphDestroy(graph); }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
};

}  // namespace

void Graph::build(const HeldWork& work, cudaStream_t stream) {
  drop();
  check(cudaGraphCreate(&graph_, 0), "no graph");
  for (const HeldWork::Work& w : work.works_) {
    const cudaGraphNode_t* before = nodes_.empty() ? nullptr : &nodes_.back();
    const size_t count = nodes_.empty() ? 0 : 1;
    cudaGraphNode_t node = nullptr;
    switch (w.piece.kind) {
      case WorkKind::kernel: {
        std::vector<void*> arguments = work.arguments_of(w);
        const cudaKernelNodeParams p =
            kernel_parameters(w.piece.kernel, w.grid, w.block, w.shared, arguments.data());
        check(cudaGraphAddKernelNode(&node, graph_, before, count, &p), "a kernel in a graph");
        break;
      }
      case WorkKind::fill: {
        const cudaMemsetParams p = fill_parameters(w.to, w.bytes, w.value);
        check(cudaGraphAddMemsetNode(&node, graph_, before, count, &p), "filling memory in a graph");
        break;
      }
      case WorkKind::library: {
        const Captured child(w.call, stream);
        check(cudaGraphAddChildGraphNode(&node, graph_, before, count, child.graph),
              "work of a library in a graph");
        break;
      }
      default:
        check(cudaGraphAddMemcpyNode1D(&node, graph_, before, count, w.to, w.from, w.bytes,
                                       kind_of(w.piece.kind)),
              "a copy in a graph");
    }
    nodes_.push_back(node);
  }
  check(cudaGraphInstantiate(&ready_, graph_, 0), "making a graph ready");
}

// The same pieces in the same order: a graph of them can be changed.
bool Graph::fits(const HeldWork& work) const {
  if (ready_ == nullptr || work.works_.size() != before_.works_.size()) return false;
  for (size_t i = 0; i < work.works_.size(); ++i)
    if (!(work.works_[i].piece == before_.works_[i].piece)) return false;
  return true;
}

// False where CUDA cannot change a node so.
bool Graph::update(const HeldWork& work, cudaStream_t stream) {
  for (size_t i = 0; i < work.works_.size(); ++i) {
    if (work.same(i, before_)) continue;
    const HeldWork::Work& w = work.works_[i];
    cudaError_t status = cudaSuccess;
    if (w.piece.kind == WorkKind::kernel) {
      std::vector<void*> arguments = work.arguments_of(w);
      const cudaKernelNodeParams p =
          kernel_parameters(w.piece.kernel, w.grid, w.block, w.shared, arguments.data());
      status = cudaGraphExecKernelNodeSetParams(ready_, nodes_[i], &p);
    } else if (w.piece.kind == WorkKind::fill) {
      const cudaMemsetParams p = fill_parameters(w.to, w.bytes, w.value);
      status = cudaGraphExecMemsetNodeSetParams(ready_, nodes_[i], &p);
    } else if (w.piece.kind == WorkKind::library) {
      const Captured child(w.call, stream);
      status = cudaGraphExecChildGraphNodeSetParams(ready_, nodes_[i], child.graph);
    } else {
      status =
          cudaGraphExecMemcpyNodeSetParams1D(ready_, nodes_[i], w.to, w.from, w.bytes, kind_of(w.piece.kind));
    }
    if (status != cudaSuccess) {
      cudaGetLastError();
      return false;
    }
  }
  return true;
}

void Graph::launch(HeldWork& work, cudaStream_t stream) {
  try {
    if (!fits(work) || !update(work, stream)) build(work, stream);
    check(cudaGraphLaunch(ready_, stream), "launching a graph");
  } catch (...) {
    drop();  // some nodes may be changed, others not
    throw;
  }
  std::swap(before_, work);
}

}  // namespace qlora::cuda
