// Never built with ThreadSanitizer itself: it would see the switch as a function that returns elsewhere.

#include "kernels/cuda/emulated/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

// The sanitizers' hooks; null in a program without them.
extern "C" {
void __sanitizer_start_switch_fiber(void** frames, const void* low, size_t bytes) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* frames, const void** low, size_t* bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* p, size_t bytes) __attribute__((weak));
void* __tsan_get_current_fiber() __attribute__((weak));
void* __tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_destroy_fiber(void* fiber) __attribute__((weak));
void __tsan_switch_to_fiber(void* fiber, unsigned flags) __attribute__((weak));
void __tsan_acquire(void* x) __attribute__((weak));
void __tsan_release(void* x) __attribute__((weak));

// Saves the registers that a call preserves on the running stack, stores its pointer, and continues on the
// other.
void qlora_switch_stacks(void** save, void* load);
}

asm(R"(
  .text
  .globl qlora_switch_stacks
  .type qlora_switch_stacks, @function
qlora_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size qlora_switch_stacks, . - qlora_switch_stacks
)");

namespace qlora::emulated {
namespace {

constexpr int kSavedRegisters = 6;
constexpr unsigned kNoOrder = 1;  // of __tsan_switch_to_fiber: the switch itself orders nothing

// A sanitizer that left a stack's bytes marked would report the next flow on it.
void unmark(std::byte* low) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(low, Stack::kBytes);
}

}  // namespace

Stack::Stack() {
  void* p = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  mprotect(p, static_cast<size_t>(getpagesize()), PROT_NONE);
  low_ = static_cast<std::byte*>(p);
}

Stack::~Stack() {
  if (low_ == nullptr) return;
  unmark(low_);
  munmap(low_, kBytes);
}

Fiber this_flow() {
  Fiber fiber;
  if (races_are_watched()) fiber.thread = __tsan_get_current_fiber();
  return fiber;
}

void prepare(Fiber& fiber, Stack& stack, void (*entry)()) {
  unmark(stack.low());
  fiber = {.stack_low = stack.low(), .stack_bytes = Stack::kBytes, .thread = fiber.thread};
  auto** top = reinterpret_cast<void**>(stack.low() + Stack::kBytes);
  *--top = nullptr;  // keeps the stack aligned as at a call's entry, and ends traces
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
  if (races_are_watched() && fiber.thread == nullptr) fiber.thread = __tsan_create_fiber(0);
}

void entered(Fiber& from) {
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(nullptr, &from.stack_low, &from.stack_bytes);
}

void switch_to(Fiber& from, Fiber& to, Leaving how) {
  if (__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(how == Leaving::for_good ? nullptr : &from.frames, to.stack_low,
                                   to.stack_bytes);
  if (races_are_watched()) __tsan_switch_to_fiber(to.thread, kNoOrder);
  qlora_switch_stacks(&from.stack_pointer, to.stack_pointer);
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(from.frames, nullptr, nullptr);
}

void forget(Fiber& fiber) {
  if (races_are_watched() && fiber.thread != nullptr) __tsan_destroy_fiber(fiber.thread);
  fiber = {};
}

void publish(void* x) {
  if (__tsan_release != nullptr) __tsan_release(x);
}

void observe(void* x) {
  if (__tsan_acquire != nullptr) __tsan_acquire(x);
}

bool races_are_watched() {
  return __tsan_create_fiber != nullptr;
}

}  // namespace qlora::emulated
