// The linear layer of many rows, by cuBLAS. What a whole run's adapter joins is said in many_rows.h. Adapters
// of packs do not: a run's rows would need further columns of their own in everybody's product, which costs
// as much as adding its delta afterwards and lets a run that has diverged reach the others (0 * inf). They
// take one grouped launch a step (adapters.h), whose sums go on where cuBLAS's ended.

#include "core/base/error.h"
#include "kernels/cuda/adapters.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/kept.h"
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

// The call's stack among those that stay.
template <class Call>
Stack& kept(Device& d, const Call& a, const StackSizes& sizes) {
  if (a.terms.size() > kMostTerms) throw Error(ErrorKind::failure, "CUDA: a linear layer of too many terms");
  std::array<WeightView, kMostTerms> weights;
  std::transform(a.terms.begin(), a.terms.end(), weights.begin(), [](const auto& term) { return term.w; });
  return d.kept().stack(std::span(weights).first(a.terms.size()), sizes.rows, sizes.pitch);
}

// One call's products, forward.
class Forward {
 public:
  Forward(Device& d, Blas& blas, const Linear& a)
      : d_(d),
        blas_(blas),
        a_(a),
        sizes_(sizes_of(a, d.options.kept_bytes)),
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
    if (sizes_.stack.stays) stack_ = &kept(d_, a_, sizes_.stack);
    int64_t row = 0;
    for (size_t i = 0; i < a_.terms.size(); ++i) {
      if (a_.terms[i].y != nullptr) multiply(i, row);
      row += padded(a_.terms[i].w.out);
    }
    multiply_up(d_, a_, after_up);
  }

 private:
  // u = f * keep(x) aᵀ
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
                   .k = in,
                   .alpha = factor_of(part.dropout)});
  }

  // y = [x | s u] [w | b]ᵀ, some rows of w at a time; `first`: the term's in a stack that stays
  void multiply(size_t i, int64_t first) {
    const LinearTerm& term = a_.terms[i];
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
    const bool stays = stack_ != nullptr;
    p.k = sizes_.in + tail;
    p.w_pitch = stays ? stack_->pitch : p.k;
    bf16* const to = stays ? stack_->at + first * p.w_pitch : w_;
    p.w = to;
    const int64_t most = stays ? w.out : piece(w.out, p.k);
    for (int64_t row = 0; row < w.out; row += most) {
      p.n = std::min(most, w.out - row);
      p.y = static_cast<float*>(term.y) + row;
      if (!stays || !stack_->decoded[i])
        decode(d_, w, {row, 0, p.n, w.in}, {to, p.w_pitch, stays ? padded(p.n) : p.n, sizes_.in});
      if (part != nullptr)
        narrow(d_, floats(static_cast<const float*>(part->b) + row * part->rank, p.n, part->rank),
               {to + sizes_.in, p.w_pitch, p.n, tail});
      blas_.product(p);
    }
    if (stays) stack_->decoded[i] = true;
  }

  Device& d_;
  Blas& blas_;
  const Linear& a_;
  const ForwardSizes sizes_;
  bf16 *const x_, *const dropped_, *const w_, *const adapter_;
  Stack* stack_ = nullptr;
};

// And backward.
class Backward {
 public:
  Backward(Device& d, Blas& blas, const LinearBackward& a)
      : d_(d),
        blas_(blas),
        a_(a),
        sizes_(sizes_of(a, d.options.kept_bytes)),
        dy_(room_of(d, Room::narrow, a.rows * sizes_.pitch)),
        w_(room_of(d, Room::decoded, sizes_.decoded)),
        adapter_(room_of(d, Room::adapter, sizes_.adapter)),
        x_(room_of(d, Room::dropped, sizes_.x)),
        low_(room_of(d, Room::low, sizes_.low)) {}

  void run() {
    BackwardParts parts = parts_of(a_.terms), grouped, gradients;
    keys_ = upload_keys(d_, parts, a_.keys, a_.rows);
    place_low_rank(d_, parts);
    int64_t column = 0, tail = sizes_.out;
    for (const LinearBackwardTerm& term : a_.terms) {
      const int64_t out = padded(term.w.out);
      narrow(d_, floats(term.dy, a_.rows, term.w.out), {dy_ + column, sizes_.pitch, a_.rows, out});
      for (const auto& p : parts) {
        if (p.term != &term) continue;
        const bool whole = whole_part(term, a_.rows) != nullptr;
        if (!whole) grouped.push_back(p);
        if (!whole || !sizes_.gradients) gradients.push_back(p);
        if (!whole) continue;
        multiply_low_rank(p, dy_ + column, sizes_.joins ? dy_ + tail : nullptr);
        if (sizes_.joins) tail += padded(p.part->rank);
      }
      column += out;
    }
    low_rank_gradients(d_, a_, grouped);
    adapter_gradients(d_, a_, keys_, gradients);
    if (a_.dx != nullptr) multiply(parts);
  }

