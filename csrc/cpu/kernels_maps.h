// Element by element and map by map: layers whose outputs are not products of a weight with all inputs.
#pragma once

#include "kernels_epilogue.h"
#include "kernels_vector.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

template <class T>
void add_scaled(const T* x, T factor, int count, T* out) {
  const Vec<T> f(factor);
  for_vectors<T>(count,
                 [&](auto load, auto store) __attribute__((always_inline)) { store(fma(f, load(x), load(out)), out); });
}

template <class T>
void add_same(T x, int count, T* out) {
  const Vec<T> all(x);
  for_vectors<T>(count, [&](auto load, auto store) __attribute__((always_inline)) { store(all + load(out), out); });
}

template <class T>
T sum_of(const T* x, int count) {
  constexpr int kTogether = 4;
  Vec<T> total[kTogether] = {Vec<T>(0.0), Vec<T>(0.0), Vec<T>(0.0), Vec<T>(0.0)};
  int i = 0;
  for (; i + kTogether * Vec<T>::kWidth <= count; i += kTogether * Vec<T>::kWidth)
    for (int j = 0; j < kTogether; ++j) total[j] = total[j] + Vec<T>::load(x + i + j * Vec<T>::kWidth);
  for (; i + Vec<T>::kWidth <= count; i += Vec<T>::kWidth) total[0] = total[0] + Vec<T>::load(x + i);
  if (i < count) total[1] = total[1] + Vec<T>::load_part(x + i, count - i);
  return sum((total[0] + total[1]) + (total[2] + total[3]));
}

template <class T>
void fixed_map(const FixedProduct<T>& p) {
  using Kind = FixedBlock::Kind;
  for (int m = 0; m < p.rows; ++m) {
    const T* x = p.x + m * p.x_ld;
    T* out = p.out + m * p.out_ld;
    for (int64_t n = 0; n < p.out_ld; n += Vec<T>::kWidth) Vec<T>(0.0).store(out + n);
    for (int b = 0; b < p.block_count; ++b) {
      const FixedBlock& block = p.blocks[b];
      const T factor = static_cast<T>(block.factor);
      const T* from = x + block.from;
      T* to = out + block.to;
      if (block.count == 1)
        *to += factor * *from;
      else if (block.kind == Kind::copy)
        add_scaled(from, factor, block.count, to);
      else if (block.kind == Kind::spread)
        add_same(factor * *from, block.count, to);
      else
        *to += factor * sum_of(from, block.count);
    }
  }
}

template <class T>
void diagonal(const DiagonalProduct<T>& p) {
  const int64_t ld = p.epilogue.ld;
  // The numbers of every element: [w of term 0][w of term 1][b]
  for (int64_t n = 0; n < ld; ++n) {
    const int32_t of = n < p.elements ? p.of[n] : -1;
    p.scratch[n] = of >= 0 && p.a0 ? p.w0[of] : T{0};
    p.scratch[ld + n] = of >= 0 && p.a1 ? p.w1[of] : T{0};
    p.scratch[2 * ld + n] = of >= 0 && p.bias ? p.bias[of] : T{0};
  }
  const T *w0 = p.scratch, *w1 = w0 + ld, *bias = w1 + ld;
  const ApplyBlock<T> apply = apply_of(p.epilogue);
  alignas(64) T strip[kStrip];
  for (int m = 0; m < p.rows; ++m) {
    const Vec<T> scale(p.scale ? p.scale[m] : T{1});
    Vec<T> along(0.0);
    for (int64_t first = 0; first < ld; first += kStrip) {
      const int64_t at = m * ld + first, count = ld - first < kStrip ? ld - first : kStrip;
      for (int64_t n = 0; n < count; n += Vec<T>::kWidth) {
        Vec<T> y(0.0);
        if (p.a0) {
          y = Vec<T>::load(w0 + first + n) * Vec<T>::load(p.a0 + at + n);
          if (p.bias) y = y + Vec<T>::load(bias + first + n);
          if (p.dot) along = fma(Vec<T>::load(p.dot + at + n), y, along);
          if (p.scale) y = scale * y;
        }
        if (p.a1) y = y + Vec<T>::load(w1 + first + n) * Vec<T>::load(p.a1 + at + n);
        y.store(strip + n);
      }
      apply(p.epilogue, {strip, kStrip, nullptr, at, 1, count});
    }
    if (p.dot) {
      T* lanes = p.dot_out + m * kLanes;
      (Vec<T>::load(lanes) + along).store(lanes);
    }
  }
}

template <class T>
void diagonal_outer(const DiagonalOuter<T>& p) {
  for (int64_t n = 0; n < p.ld; n += Vec<T>::kWidth) {
    Vec<T> total(0.0), bias(0.0);
    for (int m = 0; m < p.rows0; ++m) {
      const Vec<T> b = Vec<T>::load(p.b0 + m * p.ld + n);
      total = fma(b, Vec<T>::load(p.a0 + m * p.ld + n), total);
      bias = bias + b;
    }
    for (int m = 0; m < p.rows1; ++m)
      total = fma(Vec<T>::load(p.b1 + m * p.ld + n), Vec<T>::load(p.a1 + m * p.ld + n), total);
    (p.of_bias ? bias : total).store(p.elements + n);
  }
  for (int i = 0; i < p.count; ++i) p.sums[i] = 0;
  for (int64_t n = 0; n < p.stored; ++n)
    if (p.of[n] >= 0) p.sums[p.of[n]] += p.elements[n];
  for (int64_t i = 0; i < padded(p.count); ++i) {
    const T own = i < p.count ? static_cast<T>(p.sums[i]) : T{0};
    p.out[i] = p.accumulate ? p.out[i] + own : own;
  }
}

template <class T>
void softmax(const Softmax<T>& p) {
  for (int m = 0; m < p.rows; ++m) {
    const T* x = p.x + m * p.ld;
    T* out = p.out + m * p.ld;
    for (int g = 0; g < p.groups; ++g) p.most[g] = -static_cast<T>(__builtin_inf()), p.sums[g] = 0;
    for (int n = 0; n < p.elements; ++n)
      if (const int32_t of = p.of[n]; of >= 0 && !(x[n] <= p.most[of])) p.most[of] = x[n];  // NaN stays
    for (int n = 0; n < p.elements; ++n) out[n] = p.of[n] >= 0 ? x[n] - p.most[p.of[n]] : T{0};
    for (int64_t n = p.elements; n < p.ld; ++n) out[n] = 0;
    for (int64_t n = 0; n < p.ld; n += Vec<T>::kWidth) exp(Vec<T>::load(out + n)).store(out + n);
    for (int n = 0; n < p.elements; ++n)
      if (p.of[n] >= 0) p.sums[p.of[n]] += out[n];
    for (int64_t n = 0; n < p.ld; ++n) out[n] = n < p.elements && p.of[n] >= 0 ? out[n] / p.sums[p.of[n]] : T{0};
  }
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
