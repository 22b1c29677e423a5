#pragma once
// Flows of control with stacks of their own: the emulation runs every CUDA thread on one. Switching costs a
// few nanoseconds (six registers and the stack pointer). The sanitizers are told of every switch:
// AddressSanitizer, so that it knows the stack; ThreadSanitizer as a change of thread without any order
// between the two, so that only what the emulation declares (barriers, warp operations) orders their
// accesses.

#include <cstddef>

namespace qlora::emulated {

// The memory of one stack, with an inaccessible page below it. Reusable after the flow on it has ended.
class Stack {
 public:
  static constexpr size_t kBytes = size_t{128} << 10;
  Stack();
  ~Stack();
  Stack(Stack&& other) noexcept : low_(other.low_) { other.low_ = nullptr; }
  Stack& operator=(Stack&&) = delete;
  std::byte* low() const { return low_; }

 private:
  std::byte* low_ = nullptr;
};

// A suspended flow, or the place where the calling one can be left.
struct Fiber {
  void* stack_pointer = nullptr;
  const void* stack_low = nullptr;  // for AddressSanitizer; of the thread's own flow once a fiber has started
  size_t stack_bytes = 0;
  void* frames = nullptr;  // AddressSanitizer's fake frames while suspended
  void* thread = nullptr;  // ThreadSanitizer's name of it
};

// The flow of the calling thread.
Fiber this_flow();
// Makes `fiber` start at `entry` when it is first resumed; one whose flow has left may be prepared again.
// entry calls entered() first, and never returns: it leaves through switch_to(..., Leaving::for_good).
void prepare(Fiber& fiber, Stack& stack, void (*entry)());
// What a new flow does first; `from` is the flow that resumed it.
void entered(Fiber& from);

enum class Leaving { for_now, for_good };
// Suspends `from`, the running flow, and resumes `to`; returns when somebody switches back.
void switch_to(Fiber& from, Fiber& to, Leaving how = Leaving::for_now);
// Gives back what a fiber holds, which will never be resumed.
void forget(Fiber& fiber);

// Orders accesses for ThreadSanitizer: what one flow did before publish(x) comes before what another does
// after observe(x). Nothing without it.
void publish(void* x);
void observe(void* x);
// True in a program with ThreadSanitizer.
bool races_are_watched();

}  // namespace qlora::emulated
