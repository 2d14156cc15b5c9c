// What happens to accumulated elements, see Apply in plan.h. They are put first, and then, in a phase of its own, all
// of them are applied: the formulas stand in the kernel once.
#pragma once

#include "../formulas.h"
#include "real.h"
#include "task.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class Epilogue {
 public:
  PYMGAN_DEVICE Epilogue(const Operands& o, const Code& c)
      : c_(c), at_once_(at_once(c)), ref_(o.at(c.ref)), out_(o.at(c.out)), pre_(o.at(c.pre)) {}

  // Element `at` of [rows][ld].
  PYMGAN_DEVICE void put(int at, float acc) const {
    if (pre_) pre_[at] = acc;
    if (!out_) return;
    out_[at] = at_once_ ? bent(at, acc) : acc;
  }

  // The n elements of out.
  static PYMGAN_DEVICE void apply(const Operands& o, const Code& c, int n) {
    if (c.apply != Apply::store && c.out.slot >= 0 && !at_once(c)) apply_formula(o, c, n);
  }

 private:
  static PYMGAN_DEVICE bool at_once(const Code& c) {
    return c.apply != Apply::store && c.activation == Activation::leaky_relu && (c.apply != Apply::act || c.order == 0);
  }
  PYMGAN_DEVICE float bent(int at, float acc) const {
    const formulas::LeakyReLU f;
    const Real p0(c_.attributes[0]), p1(c_.attributes[1]);
    return c_.apply == Apply::act ? f.value(Real(acc), p0, p1).v : f.derivatives(Real(ref_[at]), p0, p1).first.v * acc;
  }

  static PYMGAN_DEVICE_CALL void apply_formula(const Operands& o, const Code& c, int n) {
    const Real p0(c.attributes[0]), p1(c.attributes[1]);
    const float *ref = o.at(c.ref), *q = o.at(c.q), *g = o.at(c.g);
    float* out = o.at(c.out);
    const bool bends = c.apply == Apply::chain2 && q && g;
    formulas::visit(c.activation, [&](auto f) {
      if (c.apply == Apply::act && c.order == 0)
        return o.block.each(n, [&](int i) { out[i] = f.value(Real(out[i]), p0, p1).v; });
      if (c.apply == Apply::act)
        return o.block.each(n, [&](int i) {
          const auto d = f.derivatives(Real(out[i]), p0, p1);
          out[i] = c.order == 1 ? d.first.v : c.order == 2 ? d.second.v : d.third.v;
        });
      o.block.each(n, [&](int i) {
        const auto d = f.derivatives(Real(ref[i]), p0, p1);
        float y = d.first.v * out[i];
        if (bends) y += d.second.v * q[i] * g[i];
        out[i] = y;
      });
    });
  }

  const Code& c_;
  bool at_once_;
  const float* ref_;
  float *out_, *pre_;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
