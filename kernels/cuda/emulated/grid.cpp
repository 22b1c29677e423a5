// Never built with ThreadSanitizer itself: the scheduler looks at what fibers share.

#include "kernels/cuda/emulated/grid.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>

#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "kernels/cuda/emulated/fiber.h"

extern "C" {
void __asan_poison_memory_region(const volatile void* p, size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* p, size_t bytes) __attribute__((weak));
}

namespace qlora::emulated {

namespace detail {
constinit thread_local Thread* running = nullptr;
}

namespace {

Schedule schedule_of_environment() {
  const char* text = std::getenv("QLORA_CUDA_SCHEDULE");
  const std::string asked = text == nullptr ? "forward" : text;
  if (asked == "forward") return {};
  if (asked == "reverse") return {.order = Order::reverse};
  if (asked.starts_with("random:"))
    return {.order = Order::random, .seed = std::strtoull(asked.c_str() + 7, nullptr, 10)};
  throw Error(ErrorKind::usage,
              "QLORA_CUDA_SCHEDULE is '" + asked + "'; it may be forward, reverse or random:SEED");
}

Schedule& chosen() {
  static Schedule value = schedule_of_environment();
  return value;
}

struct {
  std::atomic<uint64_t> launches, blocks, phases, conflicts;
} counted;

constexpr size_t kSharedAlignment = 1024;
size_t shared_room(size_t bytes) {
  return (bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
}

// Tells AddressSanitizer that what follows `bytes` up to the end of its allocation may not be touched, or may
// be.
void mark(std::byte* p, size_t bytes, bool forbidden) {
  if (p == nullptr || __asan_poison_memory_region == nullptr) return;
  (forbidden ? __asan_poison_memory_region : __asan_unpoison_memory_region)(p + bytes,
                                                                            shared_room(bytes) - bytes);
}

std::string at(Place place) {
  const std::string file = place.file_name();
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(place.line());
}

bool same(Place a, Place b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

enum class State : uint8_t { fresh, ready, at_barrier, at_warp_operation, ended };

struct Lane : Thread {
  Fiber fiber = {};
  State state = State::fresh;
  Place place = {};
  const char* operation = "";
  void* argument = nullptr;
};

// What threads meet at, to ThreadSanitizer: an address that all publish to and then observe. Two take turns,
// because a thread may reach the next meeting before another has left this one.
class Gate {
 public:
  void* now() { return &sides_[turn_]; }
  void pass() { turn_ = 1 - turn_; }

 private:
  char sides_[2] = {};
  int turn_ = 0;
};

// The lanes of a warp: how many wait for the others, and where; how many stand elsewhere.
struct Warp {
  int arrived = 0, at_barrier = 0, ended = 0;
  Place place = {};
  const char* operation = "";
  Gate gate = {};
};

void start_of_lane();

// Runs blocks one after another on one thread of the pool.
class Worker {
 public:
  Worker() = default;
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    mark(shared_, shared_bytes_, false);
    for (Lane& l : stock_) forget(l.fiber);
  }
  void run(uint3 block_index, dim3 grid, dim3 block, size_t shared, const std::function<void()>& body,
           Schedule how);

  Lane& lane() { return *running_; }
  Fiber& scheduler() { return scheduler_; }
  std::byte* shared() { return shared_; }
  size_t shared_bytes() const { return shared_bytes_; }

  void body_of_lane();
  void barrier(Place place);
  void warp_operation(const char* name, void* argument, WarpBody body, Place place);
  std::string where(const Lane& lane) const;

 private:
  void place_lanes(uint3 block_index, dim3 grid, dim3 block);
  void poison_shared(size_t bytes);
  bool run_warp(int warp);
  void resume(Lane& lane);
  void wait(Lane& lane, State state, Gate& gate);
  void check_meeting(const Lane& me, const char* name, Place place);
  void shuffle(std::vector<int>& order);
  void end_block();
  std::string deadlock() const;
  Warp& warp_of(const Lane& lane) { return warps_[static_cast<size_t>(lane.warp)]; }
  Lane* lanes_of(const Lane& lane) { return &lanes_[static_cast<size_t>(lane.warp * kWarp)]; }
  const Lane& one_in(State state) const;

  std::vector<Lane> stock_;  // as many as the largest block had
  std::span<Lane> lanes_ = {};
  std::vector<Warp> warps_;
  std::vector<Stack> stacks_;  // one a lane
  std::vector<int> warp_order_, lane_order_;
  Place barrier_ = {};  // of those who wait at one
  Gate gate_ = {};
  Fiber scheduler_ = {};
  Lane* running_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  int alive_ = 0, waiting_ = 0;
  Schedule how_ = {};
  std::unique_ptr<PhiloxStream> random_;
  std::unique_ptr<std::byte, decltype(&std::free)> shared_block_{nullptr, &std::free};
  std::byte* shared_ = nullptr;
  size_t shared_bytes_ = 0;
  std::string failed_;
  char began_ = 0, ended_ = 0;
};

// A kernel that launches is not CUDA's way here, so one worker a thread is enough.
Worker& worker() {
  static thread_local Worker instance;
  return instance;
}

void start_of_lane() {
  Worker& w = worker();
  entered(w.scheduler());
  w.body_of_lane();
  std::abort();  // a lane that has ended is never resumed
}

void Worker::body_of_lane() {
  Lane& me = lane();
  observe(&began_);
  try {
    (*body_)();
    if (!me.copies.empty()) throw Fault("a thread ends with cp.async in flight: " + where(me));
    if (waiting_ > 0) throw Fault("a thread ends while others wait: " + where(one_in(State::at_barrier)));
    if (warp_of(me).arrived > 0)
      throw Fault("a lane ends while its warp waits: " + where(one_in(State::at_warp_operation)));
  } catch (const std::exception& e) {
    if (failed_.empty()) failed_ = e.what();
  }
  publish(&ended_);
  me.state = State::ended;
  ++warp_of(me).ended;
  --alive_;
  switch_to(me.fiber, scheduler_, Leaving::for_good);
}

void Worker::wait(Lane& me, State state, Gate& gate) {
  void* here = gate.now();
  publish(here);
  me.state = state;
  switch_to(me.fiber, scheduler_);
  observe(here);
}

// A lane that stands so. REQUIRES: there is one.
const Lane& Worker::one_in(State state) const {
  return *std::find_if(lanes_.begin(), lanes_.end(), [&](const Lane& l) { return l.state == state; });
}

void Worker::barrier(Place place) {
  Lane& me = lane();
  me.place = place;
  me.operation = "__syncthreads";
  if (alive_ != static_cast<int>(lanes_.size()))
    throw Fault("__syncthreads after threads of the block ended, " + at(place));
  if (waiting_ > 0 && !same(barrier_, place))
    throw Fault("threads wait at different barriers: " + at(place) + ", but " +
                where(one_in(State::at_barrier)));
  barrier_ = place;
  if (++waiting_ < alive_) {
    ++warp_of(me).at_barrier;
    return wait(me, State::at_barrier, gate_);
  }
  waiting_ = 0;
  publish(gate_.now());
  observe(gate_.now());
  gate_.pass();
  for (Lane& other : lanes_) other.state = State::ready;
  for (Warp& warp : warps_) warp.at_barrier = 0;
}

// What keeps a warp from meeting.
void Worker::check_meeting(const Lane& me, const char* name, Place place) {
  const Warp& warp = warp_of(me);
  if (warp.ended > 0) throw Fault(std::string(name) + " at " + at(place) + ": a lane of the warp has ended");
  if (warp.at_barrier > 0)
    throw Fault(std::string(name) + " at " + at(place) +
                " will not be reached by the whole warp: " + where(one_in(State::at_barrier)));
  if (warp.arrived > 0 && (!same(warp.place, place) || std::strcmp(warp.operation, name) != 0))
    throw Fault("the warp parts: " + std::string(name) + " at " + at(place) + ", but " +
                where(one_in(State::at_warp_operation)));
}

void Worker::warp_operation(const char* name, void* argument, WarpBody body, Place place) {
  Lane& me = lane();
  check_meeting(me, name, place);
  me.place = place;
  me.operation = name;
  me.argument = argument;
  Warp& warp = warp_of(me);
  warp.place = place;
  warp.operation = name;
  if (++warp.arrived < kWarp) return wait(me, State::at_warp_operation, warp.gate);
  warp.arrived = 0;
  Lane* lanes = lanes_of(me);
  void* arguments[kWarp];
  for (int i = 0; i < kWarp; ++i) arguments[i] = lanes[i].argument;
  observe(warp.gate.now());
  if (body != nullptr) body(arguments);
  publish(warp.gate.now());
  warp.gate.pass();
  for (int i = 0; i < kWarp; ++i) lanes[i].state = State::ready;
}

std::string Worker::where(const Lane& l) const {
  std::string text = "thread " + std::to_string(l.index) + " of block (" + std::to_string(l.block.x) + "," +
                     std::to_string(l.block.y) + "," + std::to_string(l.block.z) + ")";
  switch (l.state) {
    case State::fresh:
      return text + " has not begun";
    case State::ended:
      return text + " has ended";
    case State::ready:
      return text + " runs";
    default:
      return text + " waits in " + l.operation + " at " + at(l.place);
  }
}

std::string Worker::deadlock() const {
  std::string text = "no thread of the block can go on: ";
  int named = 0;
  for (const Lane& l : lanes_) {
    if (l.state != State::at_warp_operation && l.state != State::at_barrier) continue;
    if (named++ < 4) text += where(l) + "; ";
  }
  return text + std::to_string(named) + " wait in all";
}

void Worker::resume(Lane& l) {
  if (l.state == State::fresh) {
    prepare(l.fiber, stacks_[static_cast<size_t>(l.index)], start_of_lane);
    l.state = State::ready;
  }
  running_ = &l;
  detail::running = &l;
  switch_to(scheduler_, l.fiber);
}

// Runs the lanes of a warp as far as they go. Returns whether any went.
bool Worker::run_warp(int warp) {
  bool any = false;
  for (bool again = true; again && failed_.empty();) {
    again = false;
    if (how_.order == Order::random) shuffle(lane_order_);
    for (int lane : lane_order_) {
      Lane& l = lanes_[static_cast<size_t>(warp * kWarp + lane)];
      if (l.state != State::fresh && l.state != State::ready) continue;
      resume(l);
      again = any = true;
      if (!failed_.empty()) break;
    }
  }
  return any;
}

void Worker::shuffle(std::vector<int>& order) {
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random_->below(static_cast<uint32_t>(i))]);
}

void Worker::place_lanes(uint3 block_index, dim3 grid, dim3 block) {
  const size_t n = size_t{block.x} * block.y * block.z;
  if (stock_.size() < n) stock_.resize(n);
  lanes_ = std::span(stock_).first(n);
  while (stacks_.size() < n) stacks_.emplace_back();
  for (size_t i = 0; i < n; ++i) {
    Lane& l = lanes_[i];
    const auto index = static_cast<unsigned>(i);
    l.thread = {index % block.x, index / block.x % block.y, index / (block.x * block.y)};
    l.block = block_index;
    l.block_size = block;
    l.grid_size = grid;
    l.index = static_cast<int>(i);
    l.lane = l.index % kWarp;
    l.warp = l.index / kWarp;
    l.copies.clear();
    l.groups = 0;
    l.state = State::fresh;
  }
  warps_.assign(n / kWarp, {});
  warp_order_.resize(n / kWarp);
  lane_order_.resize(kWarp);
  std::iota(warp_order_.begin(), warp_order_.end(), 0);
  std::iota(lane_order_.begin(), lane_order_.end(), 0);
  if (how_.order != Order::reverse) return;
  std::reverse(warp_order_.begin(), warp_order_.end());
  std::reverse(lane_order_.begin(), lane_order_.end());
}

// A block of its own for every size, so that AddressSanitizer sees both ends.
void Worker::poison_shared(size_t bytes) {
  if (bytes != shared_bytes_) {
    mark(shared_, shared_bytes_, false);
    shared_block_.reset(
        bytes == 0 ? nullptr
                   : static_cast<std::byte*>(std::aligned_alloc(kSharedAlignment, shared_room(bytes))));
    shared_ = shared_block_.get();
    shared_bytes_ = bytes;
    mark(shared_, bytes, true);
  }
  if (bytes > 0) std::memset(shared_, 0xff, bytes);
}

void Worker::end_block() {
  for (Lane& l : lanes_)
    if (l.state != State::fresh && l.state != State::ended) forget(l.fiber);
  detail::running = nullptr;
}

void Worker::run(uint3 block_index, dim3 grid, dim3 block, size_t shared, const std::function<void()>& body,
                 Schedule how) {
  how_ = how;
  body_ = &body;
  failed_.clear();
  const uint64_t number =
      block_index.x + uint64_t{grid.x} * (block_index.y + uint64_t{grid.y} * block_index.z);
  if (how.order == Order::random) random_ = std::make_unique<PhiloxStream>(mix_seed(how.seed, number));
  place_lanes(block_index, grid, block);
  observe(&ended_);
  poison_shared(shared);
  publish(&began_);
  alive_ = static_cast<int>(lanes_.size());
  waiting_ = 0;
  scheduler_ = this_flow();
  while (alive_ > 0 && failed_.empty()) {
    bool any = false;
    if (how_.order == Order::random) shuffle(warp_order_);
    for (int warp : warp_order_) any = run_warp(warp) || any;
    if (!any && failed_.empty()) failed_ = Fault(deadlock()).what();
  }
  observe(&ended_);
  end_block();
  if (!failed_.empty()) throw Error(ErrorKind::failure, failed_);
}

void check_launch(dim3 grid, dim3 block, size_t shared) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || threads % kWarp != 0)
    throw Fault("a block of " + std::to_string(threads) + " threads; it may have 32 to 1,024, whole warps");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw Fault("a grid of (" + std::to_string(grid.x) + "," + std::to_string(grid.y) + "," +
                std::to_string(grid.z) + ") blocks; at least 1 each, at most (2^31 - 1, 65535, 65535)");
  if (shared > kMaxShared)
    throw Fault(std::to_string(shared) + " bytes of shared memory; consumer cards have 99 KiB a block");
}

}  // namespace

