#pragma once
// Work that comes again. What is asked of a stream between two waits of the host is a section. One that came
// twice is expected again after the one that it followed: its pieces are held back as they come, as long as
// each is what came at its place, and when the host waits all of them go to the device at once (for CUDA a
// graph, graph.h). Kinds of pieces, kernels and sizes count; addresses and numbers may differ. So the token
// steps of a batch are held back, and training steps of one shape, but nothing of steps whose shapes change.
//
// A graph spares the device the gaps between launches, and costs the host that it no longer runs ahead. That
// is worth it where launches, and not the work, take the time: in small models.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace qlora::cuda {

enum class WorkKind : uint8_t {
  kernel,
  upload,  // from the host's staging room
  copy,    // on the device
  fill,
  library,
  other,  // what no section that is held back may have: events, pages
};

struct WorkPiece {
  WorkKind kind = WorkKind::other;
  const void* kernel = nullptr;  // or function of a library
  uint64_t shape = 0;            // shape_of() its sizes
  bool operator==(const WorkPiece&) const = default;
};

// One number for all; others have, but for chance, another one.
uint64_t shape_of(std::span<const int64_t> sizes);
inline uint64_t shape_of(std::initializer_list<int64_t> sizes) {
  return shape_of(std::span(sizes.begin(), sizes.size()));
}

enum class Graphs : uint8_t {
  never,
  always,        // whatever comes again
  where_faster,  // where launches seem to take the time, and as long as graphs take less than what they hold
};

// QLORA_CUDA_GRAPHS: on (always) or off (never); none where it is not set. Throws Error(usage).
std::optional<Graphs> graphs_asked();

double seconds_now();

class Repeats {
 public:
  static constexpr int kNone = -1, kSections = 8;
  static constexpr size_t kFewest = 16, kMost = size_t{1} << 15;  // pieces of a section that is worth it
  // where_faster: seconds a piece up to which it may be launches that take the time (2 to 3 us each), and how
  // often a section is tried as a graph before its times are compared.
  static constexpr double kBoundByLaunches = 8e-6;
  static constexpr int kTries = 3;

  explicit Repeats(Graphs graphs, double (*seconds)() = seconds_now) : graphs_(graphs), seconds_(seconds) {}

  // The next piece of the section. True: hold it back. False after true: what was held back must go first.
  bool next(WorkPiece);
  // The host waits: the section that is held back whole, in [0, kSections), or kNone: what is held back must
  // go piece by piece.
  int end();
  // The host has waited.
  void done();
  // From now on nothing is held back.
  void stop() { graphs_ = Graphs::never; }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  struct Section {
    std::vector<WorkPiece> pieces = {};
    int seen = 0, held = 0;
    int following = kNone;                    // what came after it
    double plain = kNever, at_once = kNever;  // seconds, the least of all times
  };
  bool comes_again(int section) const;
  bool is_faster(const Section&) const;
  int place_of_now();

  Graphs graphs_;
  double (*seconds_)();
  std::vector<Section> sections_ = {};
  std::vector<WorkPiece> now_ = {};
  double began_ = 0;
  bool some_held_ = false;  // of now_
  // What the host waits for: its section, and how it went.
  int awaited_ = kNone;
  bool at_once_ = false;
  int expected_ = kNone, last_ = kNone, oldest_ = 0;
};

}  // namespace qlora::cuda
