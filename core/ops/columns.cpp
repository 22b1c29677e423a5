#include <algorithm>
#include <numeric>
#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// Where the parts of every group lie in the columns of x.
struct Groups {
  int64_t count = 0, width = 0;  // of a group
  std::vector<int64_t> widths;
};

// Columns [first, first + width) of every group of `wide`, from them to all of `part`, or back.
void copy(const Groups& g, const Tensor& wide, int64_t first, const Tensor& part, int64_t width, bool back,
          Write mode) {
  void* inside = static_cast<std::byte*>(wide.data()) + static_cast<size_t>(first) * size_of(wide.type());
  wide.backend().copy_columns({.x = back ? part.data() : inside,
                               .y = back ? inside : part.data(),
                               .rows = wide.rows() * g.count,
                               .cols = width,
                               .x_stride = back ? width : g.width,
                               .y_stride = back ? g.width : width,
                               .mode = mode,
                               .type = wide.type()});
}

struct Backward {
  Groups groups;
  int slot;
  void operator()(Tape& tape, std::span<const Tensor> dys) const {
    const Dest dx = tape.dest(slot);
    const bool all =
        std::all_of(dys.begin(), dys.end(), [](const Tensor& dy) { return static_cast<bool>(dy); });
    if (!all && dx.mode == Write::overwrite) dx.grad.fill_zero();
    int64_t first = 0;
    for (size_t i = 0; i < dys.size(); ++i) {
      if (dys[i]) copy(groups, dx.grad, first, dys[i], groups.widths[i], true, dx.mode);
      first += groups.widths[i];
    }
  }
};

}  // namespace

std::vector<Var> split_columns(Context& c, const Var& x, int64_t count, std::span<const int64_t> widths) {
  const Groups groups{
      count, std::accumulate(widths.begin(), widths.end(), int64_t{0}), {widths.begin(), widths.end()}};
  check_operand(c, "split_columns", "x", x.value, -1, count * groups.width);
  std::vector<Tensor> parts;
  int64_t first = 0;
  for (int64_t width : widths) {
    parts.emplace_back(c.memory, Shape{x.value.rows(), count * width}, c.type);
    copy(groups, x.value, first, parts.back(), width, false, Write::overwrite);
    first += width;
  }
  if (c.tape != nullptr && x.needs_grad()) return c.tape->record(std::move(parts), Backward{groups, x.slot});
  std::vector<Var> constants;
  for (Tensor& part : parts) constants.push_back({std::move(part)});
  return constants;
}

}  // namespace qlora