Schedule schedule() {
  return chosen();
}
void set_schedule(Schedule how) {
  chosen() = how;
}

Counters counters() {
  return {counted.launches, counted.blocks, counted.phases, counted.conflicts};
}
void reset_counters() {
  counted.launches = counted.blocks = counted.phases = counted.conflicts = 0;
}
void count_banks(uint64_t phases, uint64_t conflicts) {
  counted.phases += phases;
  counted.conflicts += conflicts;
}

std::byte* shared_memory() {
  return worker().shared();
}
size_t shared_bytes() {
  return worker().shared_bytes();
}

void block_barrier(Place place) {
  worker().barrier(place);
}
void warp_operation(const char* name, void* argument, WarpBody body, Place place) {
  worker().warp_operation(name, argument, body, place);
}

void fault(const std::string& what, Place place) {
  throw Fault(what + ", " + at(place));
}

void run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()>& body) {
  check_launch(grid, block, shared);
  const auto blocks = static_cast<int64_t>(uint64_t{grid.x} * grid.y * grid.z);
  const Schedule how = schedule();
  std::vector<int64_t> order;
  if (how.order != Order::forward) {
    order.resize(static_cast<size_t>(blocks));
    std::iota(order.rbegin(), order.rend(), 0);
    PhiloxStream random(mix_seed(how.seed, 0xb10c));
    for (size_t i = order.size(); how.order == Order::random && i > 1; --i)
      std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
  }
  auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto b = static_cast<uint64_t>(order.empty() ? i : order[static_cast<size_t>(i)]);
      worker().run({static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                    static_cast<unsigned>(b / grid.x / grid.y)},
                   grid, block, shared, body, how);
    }
  };
  counted.launches += 1;
  counted.blocks += static_cast<uint64_t>(blocks);
  // One thread under ThreadSanitizer: it watches the fibers of a block, and the pool is not its subject here.
  if (races_are_watched()) return run(0, blocks);
  constexpr int64_t kThreadsAShare = 1024;
  parallel_for(blocks,
               std::max<int64_t>(1, kThreadsAShare / static_cast<int64_t>(block.x * block.y * block.z)), run);
}

}  // namespace qlora::emulated
