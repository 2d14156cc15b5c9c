// Spectral norms (spectral.h). What they leave alone of D's parameters is passed on.
#pragma once

#include <algorithm>
#include <cmath>

#include "operands.h"

namespace pymgan::cpu {

template <class T>
class SpectralNorms {
 public:
  explicit SpectralNorms(Operands<T>& operands) : o(operands) {}

  void iterate(const Instr& i) const {
    const T *before = o.at(i.a0), *theta = o.part(i.theta, Player::discriminator);
    T* after = o.at(i.out);
    std::copy_n(before, o.layout.spectral_size, after);
    for (const SpectralNorm& s : o.layout.spectral) {
      const WeightMatrix<T> w = matrix(s, theta);
      for (int n = 0; n < s.iterations; ++n) {
        o.kernels.transposed_matrix_times(w, after + s.u, after + s.v);
        normalise(s, w.k, after + s.v);
        o.kernels.matrix_times(w, after + s.v, after + s.u);
        normalise(s, w.n, after + s.u);
      }
    }
  }

  void weights(const Instr& i) const {
    const T *theta = o.part(i.theta, Player::discriminator), *uv = o.at(i.q);
    T *used = o.at(i.out), *sigma = o.at(i.pre);
    others(theta, used, false);
    each([&](const SpectralNorm& s, int layer) {
      sigma[layer] = along(s, theta, uv, used);
      combine(s, uv, 1 / sigma[layer], theta, 0, nullptr, 0, used, false);
    });
  }

  void tangent(const Instr& i) const {
    const T *w = o.part(i.a0, Player::discriminator), *used = o.at(i.b0), *sigma = o.at(i.ref), *uv = o.at(i.q);
    T *out = o.at(i.out), *d_sigma = o.at(i.pre);
    others(w, out, false);
    each([&](const SpectralNorm& s, int layer) {
      d_sigma[layer] = along(s, w, uv, out);
      combine(s, uv, 1 / sigma[layer], w, -d_sigma[layer] / sigma[layer], used, 0, out, false);
    });
  }

  // With b = the change of sigma / sigma and g the slope, both zero without one: N'^T[a - b g] - <N'[w], g> R / sigma.
  void adjoint(const Instr& i) const {
    const T *a = o.at(i.a0), *used = o.at(i.b0), *sigma = o.at(i.ref), *uv = o.at(i.q);
    const T *g = o.at(i.a1), *w = o.at(i.b1), *d_sigma = o.at(i.g);
    T* out = o.part(i.out, Player::discriminator);
    others(a, out, i.accumulate);
    each([&](const SpectralNorm& s, int layer) {
      const T b = g ? d_sigma[layer] / sigma[layer] : T{0};
      T of_r = dot(s, used, a);
      if (g) of_r += dot(s, w, g) - b * dot(s, used, g);
      combine(s, uv, 1 / sigma[layer], a, -b / sigma[layer], g, -of_r / sigma[layer], out, i.accumulate);
    });
  }

 private:
  const Tensor& tensor(const SpectralNorm& s) const { return o.layout.tensors[s.tensor]; }
  WeightMatrix<T> matrix(const SpectralNorm& s, const T* parameters) const {
    const Tensor& t = tensor(s);
    return {t.n, t.inputs(), t.by_rows, parameters + t.packed_weight};
  }
  template <class Visit>
  void each(Visit&& visit) const {
    int layer = 0;
    for (const SpectralNorm& s : o.layout.spectral) visit(s, layer++);
  }

  // Everything between their weights, from one D-shaped vector to another.
  void others(const T* from, T* to, bool accumulate) const {
    int64_t at = 0;
    auto pass = [&](int64_t end) {
      for (; at < end; ++at) to[at] = accumulate ? to[at] + from[at] : from[at];
    };
    for (const SpectralNorm& s : o.layout.spectral) {
      pass(tensor(s).packed_weight);
      at += o.layout.packed_weight_size(tensor(s));
    }
    pass(o.player_size(Player::discriminator));
  }

  void normalise(const SpectralNorm& s, int n, T* x) const {
    const T norm = std::max(std::sqrt(o.kernels.dot(x, x, o.pad(n))), static_cast<T>(s.eps));
    for (int k = 0; k < n; ++k) x[k] /= norm;
  }
  T dot(const SpectralNorm& s, const T* a, const T* b) const {
    const int64_t at = tensor(s).packed_weight;
    return o.kernels.dot(a + at, b + at, o.layout.packed_weight_size(tensor(s)));
  }
  // u^T A v; room: where A v may be put, the weight's own place in some output.
  T along(const SpectralNorm& s, const T* a, const T* uv, T* room) const {
    T* product = room + tensor(s).packed_weight;
    o.kernels.matrix_times(matrix(s, a), uv + s.v, product);
    return o.kernels.dot(product, uv + s.u, o.pad(tensor(s).n));
  }
  void combine(const SpectralNorm& s, const T* uv, T of_a, const T* a, T of_b, const T* b, T of_uv, T* out,
               bool accumulate) const {
    const Tensor& t = tensor(s);
    RankOne<T> p;
    p.n = t.n, p.k = t.inputs(), p.by_rows = t.by_rows;
    p.of_a = of_a, p.a = a + t.packed_weight;
    p.of_b = of_b, p.b = b ? b + t.packed_weight : nullptr;
    p.of_uv = of_uv, p.u = uv + s.u, p.v = uv + s.v;
    p.out = out + t.packed_weight;
    p.accumulate = accumulate;
    o.kernels.rank_one(p);
  }

  Operands<T>& o;
};

}  // namespace pymgan::cpu
