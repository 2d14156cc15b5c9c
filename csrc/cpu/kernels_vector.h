// Kernels without a product: elementwise rows, loss heads, the optimiser's update and its adjoint, reductions.
// Sums run in an order that sizes alone decide; those over parameters and batches accumulate in double.
#pragma once

#include "kernels_epilogue.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

inline constexpr int kStrip = 256;  // elements in between
template <class T>
void elementwise(const Elementwise<T>& e) {
  const int64_t ld = e.epilogue.ld;
  if (!e.times && !e.plus) {
    (e.order > 0 ? derivative_of(e.epilogue, e.order) : apply_of(e.epilogue))(e.epilogue,
                                                                              {e.src, ld, e.scale, 0, e.rows, ld});
    return;
  }
  const ApplyBlock<T> apply = apply_of(e.epilogue);
  alignas(64) T row[kStrip];
  for (int m = 0; m < e.rows; ++m)
    for (int64_t first = 0; first < ld; first += kStrip) {
      const int64_t at = m * ld + first, count = ld - first < kStrip ? ld - first : kStrip;
      const Vec<T> scale(e.scale ? e.scale[m] : T{1});
      for (int64_t n = 0; n < count; n += Vec<T>::kWidth) {
        Vec<T> x = Vec<T>::load(e.src + at + n);
        if (e.times) x = x * Vec<T>::load(e.times + at + n);
        if (e.scale) x = scale * x;
        if (e.plus) x = x + Vec<T>::load(e.plus + at + n);
        x.store(row + n);
      }
      apply(e.epilogue, {row, kStrip, nullptr, at, 1, count});
    }
}

// One term of the loss over `count` rows from `begin`: its mean, and the mean's derivatives by each score.
template <class T, class Term>
double head_term(const Head<T>& h, int begin, int count, const Term& term, T* first, T* second) {
  constexpr int kWidth = Vec<T>::kWidth;
  const Vec<T> divisor(count);
  double total = 0;
  for (int i = 0; i < count; i += kWidth) {
    const int part = count - i < kWidth ? count - i : kWidth;
    T scores[kWidth] = {}, values[kWidth];
    for (int l = 0; l < part; ++l) scores[l] = h.score[(begin + i + l) * h.score_ld];
    const auto d = term(Vec<T>::load(scores), Vec<T>(h.smoothing));
    d.value.store(values);
    for (int l = 0; l < part; ++l) total += values[l];
    if (first) (d.first / divisor).store_part(first + begin + i, part);
    if (second) (d.second / divisor).store_part(second + begin + i, part);
  }
  return count ? total / count : 0;
}

template <class T>
void head_moments(const Head<T>& h, int begin, int count, T* mean_and_deviation) {
  double mean = 0, square = 0;
  for (int i = 0; i < count; ++i) mean += h.score[(begin + i) * h.score_ld];
  if (count) mean /= count;
  for (int i = 0; i < count; ++i) {
    const double d = h.score[(begin + i) * h.score_ld] - mean;
    square += d * d;
  }
  mean_and_deviation[0] = static_cast<T>(mean);
  mean_and_deviation[1] = static_cast<T>(count ? __builtin_sqrt(square / count) : 0);
}

template <class T>
void head(const Head<T>& h) {
  formulas::visit(h.loss, [&](auto l) {
    using L = decltype(l);
    const int fakes = h.fakes, reals = h.reals;
    auto g = [](Vec<T> s, Vec<T> e) { return L::g(s, e); };
    auto d_fake = [](Vec<T> s, Vec<T> e) { return L::d_fake(s, e); };
    auto d_real = [](Vec<T> s, Vec<T> e) { return L::d_real(s, e); };
    auto g_real = [](Vec<T> s, Vec<T> e) { return L::g_real(s, e); };
    const double loss_g = head_term(h, 0, fakes, g, h.c_g, h.cc_g) + head_term(h, fakes, reals, g_real, h.c_g, h.cc_g);
    const double loss_fake = head_term(h, 0, fakes, d_fake, h.c_d, h.cc_d);
    const double loss_real = head_term(h, fakes, reals, d_real, h.c_d, h.cc_d);
    if (!h.stats) return;
    h.stats[0] = static_cast<T>(loss_g);
    h.stats[1] = static_cast<T>(loss_fake + loss_real);
    head_moments(h, 0, fakes, h.stats + 2);
    head_moments(h, fakes, reals, h.stats + 4);
  });
}