 private:
  // Of a whole part: du = s dy b, in bf16 too where it joins the product, and the gradients.
  void multiply_low_rank(const BackwardParts::value_type& p, const bf16* dy, bf16* joining) {
    const LoraPart& part = *p.part;
    const int64_t out = p.term->w.out, rank = padded(part.rank);
    narrow(d_, floats(part.b, out, part.rank), {adapter_, rank, out, rank});
    blas_.product({.x = dy,
                   .x_pitch = sizes_.pitch,
                   .w = adapter_,
                   .w_pitch = rank,
                   .w_is_kn = true,
                   .y = p.du,
                   .y_pitch = part.rank,
                   .m = a_.rows,
                   .n = part.rank,
                   .k = out,
                   .alpha = static_cast<float>(part.scale)});
    const Block beside{joining, sizes_.pitch, a_.rows, rank};
    const Block apart{sizes_.gradients ? low_ + a_.rows * rank : nullptr, rank, a_.rows, rank};
    const Block& du = joining != nullptr ? beside : apart;
    if (du.to != nullptr) narrow(d_, floats(p.du, a_.rows, part.rank), du);
    if (sizes_.gradients) gradients_of(*p.term, part, dy, du);
  }

  // grad_b += s dyᵀ u;  grad_a += f * duᵀ keep(x), sequence after sequence
  void gradients_of(const LinearBackwardTerm& term, const LoraPart& part, const bf16* dy, const Block& du) {
    const int64_t in = term.w.in, x_pitch = padded(in), rank = padded(part.rank);
    narrow(d_, floats(part.u, a_.rows, part.rank), {low_, rank, a_.rows, rank});
    const Matrix x = floats(a_.x, a_.rows, in);
    const Block narrowed{x_, x_pitch, a_.rows, x_pitch};
    if (part.dropout.p > 0) {
      narrow(d_, x, narrowed, part.dropout, keys_);
    } else if (!x_is_whole_) {
      narrow(d_, x, narrowed);
    }
    x_is_whole_ = part.dropout.p <= 0;
    BlasProduct p{.x_is_km = true, .w_is_kn = true, .adds = true};
    for (size_t s = 0; s + 1 < a_.sequences.size(); ++s) {
      const int64_t lo = a_.sequences[s], hi = std::min<int64_t>(a_.sequences[s + 1], a_.rows);
      if (hi <= lo) continue;
      p.k = hi - lo;
      if (part.grad_b != nullptr) {
        p.x = dy + lo * sizes_.pitch, p.x_pitch = sizes_.pitch, p.m = term.w.out;
        p.w = low_ + lo * rank, p.w_pitch = rank, p.n = part.rank;
        p.y = static_cast<float*>(part.grad_b), p.y_pitch = part.rank,
        p.alpha = static_cast<float>(part.scale);
        blas_.product(p);
      }
      if (part.grad_a != nullptr) {
        p.x = du.to + lo * du.pitch, p.x_pitch = du.pitch, p.m = part.rank;
        p.w = x_ + lo * x_pitch, p.w_pitch = x_pitch, p.n = in;
        p.y = static_cast<float*>(part.grad_a), p.y_pitch = in,
        p.alpha = factor_of(part.dropout);
        blas_.product(p);
      }
    }
  }

  // A destination that already holds something receives the finished sum once: cuBLAS adds it so; else it is
  // finished aside.
  void multiply(const BackwardParts& parts) {
    const int64_t n = a_.rows * a_.terms[0].w.in;
    const bool adds = a_.mode == Write::accumulate, aside = adds && !sizes_.joins;
    float* dx = aside ? d_.room<float>(Room::y, static_cast<size_t>(n)) : static_cast<float*>(a_.dx);
    multiply_base(dx, adds && !aside);
    if (!sizes_.joins) share_gradient(d_, a_, keys_, parts, dx);
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
    Stack* const stays = sizes_.stack.stays ? &kept(d_, a_, sizes_.stack) : nullptr;
    Stack passing{.at = w_};
    Stack& stack = stays != nullptr ? *stays : passing;
    p.w = stack.at;
    p.k = sizes_.pitch;
    for (int64_t column = 0; column < first.in; column += sizes_.columns) {
      p.n = std::min(sizes_.columns, first.in - column);
      if (stays == nullptr) passing = {.pitch = padded(p.n), .at = w_};
      p.w_pitch = stack.pitch;
      p.y = dx + column;
      fill(stack, column, p.n);
      blas_.product(p);
    }
  }

  // Columns of all weights that are not there and, where they join, of all a, one below the other.
  void fill(Stack& stack, int64_t column, int64_t columns) {
    const int64_t pitch = stack.pitch, width = padded(columns);
    bf16* to = stack.at;
    for (size_t i = 0; i < a_.terms.size(); ++i) {
      const WeightView& w = a_.terms[i].w;
      if (!stack.decoded[i]) decode(d_, w, {0, column, w.out, columns}, {to, pitch, padded(w.out), width});
      stack.decoded[i] = true;
      to += padded(w.out) * pitch;
    }
    if (!sizes_.joins) return;
    for (const LinearBackwardTerm& term : a_.terms) {
      const LoraPart* part = whole_part(term, a_.rows);
      if (part == nullptr) continue;
      const auto* a = static_cast<const float*>(part->a) + column;
      narrow(d_, {a, DType::f32, term.w.in, part->rank, columns}, {to, pitch, padded(part->rank), width});
      to += padded(part->rank) * pitch;
    }
  }

  Device& d_;
  Blas& blas_;
  const LinearBackward& a_;
  const BackwardSizes sizes_;
  bf16 *const dy_, *const w_, *const adapter_, *const x_, *const low_;
  const RowKey* keys_ = nullptr;
  bool x_is_whole_ = false;  // what x_ holds
};

}  // namespace

void linear(Device& d, Blas& blas, const Linear& a) {
  Forward(d, blas, a).run();
}

void linear_backward(Device& d, Blas& blas, const LinearBackward& a) {
  Backward(d, blas, a).run();
}

}  // namespace qlora::cuda
