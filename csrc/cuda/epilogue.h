// What happens to an accumulated element, see Apply in plan.h.
#pragma once

#include "../formulas.h"
#include "real.h"
#include "task.h"

namespace pymgan::cuda {

struct Epilogue {
  Apply apply;
  Activation activation;
  int order;
  float attributes[2];
  const float *ref, *q, *g;
  float *out, *pre;

  PYMGAN_DEVICE Epilogue(const Operands& o, const Code& c)
      : apply(c.apply),
        activation(c.activation),
        order(c.order),
        attributes{c.attributes[0], c.attributes[1]},
        ref(o.at(c.ref)),
        q(o.at(c.q)),
        g(o.at(c.g)),
        out(o.at(c.out)),
        pre(o.at(c.pre)) {}

  // Element `at` of [rows][ld].
  PYMGAN_DEVICE void finish(int at, float acc) const {
    if (pre) pre[at] = acc;
    if (!out) return;
    out[at] = apply == Apply::store ? acc : applied(at, acc);
  }

 private:
  PYMGAN_DEVICE float applied(int at, float acc) const {
    const Real p0(attributes[0]), p1(attributes[1]);
    return formulas::visit(activation, [&](auto f) -> float {
      if (apply == Apply::act) {
        if (order == 0) return f.value(Real(acc), p0, p1).v;
        const auto d = f.derivatives(Real(acc), p0, p1);
        return order == 1 ? d.first.v : order == 2 ? d.second.v : d.third.v;
      }
      const auto d = f.derivatives(Real(ref[at]), p0, p1);
      float y = d.first.v * acc;
      if (apply == Apply::chain2 && q && g) y += d.second.v * q[at] * g[at];
      return y;
    });
  }
};

}  // namespace pymgan::cuda
