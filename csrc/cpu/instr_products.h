// Products with weights, and the outer products that are their gradients.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>

#include "finite.h"
#include "form_rows.h"
#include "operands.h"

namespace pymgan::cpu {

template <class T>
class Products {
 public:
  explicit Products(Operands<T>& operands) : o(operands) {}

  void product(const Instr& i) {
    if (i.window >= 0) return window_product(i);
    Product<T> p;
    p.ahead = o.ahead;
    p.rows = i.rows;
    p.columns = i.columns;
    p.term0 = term(i, i.a0, i.b0);
    p.term1 = term(i, i.a1, i.b1);
    p.bias = o.bias_at(i.bias);
    p.scale = o.at(i.scale);
    p.dot = o.at(i.dot_out ? i.dot : Ref{});
    p.dot_out = o.at(i.dot_out);
    p.epilogue = o.epilogue(i);
    o.kernels.product(p);
  }

  void diagonal(const Instr& i) {
    const Tensor& w = o.layout.tensors[(i.b0 ? i.b0 : i.b1).tensor];
    DiagonalProduct<T> p;
    p.rows = i.rows;
    p.elements = w.in;
    p.of = w.of.data();
    p.a0 = o.at(i.a0), p.w0 = o.at(i.b0);
    p.a1 = o.at(i.a1), p.w1 = o.at(i.b1);
    p.bias = o.bias_at(i.bias);
    p.scale = o.at(i.scale);
    p.dot = o.at(i.dot_out ? i.dot : Ref{});
    p.dot_out = o.at(i.dot_out);
    p.scratch = o.at(i.scratch);
    p.epilogue = o.epilogue(i);
    o.kernels.diagonal(p);
  }

  void outer(const Instr& i) {
    const Tensor& w = o.layout.tensors[i.out.tensor];
    if (w.diagonal()) return diagonal_outer(i, w);
    OuterProduct<T> p;
    p.ahead = o.ahead;
    p.accumulate = i.accumulate;
    p.out = o.at(i.out);
    p.rows = w.by_rows ? w.n : w.k;
    p.columns = w.by_rows ? w.k : w.n;
    p.out_panel = w.by_rows ? kLanes : int64_t{w.inputs()} * kLanes;
    p.out_row = w.by_rows ? o.pad(w.inputs()) : kLanes;
    T* scratch = o.at(i.scratch);
    if (i.theta && !w.by_rows) {
      p.theta = o.at(i.theta);
      p.scale = o.at(i.rate_scale);
      p.rate = o.rate(i.player);
      p.sums = &o.sums[index(i.player)];
    } else if (i.theta) {
      p.out = scratch;
    }
    if (i.window >= 0)
      window_outer(i, w, p);
    else
      flat_outer(i, w, p);
    if (w.by_rows) {
      // Here B is h, whose padding is an activation of zero, not zero.
      for (int n = 0; n < w.n; ++n) std::fill(p.out + n * p.out_row + w.inputs(), p.out + (n + 1) * p.out_row, T{0});
      const int64_t size = o.layout.packed_weight_size(w);
      if (i.theta) descend(i.player, size, scratch, o.at(i.theta), o.at(i.rate_scale), o.at(i.out)), scratch += size;
    }
    T* bias = o.bias_at(i.out);
    if (!bias) return;
    bias_gradient(i, w, i.theta ? scratch : bias);
    if (i.theta)
      descend(i.player, o.layout.packed_bias_size(w), scratch, o.bias_at(i.theta), o.bias_at(i.rate_scale), bias);
  }

