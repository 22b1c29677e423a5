#pragma once
// Work that a stream holds back (repeats.h), and a graph of CUDA's that does all of it at once. CUDA only.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/cuda/repeats.h"

namespace qlora::cuda {

// A call of a kernel: its arguments one by one.
struct KernelCall {
  WorkPiece piece() const {
    return {WorkKind::kernel, kernel,
            shape_of({grid.x, grid.y, grid.z, block.x, block.y, block.z, static_cast<int64_t>(shared)})};
  }
  const void* kernel = nullptr;
  dim3 grid = {}, block = {};
  size_t shared = 0;
  size_t count = 0;  // of arguments
  const void* const* arguments = nullptr;
  const size_t* sizes = nullptr;
};

class HeldWork {
 public:
  void add(const KernelCall&);  // copies its arguments
  void add_copy(WorkPiece, void* to, const void* from, size_t bytes);
  void add_fill(WorkPiece, void* to, size_t bytes, uint8_t value);
  // Work of a library's, which `call` gives to the stream; with equal numbers it is the same.
  void add_call(WorkPiece, std::span<const int64_t> numbers, std::function<void()> call);
  void issue(cudaStream_t) const;  // piece by piece
  void clear();

 private:
  friend class Graph;
  struct Work {
    WorkPiece piece = {};
    dim3 grid = {}, block = {};
    size_t shared = 0;
    size_t first = 0, count = 0;  // arguments, of places_
    size_t begin = 0, end = 0;    // the same, of bytes_
    void* to = nullptr;
    const void* from = nullptr;
    size_t bytes = 0;
    uint8_t value = 0;
    std::function<void()> call = {};
  };
  std::vector<void*> arguments_of(const Work&) const;
  bool same(size_t i, const HeldWork& other) const;

  std::vector<Work> works_;
  std::vector<size_t> places_;
  std::vector<std::byte> bytes_;
};

// One chain of nodes, a library's work being a graph of its own in it, as a stream captures it. What changes
// from one time to the next (addresses, numbers) is changed in it.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  // Does the work, and takes it: `work` is undefined then. Where it throws nothing is done, nor taken.
  void launch(HeldWork& work, cudaStream_t);

 private:
  bool fits(const HeldWork&) const;
  bool update(const HeldWork&, cudaStream_t);
  void build(const HeldWork&, cudaStream_t);
  void drop();

  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t ready_ = nullptr;
  std::vector<cudaGraphNode_t> nodes_;
  HeldWork before_;  // what the nodes do
};

}  // namespace qlora::cuda
