#include "experiments/place.h"

#include <cstdlib>

#include "core/base/check.h"
#include "kernels/devices.h"

namespace qlora {
namespace {

constexpr const char *kOfMachine = "80%", *kOfGpu = "95%";

// What `auto` is replaced by before anything is looked for.
std::string as_named(const std::string& backend) {
  const char* chosen = std::getenv("QLORA_BACKEND");
  return backend != "auto" || chosen == nullptr || *chosen == '\0' ? backend : chosen;
}

bool nobody_named(const std::string& backend) {
  return as_named(backend) == "auto";
}

std::string note_on(const std::string& backend) {
  const GpuReport& gpus = gpu_report();
  if (!gpus.usable()) return fmt::format("computes on the processor ({}): {}", backend, gpus.trouble);
  return fmt::format("computes on the processor ({}); the GPU ({}) is used when it is named: --backend cuda",
                     backend, gpus.gpus.at(0).name);
}

}  // namespace

bool names_gpu(const std::string& backend) {
  return as_named(backend).starts_with("cuda");
}

Place place_of(const std::string& backend, const std::string& memory) {
  Place place;
  place.backend = backend_named(backend);
  if (place.backend == "cuda") {
    const GpuMemory gpu = measure_gpu();
    place.device = planned_gpu(place.backend, gpu.context,
                               gpu.others ? ContextFigure::with_others : ContextFigure::measured);
    place.budget = parse_memory(memory.empty() ? kOfGpu : memory, gpu.available);
  } else if (place.backend == "cuda-emulated") {
    QLORA_CHECK(!memory.empty() && memory.back() != '%', usage,
                "the emulated GPU has no memory of its own: say how much it should have, --memory 2G");
    place.device = planned_gpu(place.backend, 0, ContextFigure::none);
    place.budget = parse_memory(memory);
  } else {
    place.budget = parse_memory(memory.empty() ? kOfMachine : memory);
  }
  if (nobody_named(backend)) place.note = note_on(place.backend);
  return place;
}

PlannedDevice planned_gpu(const std::string& backend, size_t context, ContextFigure figure) {
  return {CountedKernels::cuda, context, figure, has_blas(backend), kept_bytes_asked(), available_memory()};
}

std::string describe_products(const MemoryPlan& m) {
  if (!m.device.blas) return "by our own tiles, slower: without cuBLAS";
  if (!m.options.blas) return "by our own tiles, slower: what cuBLAS needs does not fit";
  if (m.options.kept_bytes == 0) return "through cuBLAS";
  return fmt::format("through cuBLAS; a block's decoded weights stay, {}",
                     format_bytes(m.options.kept_bytes));
}

std::string describe_context(const PlannedDevice& device) {
  switch (device.figure) {
    case ContextFigure::measured:
      return "measured";
    case ContextFigure::with_others:
      return "measured, with what other programs have there";
    case ContextFigure::none:
      return "the emulated GPU has none";
    case ContextFigure::given:
      return "as given";
    default:
      return "assumed; --context says another";
  }
}

std::vector<std::string> describe_memory(const Place& place, const MemoryPlan& m) {
  if (m.device.kernels != CountedKernels::cuda) return {};
  std::string parts =
      fmt::format("base {}, adapters with gradients and optimizer {}, activations {}, kernels {}",
                  format_bytes(m.parts.quantized + m.parts.dense),
                  format_bytes(m.parts.adapters + m.parts.gradients + m.parts.optimizer),
                  format_bytes(m.passing), format_bytes(m.scratch));
  if (m.slabs > 0) parts += fmt::format(", slabs of paged states {}", format_bytes(m.slabs));
  std::vector<std::string> lines = {
      fmt::format("memory of the GPU: {} planned of {}: {}", format_bytes(m.bytes()),
                  format_bytes(place.budget), parts),
      fmt::format("CUDA context: {}, {}", format_bytes(m.device.context), describe_context(m.device)),
      "products of many rows: " + describe_products(m)};
  std::vector<std::string> pinned;
  if (m.paged > 0) pinned.push_back(format_bytes(m.paged) + " of optimizer states");
  if (m.offloaded > 0) pinned.push_back(format_bytes(m.offloaded) + " of inputs of blocks");
  if (!pinned.empty())
    lines.push_back(fmt::format("memory of the host, pinned: {}", fmt::join(pinned, ", ")));
  return lines;
}

}  // namespace qlora