template <class T>
void penalty(PenaltyHead<T>& h) {
  constexpr int kWidth = Vec<T>::kWidth;
  formulas::visit(h.kind, [&](auto p) {
    const Vec<T> share(h.weight / static_cast<T>(h.rows));
    h.value = 0;
    for (int i = 0; i < h.rows; i += kWidth) {
      const int part = h.rows - i < kWidth ? h.rows - i : kWidth;
      const auto term = p.of(Vec<T>::load_part(h.norm2 + i, part), Vec<T>(formulas::kPenaltyEpsilon));
      T values[kWidth];
      (share * term.value).store(values);
      for (int l = 0; l < part; ++l) h.value += values[l];
      if (h.c) (Vec<T>(2.0) * share * term.first).store_part(h.c + i, part);
      if (h.k) (Vec<T>(4.0) * share * term.second).store_part(h.k + i, part);
    }
  });
}

// Calls body(i, load, store) for vectors over [0, n): load(p) and store(x, p) handle the last, partial one.
template <class T, class Body>
PYMGAN_INLINE void for_vectors(int64_t n, const Body& body) {
  constexpr int kWidth = Vec<T>::kWidth;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth)
    body([&](const T* p) __attribute__((always_inline)) { return Vec<T>::load(p + i); },
         [&](Vec<T> x, T* p) __attribute__((always_inline)) { x.store(p + i); });
  if (const int rest = static_cast<int>(n - i); rest > 0)
    body([&](const T* p) __attribute__((always_inline)) { return Vec<T>::load_part(p + i, rest); },
         [&](Vec<T> x, T* p) __attribute__((always_inline)) { x.store_part(p + i, rest); });
}

// <x, scale y> in double; scale may be null.
template <class T>
double inner_product(int64_t n, const T* x, const T* y, const T* scale) {
  Vec<double> products[2] = {Vec<double>(0.0), Vec<double>(0.0)};
  for_vectors<T>(n, [&](auto load, auto) __attribute__((always_inline)) {
    add_products(load(x), scale ? load(scale) * load(y) : load(y), products);
  });
  return sum(products[0] + products[1]);
}

template <class T>
formulas::Knobs<Vec<T>> broadcast(const formulas::Knobs<T>& k) {
  return {k.momentum, k.beta1, k.beta2, k.rest1, k.rest2, k.bias1, k.bias2, k.eps, k.past, k.norm, k.along};
}

// The whole gradient's norm, which `normalised` divides by.
template <class T>
double norm_of(int64_t n, const T* gradient, T eps) {
  return __builtin_sqrt(inner_product<T>(n, gradient, gradient, nullptr) + eps);
}

// Of the moments that a kind has; the others are not touched. Null: zero.
template <class O, class T, class Load>
PYMGAN_INLINE formulas::Moments<Vec<T>> load_moments(const T* const (&moment)[kMostMoments], const Load& load) {
  formulas::Moments<Vec<T>> m{Vec<T>(0.0), Vec<T>(0.0)};
  if constexpr (O::kMoments > 0)
    if (moment[0]) m.first = load(moment[0]);
  if constexpr (O::kMoments > 1)
    if (moment[1]) m.second = load(moment[1]);
  return m;
}
template <class O, class T, class Store>
PYMGAN_INLINE void store_moments(const formulas::Moments<Vec<T>>& m, T* const (&moment)[kMostMoments],
                                 const Store& store) {
  if constexpr (O::kMoments > 0)
    if (moment[0]) store(m.first, moment[0]);
  if constexpr (O::kMoments > 1)
    if (moment[1]) store(m.second, moment[1]);
}

template <class T>
void update(const Update<T>& u) {
  formulas::visit(u.kind, [&](auto optimiser) {
    using O = decltype(optimiser);
    formulas::Knobs<Vec<T>> knobs = broadcast(u.knobs);
    if (u.kind == Optimiser::normalised) knobs.norm = Vec<T>(norm_of(u.n, u.gradient, u.knobs.eps));
    const Vec<T> rate(u.rate);
    Vec<double> squares[2] = {Vec<double>(0.0), Vec<double>(0.0)};
    for_vectors<T>(u.n, [&](auto load, auto store) __attribute__((always_inline)) {
      const Vec<T> gradient = load(u.gradient);
      if (u.norm2) add_products(gradient, gradient, squares);
      if (!u.theta_out) return;
      const auto moved = O::move(gradient, load_moments<O, T>(u.moment, load), knobs);
      store_moments<O, T>(moved.moments, u.moment_out, store);
      const Vec<T> scaled = u.scale ? rate * load(u.scale) : rate;
      store(load(u.theta) - scaled * moved.direction, u.theta_out);
    });
    if (u.norm2) *u.norm2 = sum(squares[0] + squares[1]);
  });
}

