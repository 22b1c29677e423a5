// The linear layer of many rows, by cuBLAS. What a whole run's adapter joins is said in many_rows.h. Adapters
// of packs do not: a run's rows would need further columns of their own in everybody's product, which costs
// as much as adding its delta afterwards and lets a run that has diverged reach the others (0 * inf). They
// take one grouped launch a step (adapters.h), whose sums go on where cuBLAS's ended.

#include "kernels/cuda/adapters.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/many_rows.h"
#include "kernels/cuda/operands.h"

namespace qlora::cuda {
namespace {

bf16* room_of(Device& d, Room which, int64_t elements) {
  return elements == 0 ? nullptr : d.room<bf16>(which, static_cast<size_t>(elements));
}

Matrix floats(const void* p, int64_t rows, int64_t columns) {
  return {p, DType::f32, columns, rows, columns};
}

// One call's products, forward.
class Forward {
 public:
  Forward(Device& d, Blas& blas, const Linear& a)
      : d_(d),
        blas_(blas),
        a_(a),
        sizes_(sizes_of(a)),
        x_(room_of(d, Room::narrow, a.rows * sizes_.pitch)),
        dropped_(room_of(d, Room::dropped, sizes_.dropped)),
        w_(room_of(d, Room::decoded, sizes_.decoded)),
        adapter_(room_of(d, Room::adapter, sizes_.adapter)) {}

  void run() {
    narrow(d_, floats(a_.x, a_.rows, a_.terms[0].w.in), {x_, sizes_.pitch, a_.rows, sizes_.in});
    const ForwardParts parts = parts_of(a_.terms);
    const RowKey* keys = upload_keys(d_, parts, a_.keys, a_.rows);
    ForwardParts after_down, after_up;
    for (const auto& p : parts) {
      const bool whole = whole_part(*p.term, a_.rows) != nullptr;
      if (whole) {
        multiply_down(*p.term, *p.part, keys);
      } else {
        after_down.push_back(p);
      }
      if (forward_tail(*p.term, a_.rows) == 0) after_up.push_back(p);
    }
    cuda::multiply_down(d_, a_, keys, after_down);
    for (const LinearTerm& term : a_.terms)
      if (term.y != nullptr) multiply(term);
    multiply_up(d_, a_, after_up);
  }

 private:
  // u = drop(x) aᵀ
  void multiply_down(const LinearTerm& term, const LoraPart& part, const RowKey* keys) {
    const int64_t in = term.w.in;
    const bf16* x = x_;
    if (part.dropout.p > 0) {
      narrow(d_, floats(a_.x, a_.rows, in), {dropped_, sizes_.in, a_.rows, sizes_.in}, part.dropout, keys);
      x = dropped_;
    }
    narrow(d_, floats(part.a, part.rank, in), {adapter_, sizes_.in, part.rank, sizes_.in});
    blas_.product({.x = x,
                   .x_pitch = x == x_ ? sizes_.pitch : sizes_.in,
                   .w = adapter_,
                   .w_pitch = sizes_.in,
                   .y = static_cast<float*>(part.u),
                   .y_pitch = part.rank,
                   .m = a_.rows,
                   .n = part.rank,
                   .k = in});
  }

  // y = [x | s u] [w | b]ᵀ, some rows of w at a time
  void multiply(const LinearTerm& term) {
    const WeightView& w = term.w;
    BlasProduct p{.x = x_, .x_pitch = sizes_.pitch, .y_pitch = w.out, .m = a_.rows};
    const int64_t tail = forward_tail(term, a_.rows);
    if (tail == 0 && reads_in_place(w)) {
      p.w = static_cast<const bf16*>(w.data);
      p.w_pitch = p.k = w.in;
      p.y = static_cast<float*>(term.y);
      p.n = w.out;
      return blas_.product(p);
    }
    const LoraPart* part = tail > 0 ? whole_part(term, a_.rows) : nullptr;
    if (part != nullptr)
      narrow(d_, floats(part->u, a_.rows, part->rank), {x_ + sizes_.in, sizes_.pitch, a_.rows, tail},
             static_cast<float>(part->scale));
    const int64_t pitch = sizes_.in + tail, most = piece(w.out, pitch);
    for (int64_t row = 0; row < w.out; row += most) {
      const int64_t rows = std::min(most, w.out - row);
      decode(d_, w, {row, 0, rows, w.in}, {w_, pitch, rows, sizes_.in});
      if (part != nullptr)
        narrow(d_, floats(static_cast<const float*>(part->b) + row * part->rank, rows, part->rank),
               {w_ + sizes_.in, pitch, rows, tail});
      p.w = w_;
      p.w_pitch = p.k = pitch;
      p.y = static_cast<float*>(term.y) + row;
      p.n = rows;
      blas_.product(p);
    }
  }

  Device& d_;
  Blas& blas_;
  const Linear& a_;
  const ForwardSizes sizes_;
  bf16 *const x_, *const dropped_, *const w_, *const adapter_;
};

// And backward.
class Backward {
 public:
  Backward(Device& d, Blas& blas, const LinearBackward& a)
      : d_(d),
        blas_(blas),
        a_(a),
        sizes_(sizes_of(a)),
        dy_(room_of(d, Room::narrow, a.rows * sizes_.pitch)),
        w_(room_of(d, Room::decoded, sizes_.decoded)),
        adapter_(room_of(d, Room::adapter, sizes_.adapter)) {}

