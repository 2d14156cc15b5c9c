// Kernels without a product: elementwise rows, loss heads, the optimiser's update and its adjoint, reductions.
// Sums run in an order that sizes alone decide; those over parameters and batches accumulate in double.
#pragma once

#include "kernels_epilogue.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

template <class T>
void elementwise(const Elementwise<T>& e) {
  apply_of(e.epilogue)(e.epilogue, {e.src, e.epilogue.ld, e.scale, 0, e.rows, e.epilogue.ld});
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
    const double loss_g = head_term(h, 0, fakes, g, h.c_g, h.cc_g);
    const double loss_fake = head_term(h, 0, fakes, d_fake, h.c_d, h.cc_d);
    const double loss_real = head_term(h, fakes, reals, d_real, h.c_d, h.cc_d);
    for (T* out : {h.c_g, h.cc_g})
      for (int i = 0; out && i < reals; ++i) out[fakes + i] = 0;
    if (!h.stats) return;
    h.stats[0] = static_cast<T>(loss_g);
    h.stats[1] = static_cast<T>(loss_fake + loss_real);
    head_moments(h, 0, fakes, h.stats + 2);
    head_moments(h, fakes, reals, h.stats + 4);
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

template <class T>
void update(const Update<T>& u) {
  const Vec<T> rate(u.rate), momentum(u.momentum);
  Vec<double> squares[2] = {Vec<double>(0.0), Vec<double>(0.0)};
  for_vectors<T>(u.n, [&](auto load, auto store) __attribute__((always_inline)) {
    const Vec<T> gradient = load(u.gradient);
    if (u.norm2) add_products(gradient, gradient, squares);
    Vec<T> step = gradient;
    if (u.moment) {
      step = fma(momentum, load(u.moment), gradient);
      store(step, u.moment);
    }
    if (!u.theta_out) return;
    const Vec<T> scaled = u.scale ? rate * load(u.scale) : rate;
    store(load(u.theta) - scaled * step, u.theta_out);
  });
  if (u.norm2) *u.norm2 = sum(squares[0] + squares[1]);
}

template <class T>
void update_adjoint(const UpdateAdjoint<T>& u) {
  const Vec<T> rate(u.rate), momentum(u.momentum);
  Vec<double> products[2] = {Vec<double>(0.0), Vec<double>(0.0)};
  for_vectors<T>(u.n, [&](auto load, auto store) __attribute__((always_inline)) {
    const Vec<T> v = load(u.v), scale = u.scale ? load(u.scale) : Vec<T>(1.0);
    const Vec<T> scaled = scale * v;
    Vec<T> w = -(rate * scaled);
    if (u.v_moment) {
      w = load(u.v_moment) + w;
      store(momentum * w, u.v_moment);
    }
    if (u.w) store(w, u.w);
    if (u.d_rate) add_products(scaled, load(u.moved), products);
    if (u.d_scale) store(load(u.d_scale) - rate * load(u.moved) * v, u.d_scale);
  });
  if (u.d_rate) *u.d_rate -= sum(products[0] + products[1]);
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