template <class T>
void update_adjoint(const UpdateAdjoint<T>& u) {
  formulas::visit(u.kind, [&](auto optimiser) {
    using O = decltype(optimiser);
    formulas::Knobs<Vec<T>> knobs = broadcast(u.knobs);
    if (u.kind == Optimiser::normalised) {
      const double norm = norm_of(u.n, u.gradient, u.knobs.eps);
      knobs.norm = Vec<T>(norm);
      knobs.along = Vec<T>(-u.rate * inner_product(u.n, u.gradient, u.v, u.scale) / norm);
    }
    const Vec<T> rate(u.rate), zero(0.0);
    Vec<double> products[2] = {Vec<double>(0.0), Vec<double>(0.0)};
    for_vectors<T>(u.n, [&](auto load, auto store) __attribute__((always_inline)) {
      const Vec<T> v = load(u.v), scale = u.scale ? load(u.scale) : Vec<T>(1.0);
      const Vec<T> scaled = scale * v, gradient = u.gradient ? load(u.gradient) : zero;
      const auto moments = load_moments<O, T>(u.moment, load);
      const T* const v_moment[] = {u.v_moment[0], u.v_moment[1]};
      auto pulled = O::adjoint(gradient, moments, -(rate * scaled), load_moments<O, T>(v_moment, load), knobs);
      if (u.first) pulled.v = {zero, zero};
      store_moments<O, T>(pulled.v, u.v_moment, store);
      if (u.w) store(pulled.w, u.w);
      if (!u.d_rate && !u.d_scale) return;
      const Vec<T> direction = O::move(gradient, moments, knobs).direction;
      if (u.d_rate) add_products(scaled, direction, products);
      if (u.d_scale) store(load(u.d_scale) - rate * direction * v, u.d_scale);
    });
    if (u.d_rate) *u.d_rate -= sum(products[0] + products[1]);
  });
}

template <class T>
void row_dot(const T* x, const T* y, int rows, int64_t ld, T* out, bool accumulate) {
  constexpr int kTogether = 4;
  for (int m = 0; m < rows; m += kTogether) {
    Vec<T> total[kTogether];
    for (int i = 0; i < kTogether; ++i) {
      const int64_t row = (m + i < rows ? m + i : rows - 1) * ld;
      total[i] = Vec<T>(0.0);
      for (int64_t n = row; n < row + ld; n += Vec<T>::kWidth)
        total[i] = y ? fma(Vec<T>::load(x + n), Vec<T>::load(y + n), total[i]) : total[i] + Vec<T>::load(x + n);
    }
    T sums[kTogether];
    sum_four(total, sums);
    for (int i = 0; i < kTogether && m + i < rows; ++i) out[m + i] = (accumulate ? out[m + i] : T{0}) + sums[i];
  }
}

template <class T>
void column_sum(const T* x, int rows, int64_t ld, T* out, bool accumulate) {
  constexpr int kWidth = Vec<T>::kWidth, kTogether = 4;  // columns at once, which hide the latency of an addition
  auto sums = [&](int64_t n, auto together) __attribute__((always_inline)) {
    constexpr int kCount = decltype(together)::value;
    Vec<T> total[kCount];
    for (int c = 0; c < kCount; ++c) total[c] = accumulate ? Vec<T>::load(out + n + c * kWidth) : Vec<T>(0.0);
    const T* row = x + n;
    for (int m = 0; m < rows; ++m, row += ld)
      for (int c = 0; c < kCount; ++c) total[c] = total[c] + Vec<T>::load(row + c * kWidth);
    for (int c = 0; c < kCount; ++c) total[c].store(out + n + c * kWidth);
  };
  int64_t n = 0;
  for (; n + kTogether * kWidth <= ld; n += kTogether * kWidth) sums(n, Index<kTogether>{});
  for (; n < ld; n += kWidth) sums(n, Index<1>{});
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
