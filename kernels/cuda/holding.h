#pragma once
// What a stream holds back (repeats.h) and when it goes: one text for CUDA and for the emulation. A Queue is
// the device's side of it:
//   using Work = ..                  pieces in order; clear() leaves none
//   void issue(const Work&)          gives them to the device piece by piece
//   bool whole(int section, Work&)   all at once; a section, in [0, Repeats::kSections), has the same
//                                    pieces every time, until another takes its number. False: piece by
//                                    piece, as this device makes no graphs, and nothing is held back again
// Where either throws, what was held back counts as gone: no piece comes twice.

#include "kernels/cuda/repeats.h"
#include "kernels/cuda/use.h"

namespace qlora::cuda {

template <class Queue>
class Holding {
 public:
  using Work = typename Queue::Work;

  // The queue must outlive it.
  Holding(Queue& queue, Graphs graphs) : queue_(queue), repeats_(graphs) {}

  // Where the next piece is to be added. Null: it may go to the device, as all that was held back has.
  Work* next(WorkPiece piece) {
    if (repeats_.next(piece)) return &held_;
    go();
    return nullptr;
  }
  // Work that nothing can hold back comes.
  void break_off() { next({WorkKind::other}); }
  // The host is about to wait.
  void end_section() {
    const int section = repeats_.end();
    if (section == Repeats::kNone) return go();
    const Cleared cleared{held_};
    if (!queue_.whole(section, held_)) return repeats_.stop();
    ++used().graphs;
  }
  // The host has waited.
  void done() { repeats_.done(); }
  // Nobody waits for what is held back.
  void forget() { held_.clear(); }

 private:
  struct Cleared {
    Work& work;
    ~Cleared() { work.clear(); }
  };
  void go() {
    const Cleared cleared{held_};
    queue_.issue(held_);
  }

  Queue& queue_;
  Repeats repeats_;
  Work held_ = {};
};

}  // namespace qlora::cuda
