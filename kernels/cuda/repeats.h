#pragma once
// Work that comes again. What is asked of a stream between two waits of the host is a section. One that came
// twice is expected again after the one that it followed: its pieces are held back as they come, as long as
// each is what came at its place, and when the host waits all of them go to the device at once (for CUDA a
// graph, graph.h). Only the kinds of pieces and the kernels count; sizes, addresses and numbers may differ.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qlora::cuda {

enum class WorkKind : uint8_t {
  kernel,
  upload,  // from the host's staging room
  copy,    // on the device
  fill,
  other,  // what no section that is held back may have: events, pages, work of libraries
};

struct WorkPiece {
  WorkKind kind = WorkKind::other;
  const void* kernel = nullptr;
  bool operator==(const WorkPiece&) const = default;
};

class Repeats {
 public:
  static constexpr int kNone = -1, kSections = 8;
  static constexpr size_t kFewest = 16, kMost = size_t{1} << 15;  // pieces of a section that is worth it

  // Off: nothing is ever held back.
  explicit Repeats(bool on) : on_(on) {}

  // The next piece of the section. True: hold it back. False after true: what was held back must go first.
  bool next(WorkPiece);
  // The host waits: the section that is held back whole, in [0, kSections), or kNone: what is held back must
  // go piece by piece.
  int end();

 private:
  struct Section {
    std::vector<WorkPiece> pieces = {};
    int seen = 0;
    int following = kNone;  // what came after it
  };
  bool comes_again(int section) const;
  int place_of_now();

  bool on_;
  std::vector<Section> sections_ = {};
  std::vector<WorkPiece> now_ = {};
  int expected_ = kNone, last_ = kNone, oldest_ = 0;
};

// QLORA_CUDA_GRAPHS=on. Off until a GPU has shown what they bring.
bool graphs_are_on();

}  // namespace qlora::cuda
