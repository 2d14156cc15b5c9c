// The optimisers' steps and their adjoints.
#pragma once

#include <cmath>

#include "../optimisers.h"
#include "real.h"
#include "task.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class Updates {
 public:
  PYMGAN_DEVICE explicit Updates(Operands& operands) : o(operands) {}

  PYMGAN_DEVICE_CALL void check(const Code& c) {
    const int p = index_of(c.player);
    double norm2 = o.task.squares[p], spoilt = o.task.spoilt[p];
    if (c.a0.slot >= 0) norm2 = squares(o.at(c.a0), o.t.size[p]), spoilt = 0;
    if (o.task.trace && c.traced)
      o.block.each(1, [&](int) { o.task.trace[2 + p] = static_cast<float>(std::sqrt(norm2)); });
    if (!is_finite(norm2) || spoilt > 0) o.task.valid = false;
  }

  PYMGAN_DEVICE_CALL void update(const Code& c) {
    const int p = index_of(c.player), n = o.t.size[p];
    const float* theta = o.part(c.theta, p);
    float* out = o.part(c.out, p);
    if (!o.active(p)) {
      if (out && out != theta) o.block.each(n, [&](int i) { out[i] = theta[i]; });
      if (c.a0.slot < 0 && !is_finite(squares(theta, n))) o.task.valid = false;
      return carry_moments(c, 0);
    }
    if (c.a0.slot < 0) return;
    const float *f = o.at(c.a0), *scale = o.part(c.rate_scale, p);
    const float rate = o.task.rate[p];
    const bool first = o.task.number[p] == 1;
    formulas::visit(o.task.kind, [&](auto optimiser) {
      using O = decltype(optimiser);
      formulas::Knobs<Real> k = knobs(p);
      if (o.task.kind == Optimiser::normalised) k.norm = static_cast<float>(std::sqrt(squares(f, n) + o.t.eps));
      const float *m0 = moment<O>(c.moment, 0, p, first), *m1 = moment<O>(c.moment, 1, p, first);
      float *next0 = moment<O>(c.moment_next, 0, p, false), *next1 = moment<O>(c.moment_next, 1, p, false);
      o.block.each(n, [&](int i) {
        const auto moved = O::move(Real(f[i]), formulas::Moments<Real>{m0 ? m0[i] : 0.f, m1 ? m1[i] : 0.f}, k);
        if (next0) next0[i] = moved.moments.first.v;
        if (next1) next1[i] = moved.moments.second.v;
        out[i] = theta[i] - rate * (scale ? scale[i] : 1.f) * moved.direction.v;
      });
      carry_moments(c, O::kMoments);
    });
  }

  PYMGAN_DEVICE_CALL void adjoint(const Code& c) {
    const int p = index_of(c.player), n = o.t.size[p];
    float* w = o.at(c.out);
    if (!o.active(p)) return o.block.each(n, [&](int i) { w[i] = 0; });
    const float *f = o.at(c.a0), *scale = o.part(c.rate_scale, p), *v = o.part(c.v, p);
    const float rate = o.task.rate[p];
    const bool first = o.task.number[p] == 1;
    float* d_scale = o.part(c.d_scale, p);
    formulas::visit(o.task.kind, [&](auto optimiser) {
      using O = decltype(optimiser);
      formulas::Knobs<Real> k = knobs(p);
      auto scaled = [&](int i) { return (scale ? scale[i] : 1.f) * v[i]; };
      if (o.task.kind == Optimiser::normalised) {
        const double norm = std::sqrt(squares(f, n) + o.t.eps);
        k.norm = static_cast<float>(norm);
        k.along = static_cast<float>(-rate * o.block.sum(n, [&](int i) { return double(f[i]) * scaled(i); }) / norm);
      }
      const float *m0 = moment<O>(c.moment, 0, p, first), *m1 = moment<O>(c.moment, 1, p, first);
      float *v0 = moment<O>(c.v_moment, 0, p, false), *v1 = moment<O>(c.v_moment, 1, p, false);
      double d_rate = 0;  // of this thread's elements
      o.block.each(n, [&](int i) {
        const Real gradient(f ? f[i] : 0.f);
        const formulas::Moments<Real> moments{m0 ? m0[i] : 0.f, m1 ? m1[i] : 0.f};
        const auto pulled = O::adjoint(gradient, moments, Real(-(rate * scaled(i))),
                                       formulas::Moments<Real>{v0 ? v0[i] : 0.f, v1 ? v1[i] : 0.f}, k);
        if (v0) v0[i] = first ? 0.f : pulled.v.first.v;
        if (v1) v1[i] = first ? 0.f : pulled.v.second.v;
        w[i] = pulled.w.v;
        if (c.d_scale.slot < 0) return;
        const float direction = O::move(gradient, moments, k).direction.v;
        d_rate += static_cast<double>(scaled(i)) * direction;
        if (d_scale) d_scale[i] -= rate * direction * v[i];
      });
      if (c.d_scale.slot < 0) return;
      d_rate = o.block.reduce(d_rate);
      if (o.task.d_rate) o.block.each(1, [&](int) { o.task.d_rate[c.index * o.task.d_rate_stride + p] -= d_rate; });
    });
  }

  PYMGAN_DEVICE double squares(const float* x, int n) {
    return o.block.sum(n, [&](int i) { return static_cast<double>(x[i]) * x[i]; });
  }

 private:
  // Those from number `from` on stay as they are.
  PYMGAN_DEVICE void carry_moments(const Code& c, int from) {
    if (c.moment.slot < 0 || c.moment_next.slot < 0) return;
    const int p = index_of(c.player);
    for (int m = from; m < o.t.moments; ++m) {
      const float* before = o.part(c.moment, p, m);
      float* after = o.part(c.moment_next, p, m);
      if (before != after) o.block.each(o.t.size[p], [&](int i) { after[i] = before[i]; });
    }
  }

  template <class O>
  PYMGAN_DEVICE float* moment(const Operand& of, int number, int player, bool zero) const {
    return number < O::kMoments && !zero ? o.part(of, player, number) : nullptr;
  }

  PYMGAN_DEVICE formulas::Knobs<Real> knobs(int p) const {
    const double number = static_cast<double>(o.task.number[p]);
    formulas::Knobs<Real> k{};
    k.momentum = o.t.momentum;
    k.beta1 = o.t.betas[0], k.beta2 = o.t.betas[1];
    k.rest1 = static_cast<float>(1 - o.t.exact_betas[0]), k.rest2 = static_cast<float>(1 - o.t.exact_betas[1]);
    k.bias1 = static_cast<float>(1 - std::pow(o.t.exact_betas[0], number));
    k.bias2 = static_cast<float>(1 - std::pow(o.t.exact_betas[1], number));
    k.eps = o.t.eps;
    k.past = o.task.number[p] == 1 ? 0.f : 1.f;
    return k;
  }

  Operands& o;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