 private:
  // `weight`: one tensor of a parameter vector, or its transposed copy (tensor_back).
  Term<T> term(const Instr& i, const Ref& a, const Ref& weight) const {
    Term<T> t;
    if (!a) return t;
    const Tensor& w = o.layout.tensors[weight.tensor];
    const bool transposed = o.value(weight).shape == Shape::rows;
    t.a = o.at(a);
    t.a_row = o.ld(a);
    t.b = o.at(weight);
    t.depth = i.depth;
    if (!i.adjoint) {  // out [n] = W [n][k] a [k]
      if (w.by_rows)
        t.access = Access::dots, t.b_panel = kLanes, t.b_row = o.pad(w.k);
      else
        t.b_panel = int64_t{w.k} * kLanes, t.b_row = kLanes;
    } else if (transposed) {  // out [k] = W^T a [n], panels of W^T
      t.b_panel = int64_t{w.n} * kLanes, t.b_row = kLanes;
    } else if (w.by_rows) {  // rows of W are what a broadcast of a [n] multiplies
      t.b_panel = kLanes, t.b_row = o.pad(w.k);
    } else {  // few inputs: dot products along n
      t.access = Access::dots, t.b_panel = int64_t{w.k} * kLanes, t.b_row = kLanes;
    }
    return t;
  }

  WindowShape shape_of(const Window& w) const {
    return {w.in_sites,       w.out_sites,        w.taps,
            w.from.data(),    w.groups.data(),    static_cast<int>(w.groups.size()),
            w.numbers.data(), w.first_pair.data()};
  }

  void window_product(const Instr& i) {
    const Windows& windows = o.layout.windows[i.window];
    const Tensor& w = o.layout.tensors[(i.b0 ? i.b0 : i.b1).tensor];
    const Window& window = i.adjoint ? windows.back : windows.forward;
    WindowProduct<T> p;
    p.window = shape_of(window);
    p.samples = i.rows;
    p.columns = i.adjoint ? w.k : w.n;
    p.channels = i.depth;
    auto term = [&](const Ref& a, const Ref& b) {
      WindowTerm<T> t;
      if (!a) return t;
      t.a = o.at(a), t.a_sample = o.ld(a), t.a_ld = o.layout.site_ld(window.in_sites, p.channels), t.b = o.at(b);
      return t;
    };
    p.term0 = term(i.a0, i.b0);
    p.term1 = term(i.a1, i.b1);
    p.bias = o.bias_at(i.bias);
    p.bias_site = w.bias_sites > 1 ? w.bias_ld : 0;
    p.scale = o.at(i.scale);
    p.dot = o.at(i.dot_out ? i.dot : Ref{});
    p.dot_out = o.at(i.dot_out);
    p.scratch = o.at(i.scratch);
    p.out_ld = o.layout.site_ld(window.out_sites, p.columns);
    p.epilogue = o.epilogue(i);
    o.kernels.window_product(p);
  }

  void diagonal_outer(const Instr& i, const Tensor& w) {
    DiagonalOuter<T> p;
    p.rows0 = i.rows0, p.rows1 = i.a1 ? i.rows1 : 0;
    p.count = w.n, p.stored = w.in;
    p.of = w.of.data();
    p.a0 = o.at(i.a0), p.b0 = o.at(i.b0);
    p.a1 = o.at(i.a1), p.b1 = o.at(i.b1);
    p.ld = o.ld(i.a0);
    p.accumulate = i.accumulate;
    p.elements = o.at(i.scratch);
    p.sums = reinterpret_cast<double*>(p.elements + padded(w.in));
    T* gradient = p.elements + padded(w.in) + 2 * padded(w.n);  // with theta: of w, then of b
    p.out = i.theta ? gradient : o.at(i.out);
    o.kernels.diagonal_outer(p);
    if (i.theta) descend(i.player, padded(w.n), gradient, o.at(i.theta), o.at(i.rate_scale), o.at(i.out));
    T* bias = o.bias_at(i.out);
    if (!bias) return;
    p.of_bias = true;
    p.out = i.theta ? gradient + padded(w.n) : bias;
    o.kernels.diagonal_outer(p);
    if (i.theta) descend(i.player, padded(w.n), p.out, o.bias_at(i.theta), o.bias_at(i.rate_scale), bias);
  }