  void run() {
    BackwardParts parts = parts_of(a_.terms), grouped;
    const RowKey* keys = upload_keys(d_, parts, a_.keys, a_.rows);
    place_low_rank(d_, parts);
    int64_t column = 0, tail = sizes_.out;
    for (const LinearBackwardTerm& term : a_.terms) {
      const int64_t out = padded(term.w.out);
      narrow(d_, floats(term.dy, a_.rows, term.w.out), {dy_ + column, sizes_.pitch, a_.rows, out});
      for (const auto& p : parts) {
        if (p.term != &term) continue;
        if (whole_part(term, a_.rows) == nullptr) {
          grouped.push_back(p);
          continue;
        }
        low_rank_gradient(*p.part, term.w.out, dy_ + column, p.du);
        if (!sizes_.joins) continue;
        narrow(d_, floats(p.du, a_.rows, p.part->rank),
               {dy_ + tail, sizes_.pitch, a_.rows, padded(p.part->rank)});
        tail += padded(p.part->rank);
      }
      column += out;
    }
    low_rank_gradients(d_, a_, grouped);
    adapter_gradients(d_, a_, keys, parts);
    if (a_.dx != nullptr) multiply(parts, keys);
  }

 private:
  // du = s dy b
  void low_rank_gradient(const LoraPart& part, int64_t out, const bf16* dy, float* du) {
    const int64_t pitch = padded(part.rank);
    narrow(d_, floats(part.b, out, part.rank), {adapter_, pitch, out, pitch});
    blas_.product({.x = dy,
                   .x_pitch = sizes_.pitch,
                   .w = adapter_,
                   .w_pitch = pitch,
                   .w_is_kn = true,
                   .y = du,
                   .y_pitch = part.rank,
                   .m = a_.rows,
                   .n = part.rank,
                   .k = out,
                   .alpha = static_cast<float>(part.scale)});
  }

  // A destination that already holds something receives the finished sum once: cuBLAS adds it so; else it is
  // finished aside.
  void multiply(const BackwardParts& parts, const RowKey* keys) {
    const int64_t n = a_.rows * a_.terms[0].w.in;
    const bool adds = a_.mode == Write::accumulate, aside = adds && !sizes_.joins;
    float* dx = aside ? d_.room<float>(Room::y, static_cast<size_t>(n)) : static_cast<float*>(a_.dx);
    multiply_base(dx, adds && !aside);
    if (!sizes_.joins) share_gradient(d_, a_, keys, parts, dx);
    if (aside) add(d_, {.a = a_.dx, .b = dx, .y = a_.dx, .n = n});
  }

  // dx = [dy.. | du..] [w..; a..], some columns at a time
  void multiply_base(float* dx, bool adds) {
    const WeightView& first = a_.terms[0].w;
    BlasProduct p{.x = dy_,
                  .x_pitch = sizes_.pitch,
                  .w_is_kn = true,
                  .y = dx,
                  .y_pitch = first.in,
                  .m = a_.rows,
                  .n = first.in,
                  .k = first.out,
                  .adds = adds};
    if (sizes_.in_place) {
      p.w = static_cast<const bf16*>(first.data);
      p.w_pitch = first.in;
      return blas_.product(p);
    }
    p.w = w_;
    p.k = sizes_.pitch;
    for (int64_t column = 0; column < first.in; column += sizes_.columns) {
      p.n = std::min(sizes_.columns, first.in - column);
      p.w_pitch = padded(p.n);
      p.y = dx + column;
      stack(column, p.n, p.w_pitch);
      blas_.product(p);
    }
  }

  // Columns of all weights and, where they join, of all a, one below the other.
  void stack(int64_t column, int64_t columns, int64_t pitch) {
    bf16* to = w_;
    for (const LinearBackwardTerm& term : a_.terms) {
      decode(d_, term.w, {0, column, term.w.out, columns}, {to, pitch, padded(term.w.out), pitch});
      to += padded(term.w.out) * pitch;
    }
    if (!sizes_.joins) return;
    for (const LinearBackwardTerm& term : a_.terms) {
      const LoraPart* part = whole_part(term, a_.rows);
      if (part == nullptr) continue;
      const auto* a = static_cast<const float*>(part->a) + column;
      narrow(d_, {a, DType::f32, term.w.in, part->rank, columns}, {to, pitch, padded(part->rank), pitch});
      to += padded(part->rank) * pitch;
    }
  }

  Device& d_;
  Blas& blas_;
  const LinearBackward& a_;
  const BackwardSizes sizes_;
  bf16 *const dy_, *const w_, *const adapter_;
};

}  // namespace

void linear(Device& d, Blas& blas, const Linear& a) {
  Forward(d, blas, a).run();
}

void linear_backward(Device& d, Blas& blas, const LinearBackward& a) {
  Backward(d, blas, a).run();
}

}  // namespace qlora::cuda
