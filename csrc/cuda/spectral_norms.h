// Spectral norms (../spectral.h). What they leave alone of D's parameters is passed on.
#pragma once

#include <cmath>

#include "blocks.h"
#include "task.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class SpectralNorms {
 public:
  PYMGAN_DEVICE explicit SpectralNorms(Operands& operands) : o(operands) {}

  PYMGAN_DEVICE_CALL void iterate(const Code& c) {
    const float *before = o.at(c.a0), *theta = o.part(c.theta, 1);
    float* after = o.at(c.out);
    o.block.each(o.t.spectral_size, [&](int i) { after[i] = before[i]; });
    for (int layer = 0; layer < o.t.spectral_count; ++layer) {
      const SpectralRecord& s = o.t.spectral[layer];
      const TensorRecord& w = tensor(s);
      const int inputs = w.taps * w.k;
      const float* matrix = theta + w.offset;
      float *u = after + s.u, *v = after + s.v;
      for (int n = 0; n < s.iterations; ++n) {
        o.block.warps(inputs, [&](int k) {
          const float sum = warp_sum(w.n, [&](int i) { return matrix[weight_at(w, i, k)] * u[i]; });
          one_lane([&] { v[k] = sum; });
        });
        normalise(s, inputs, v);
        o.block.warps(w.n, [&](int i) {
          const float sum = warp_sum(inputs, [&](int k) { return matrix[weight_at(w, i, k)] * v[k]; });
          one_lane([&] { u[i] = sum; });
        });
        normalise(s, w.n, u);
      }
    }
  }

  PYMGAN_DEVICE_CALL void weights(const Code& c) {
    const float *theta = o.part(c.theta, 1), *uv = o.at(c.q);
    float *used = o.at(c.out), *sigma = o.at(c.pre);
    copy(theta, used, false);
    each([&](const SpectralRecord& s, int layer) {
      const float own = static_cast<float>(along(s, theta, uv));
      o.block.each(1, [&](int) { sigma[layer] = own; });
      combine(s, uv, 1 / own, theta, 0, nullptr, 0, used, false);
    });
  }

  PYMGAN_DEVICE_CALL void tangent(const Code& c) {
    const float *w = o.part(c.a0, 1), *used = o.at(c.b0), *sigma = o.at(c.ref), *uv = o.at(c.q);
    float *out = o.at(c.out), *d_sigma = o.at(c.pre);
    copy(w, out, false);
    each([&](const SpectralRecord& s, int layer) {
      const float own = static_cast<float>(along(s, w, uv));
      o.block.each(1, [&](int) { d_sigma[layer] = own; });
      combine(s, uv, 1 / sigma[layer], w, -own / sigma[layer], used, 0, out, false);
    });
  }

  // See csrc/cpu/instr_spectral.h.
  PYMGAN_DEVICE_CALL void adjoint(const Code& c) {
    const float *a = o.at(c.a0), *used = o.at(c.b0), *sigma = o.at(c.ref), *uv = o.at(c.q);
    const float *g = o.at(c.a1), *w = o.at(c.b1), *d_sigma = o.at(c.g);
    float* out = o.part(c.out, 1);
    copy(a, out, c.accumulate);
    each([&](const SpectralRecord& s, int layer) {
      const float b = g ? d_sigma[layer] / sigma[layer] : 0.f;
      double of_r = dot(s, used, a);
      if (g) of_r += dot(s, w, g) - b * dot(s, used, g);
      combine(s, uv, 1 / sigma[layer], a, -b / sigma[layer], g, -static_cast<float>(of_r) / sigma[layer], out,
              c.accumulate);
    });
  }

 private:
  PYMGAN_DEVICE const TensorRecord& tensor(const SpectralRecord& s) const { return o.t.tensors[s.tensor]; }
  template <class Visit>
  PYMGAN_DEVICE void each(Visit visit) const {
    for (int layer = 0; layer < o.t.spectral_count; ++layer) visit(o.t.spectral[layer], layer);
  }

  PYMGAN_DEVICE bool is_normed(int element) const {
    for (int layer = 0; layer < o.t.spectral_count; ++layer) {
      const TensorRecord& w = tensor(o.t.spectral[layer]);
      if (element >= w.offset && element < w.offset + w.n * w.ld) return true;
    }
    return false;
  }
  // Everything but their weights, from one D-shaped vector to another.
  PYMGAN_DEVICE void copy(const float* from, float* to, bool accumulate) const {
    o.block.each(o.t.size[1], [&](int i) {
      if (!is_normed(i)) to[i] = accumulate ? to[i] + from[i] : from[i];
    });
  }

  PYMGAN_DEVICE void normalise(const SpectralRecord& s, int n, float* x) const {
    const double square = o.block.sum(n, [&](int i) { return static_cast<double>(x[i]) * x[i]; });
    float norm = static_cast<float>(std::sqrt(square));
    if (norm < s.eps) norm = s.eps;
    o.block.each(n, [&](int i) { x[i] /= norm; });
  }
  PYMGAN_DEVICE double dot(const SpectralRecord& s, const float* a, const float* b) const {
    const TensorRecord& w = tensor(s);
    return o.block.sum(w.n * w.ld, [&](int i) { return static_cast<double>(a[w.offset + i]) * b[w.offset + i]; });
  }
  // u^T A v
  PYMGAN_DEVICE double along(const SpectralRecord& s, const float* a, const float* uv) const {
    const TensorRecord& w = tensor(s);
    const int inputs = w.taps * w.k;
    return o.block.sum(w.n * inputs, [&](int i) {
      const int n = i / inputs, k = i % inputs;
      return static_cast<double>(uv[s.u + n]) * a[w.offset + weight_at(w, n, k)] * uv[s.v + k];
    });
  }
  PYMGAN_DEVICE void combine(const SpectralRecord& s, const float* uv, float of_a, const float* a, float of_b,
                             const float* b, float of_uv, float* out, bool accumulate) const {
    const TensorRecord& w = tensor(s);
    const int inputs = w.taps * w.k;
    o.block.each(w.n * w.ld, [&](int i) {
      const int n = i / w.ld, k = i % w.ld, at = w.offset + weight_at(w, n, k);
      float y = of_a * a[at];
      if (b) y += of_b * b[at];
      if (k < inputs) y += of_uv * uv[s.u + n] * uv[s.v + k];
      out[at] = accumulate ? out[at] + y : y;
    });
  }

  Operands& o;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
