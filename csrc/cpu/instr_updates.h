// The optimisers' steps and their adjoints.
#pragma once

#include <algorithm>
#include <cmath>

#include "finite.h"
#include "operands.h"

namespace pymgan::cpu {

template <class T>
class Updates {
 public:
  explicit Updates(Operands<T>& operands) : o(operands) {}

  void check(const Instr& i) {
    double norm2 = 0;
    bool finite = true;
    if (i.a0) {
      norm2 = squares(o.kernels, o.at(i.a0), o.player_size(i.player));
    } else {
      const GradientSums<T>& sums = o.sums[index(i.player)];
      for (int l = 0; l < kLanes; ++l) norm2 += sums.squares[l], finite &= sums.spoilt[l] == 0;
    }
    if (o.frame.trace && i.traced) o.frame.trace[2 + index(i.player)] = static_cast<T>(std::sqrt(norm2));
    o.frame.valid &= finite && std::isfinite(norm2);
  }

  void update(const Instr& i) {
    const T* theta = o.part(i.theta, i.player);
    T* out = o.part(i.out, i.player);
    const int64_t n = o.player_size(i.player);
    if (!o.active(i.player)) {
      if (out && out != theta) std::copy_n(theta, n, out);
      if (!i.a0) o.frame.valid &= finite(o.kernels, theta, n);
      carry_moments(i, 0);
      return;
    }
    if (!i.a0) return;
    Update<T> u;
    u.n = n;
    u.kind = o.frame.kind;
    u.rate = o.rate(i.player);
    u.knobs = knobs(i.player);
    u.gradient = o.at(i.a0);
    u.scale = o.part(i.rate_scale, i.player);
    u.theta = theta;
    u.theta_out = out;
    for (int m = 0; m < moments_of(o.frame.kind); ++m) {
      u.moment[m] = first(i.player) ? nullptr : o.vector(i.moment, m, i.player);
      u.moment_out[m] = o.vector(i.moment_next, m, i.player);
    }
    o.kernels.update(u);
    carry_moments(i, moments_of(o.frame.kind));
  }

  // As a step of plain SGD at rate -1.
  void add(const Instr& i) const {
    Update<T> u;
    u.n = o.value(i.out).elements;
    u.kind = Optimiser::sgd;
    u.rate = T{-1};
    u.gradient = o.at(i.a0);
    u.theta = u.theta_out = o.at(i.out);
    o.kernels.update(u);
  }

  void adjoint(const Instr& i) const {
    const int p = index(i.player);
    T* w = o.at(i.out);
    if (!o.active(i.player)) {
      std::fill_n(w, o.player_size(i.player), T{0});
      return;
    }
    UpdateAdjoint<T> u;
    u.n = o.player_size(i.player);
    u.kind = o.frame.kind;
    u.rate = o.rate(i.player);
    u.knobs = knobs(i.player);
    u.first = first(i.player);
    u.gradient = o.at(i.a0);
    u.scale = o.part(i.rate_scale, i.player);
    u.v = o.part(i.v, i.player);
    for (int m = 0; m < moments_of(o.frame.kind); ++m) {
      u.moment[m] = u.first ? nullptr : o.vector(i.moment, m, i.player);
      u.v_moment[m] = o.vector(i.v_moment, m, i.player);
    }
    u.w = w;
    if (i.d_scale) {
      u.d_rate = o.frame.d_rate ? o.frame.d_rate + i.index * o.frame.d_rate_stride + p : nullptr;
      u.d_scale = o.part(i.d_scale, i.player);
    }
    o.kernels.update_adjoint(u);
  }

 private:
  // Those from number `from` on stay as they are.
  void carry_moments(const Instr& i, int from) const {
    if (!i.moment || !i.moment_next) return;
    for (int m = from; m < o.moments; ++m) {
      const T* before = o.vector(i.moment, m, i.player);
      T* after = o.vector(i.moment_next, m, i.player);
      if (before != after) std::copy_n(before, o.player_size(i.player), after);
    }
  }

  // There are no moments from before.
  bool first(Player p) const { return o.frame.number[index(p)] == 1; }

  formulas::Knobs<T> knobs(Player p) const {
    auto rest = [](double beta, double power) { return static_cast<T>(1 - std::pow(beta, power)); };
    const auto [beta1, beta2] = o.game.betas;
    const double number = static_cast<double>(o.frame.number[index(p)]);
    formulas::Knobs<T> k{};
    k.momentum = static_cast<T>(o.game.momentum);
    k.beta1 = static_cast<T>(beta1), k.beta2 = static_cast<T>(beta2);
    k.rest1 = rest(beta1, 1), k.rest2 = rest(beta2, 1);
    k.bias1 = rest(beta1, number), k.bias2 = rest(beta2, number);
    k.eps = static_cast<T>(o.game.eps);
    k.past = first(p) ? 0 : 1;
    return k;
  }

  Operands<T>& o;
};

}  // namespace pymgan::cpu
