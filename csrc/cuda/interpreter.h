// Executes one procedure for one task by one block.
#pragma once

#include "augments.h"
#include "products.h"
#include "rows.h"
#include "scores.h"
#include "spectral_norms.h"
#include "updates.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

#ifdef __CUDACC__

// A list's instructions, one after the other: the next is on its way to shared memory while this one is executed.
class Ahead {
 public:
  // two: [2], shared
  __device__ Ahead(Code* two, const Code* list, int count) : two_(two), list_(list), count_(count) {
    asm volatile("cp.async.wait_all;" ::: "memory");  // of a list that was left early
    __syncthreads();                                  // another list's last may still be read
    start(0);
  }
  __device__ __forceinline__ const Code& operator[](int i) {
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    start(i + 1);
    return two_[i % 2];
  }

 private:
  __device__ __forceinline__ void start(int i) {
    constexpr int pieces = sizeof(Code) / 16;
    static_assert(sizeof(Code) % 16 == 0 && pieces <= kThreads);
    if (i >= count_ || threadIdx.x >= pieces) return;
    const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(two_ + i % 2)) + 16 * threadIdx.x;
    const char* from = reinterpret_cast<const char*>(list_ + i) + 16 * threadIdx.x;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
  }

  Code* two_;
  const Code* list_;
  int count_;
};

#else

class Ahead {
 public:
  Ahead(Code*, const Code* list, int) : list_(list) {}
  const Code& operator[](int i) const { return list_[i]; }

 private:
  const Code* list_;
};

#endif

class Interpreter {
 public:
  PYMGAN_DEVICE Interpreter(Block& block, const Tables& tables, Task& task, Rings& rings, Precision precision)
      : o(block, tables, task),
        products(o, rings, precision),
        rows(o),
        scores(o),
        augments(o),
        updates(o),
        spectral(o) {}

  PYMGAN_DEVICE void run(const Code* code, int count) {
    for (int p = 0; p < 2; ++p) o.task.squares[p] = o.task.spoilt[p] = 0;
    Ahead list(o.block.codes(), code, count);
    for (int i = 0; i < count; ++i) {
      const Code& c = list[i];
      // An update carries an inactive player's parameters over, and a step without players has its power iteration.
      if (!(c.players & o.task.active) && c.op != Op::update && c.op != Op::spectral_iterate) continue;
      execute(c);
      if (!o.task.valid) return;
    }
  }

 private:
  PYMGAN_DEVICE void execute(const Code& c) {
    switch (c.op) {
      case Op::noise:
        return rows.noise(c);
      case Op::load:
        return rows.rows_in(c, o.t.x, o.task.real, o.task.rows);
      case Op::input:
        return rows.rows_in(c, c.index == 0 ? o.t.z : o.t.x, o.task.input[c.index], nullptr);
      case Op::output:
        return rows.rows_out(c, o.t.x, o.task.output);
      case Op::fill:
        return rows.fill(c);
      case Op::add:
        return rows.add(c);
      case Op::spread:
        return rows.spread(c);
      case Op::rate:
        return rows.rate(c);
      case Op::product:
        return products.product(c);
      case Op::diagonal:
        return products.diagonal(c);
      case Op::fixed:
        return rows.fixed(c);
      case Op::softmax:
        return rows.softmax(c);
      case Op::outer:
        return products.outer(c);
      case Op::elementwise:
        return rows.elementwise(c);
      case Op::row_dot:
        return rows.row_dot(c);
      case Op::combine:
        return scores.combine(c);
      case Op::mix:
        return scores.mix(c);
      case Op::draw:
        return augments.draw(c);
      case Op::augment:
        return augments.augment(c);
      case Op::penalty:
        return scores.penalty(c);
      case Op::head:
        return scores.head(c);
      case Op::transpose:  // weights lie by rows: both ways through them are read as they are
        return;
      case Op::check:
        return updates.check(c);
      case Op::update:
        return updates.update(c);
      case Op::spectral_iterate:
        return spectral.iterate(c);
      case Op::spectral_weights:
        return spectral.weights(c);
      case Op::spectral_tangent:
        return spectral.tangent(c);
      case Op::spectral_adjoint:
        return spectral.adjoint(c);
      case Op::adjoint:
        return updates.adjoint(c);
    }
  }

  Operands o;
  Products products;
  Rows rows;
  Scores scores;
  Augments augments;
  Updates updates;
  SpectralNorms spectral;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