  void flat_outer(const Instr& i, const Tensor& w, OuterProduct<T>& p) {
    auto term = [&](Ref h, Ref delta, int rows) {
      OuterTerm<T> t;
      if (!h) return t;
      if (w.by_rows) std::swap(h, delta);
      t.a = o.at(h), t.a_ld = o.ld(h), t.b = o.at(delta), t.b_ld = o.ld(delta), t.depth = rows;
      return t;
    };
    p.term0 = term(i.a0, i.b0, i.rows0);
    p.term1 = term(i.a1, i.b1, i.rows1);
    o.kernels.outer(p);
  }

  void window_outer(const Instr& i, const Tensor& w, const OuterProduct<T>& update) {
    const Window &window = o.layout.windows[i.window].forward,
                 &of_b = w.by_rows ? o.layout.windows[i.window].back : window;
    const WindowShape of_b_shape = shape_of(of_b);
    const int64_t in_ld = o.layout.site_ld(window.in_sites, w.k), out_ld = o.layout.site_ld(window.out_sites, w.n);
    WindowOuter<T> p;
    p.window = shape_of(window);
    p.update = update;
    p.out_tap = w.by_rows ? w.k : int64_t{w.k} * kLanes;
    if (narrow(update.rows) && of_b.uniform()) p.of_b = &of_b_shape;
    auto term = [&](const Ref& h, const Ref& delta, int samples) {
      WindowOuterTerm<T> t;
      if (!h) return t;
      t.a = o.at(h), t.a_sample = o.ld(h), t.a_ld = in_ld, t.a_site = window.pair_in.data();
      t.b = o.at(delta), t.b_sample = o.ld(delta), t.b_ld = out_ld, t.b_site = window.pair_out.data();
      t.samples = samples;
      if (w.by_rows) {
        std::swap(t.a, t.b), std::swap(t.a_sample, t.b_sample), std::swap(t.a_ld, t.b_ld);
        std::swap(t.a_site, t.b_site);
      }
      return t;
    };
    p.term0 = term(i.a0, i.b0, i.rows0);
    p.term1 = term(i.a1, i.b1, i.rows1);
    (w.by_rows && w.k % kLanes != 0 ? o.kernels.window_outer_few : o.kernels.window_outer)(p);
  }

  void bias_gradient(const Instr& i, const Tensor& w, T* out) {
    const Ref& delta = i.b0;
    if (i.window < 0 || w.bias_sites > 1)
      return o.kernels.column_sum(o.at(delta), i.rows0, o.ld(delta), out, i.accumulate);
    const int sites = o.layout.windows[i.window].forward.out_sites;
    const int64_t between = o.layout.site_ld(sites, w.n);
    if (sites == 1 || between % kLanes == 0)
      return o.kernels.column_sum(o.at(delta), i.rows0 * sites, sites == 1 ? o.ld(delta) : between, out, i.accumulate);
    T sums[kNarrow] = {};
    if (kLanes % between == 0) {  // lanes of whole vectors, whose padding is zero
      alignas(64) T lanes[kLanes];
      o.kernels.column_sum(o.at(delta), i.rows0 * o.ld(delta) / kLanes, kLanes, lanes, false);
      for (int n = 0; n < kLanes; ++n) sums[n % between] += lanes[n];
    } else {
      sum_sites(o.at(delta), {w.n, sites, static_cast<int>(between)}, i.rows0, o.ld(delta), sums);
    }
    for (int n = 0; n < kLanes; ++n) out[n] = (i.accumulate ? out[n] : T{0}) + (n < w.n ? sums[n] : T{0});
  }

  // What a fused update of plain SGD does, for a gradient in memory.
  void descend(Player player, int64_t n, const T* gradient, const T* theta, const T* scale, T* out) {
    Update<T> u;
    double norm2 = 0;
    u.n = n;
    u.rate = o.rate(player);
    u.gradient = gradient;
    u.theta = theta;
    u.scale = scale;
    u.theta_out = out;
    u.norm2 = &norm2;
    o.kernels.update(u);
    GradientSums<T>& sums = o.sums[index(player)];
    sums.squares[0] += norm2;
    if (!finite(o.kernels, out, n)) sums.spoilt[0] = std::numeric_limits<T>::quiet_NaN();
  }

  Operands<T>& o;
};

}  // namespace pymgan::cpu
