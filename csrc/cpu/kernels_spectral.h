// A packed weight as one matrix, see WeightMatrix in kernels.h: what spectral norms need beside dot products.
#pragma once

#include "kernels_vector.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

// In vectors of T for a block at a time, and in double from block to block.
template <class T>
T dot(const T* x, const T* y, int64_t n) {
  constexpr int kWidth = Vec<T>::kWidth, kTogether = 4;
  constexpr int64_t kBlock = 64 * kLanes;
  double all = 0;
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t end = first + kBlock < n ? first + kBlock : n;
    Vec<T> total[kTogether] = {Vec<T>(0.0), Vec<T>(0.0), Vec<T>(0.0), Vec<T>(0.0)};
    for (int64_t i = first, turn = 0; i < end; i += kWidth, turn = (turn + 1) % kTogether)
      total[turn] = fma(Vec<T>::load(x + i), Vec<T>::load(y + i), total[turn]);
    all += sum((total[0] + total[1]) + (total[2] + total[3]));
  }
  return static_cast<T>(all);
}

template <class T>
void matrix_times(const WeightMatrix<T>& w, const T* v, T* out) {
  constexpr int kWidth = Vec<T>::kWidth;
  if (w.by_rows) {
    const int64_t ld = padded(w.k);
    for (int n = 0; n < w.n; ++n) {
      Vec<T> total(0.0);
      for (int64_t k = 0; k < ld; k += kWidth) total = fma(Vec<T>::load(w.at + n * ld + k), Vec<T>::load(v + k), total);
      out[n] = sum(total);
    }
    for (int64_t n = w.n; n < padded(w.n); ++n) out[n] = 0;
    return;
  }
  for (int64_t n = 0; n < padded(w.n); n += kWidth) {
    const T* column = w.at + n / kLanes * kLanes * w.k + n % kLanes;
    Vec<T> total[2] = {Vec<T>(0.0), Vec<T>(0.0)};
    int k = 0;
    for (; k + 2 <= w.k; k += 2)
      unroll<2>([&](auto i) __attribute__((always_inline)) {
        total[i.value] = fma(Vec<T>::load(column + (k + i.value) * kLanes), Vec<T>(v[k + i.value]), total[i.value]);
      });
    if (k < w.k) total[0] = fma(Vec<T>::load(column + k * kLanes), Vec<T>(v[k]), total[0]);
    (total[0] + total[1]).store(out + n);
  }
}

template <class T>
void transposed_matrix_times(const WeightMatrix<T>& w, const T* u, T* out) {
  constexpr int kWidth = Vec<T>::kWidth;
  if (w.by_rows) {
    const int64_t ld = padded(w.k);
    for (int64_t k = 0; k < ld; k += kWidth) {
      Vec<T> total(0.0);
      for (int n = 0; n < w.n; ++n) total = fma(Vec<T>::load(w.at + n * ld + k), Vec<T>(u[n]), total);
      total.store(out + k);
    }
    return;
  }
  for (int64_t k = 0; k < padded(w.k); ++k) out[k] = 0;
  for (int64_t n = 0; n < padded(w.n); n += kLanes)
    for (int k = 0; k < w.k; ++k) {
      const T* at = w.at + n * w.k + k * kLanes;
      Vec<T> total(0.0);
      for (int lane = 0; lane < kLanes; lane += kWidth)
        total = fma(Vec<T>::load(at + lane), Vec<T>::load(u + n + lane), total);
      out[k] += sum(total);
    }
}

template <class T>
void rank_one(const RankOne<T>& p) {
  constexpr int kWidth = Vec<T>::kWidth;
  const Vec<T> of_a(p.of_a), of_b(p.of_b);
  auto write = [&](int64_t at, Vec<T> uv) __attribute__((always_inline)) {
    Vec<T> y = fma(of_a, Vec<T>::load(p.a + at), uv);
    if (p.b) y = fma(of_b, Vec<T>::load(p.b + at), y);
    (p.accumulate ? y + Vec<T>::load(p.out + at) : y).store(p.out + at);
  };
  if (p.by_rows) {
    const int64_t ld = padded(p.k);
    for (int n = 0; n < p.n; ++n) {
      const Vec<T> u(p.of_uv * p.u[n]);
      for (int64_t k = 0; k < ld; k += kWidth) write(n * ld + k, u * Vec<T>::load(p.v + k));
    }
    return;
  }
  for (int64_t n = 0; n < padded(p.n); n += kLanes)
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      const Vec<T> u = Vec<T>(p.of_uv) * Vec<T>::load(p.u + n + lane);
      for (int k = 0; k < p.k; ++k) write(n * p.k + k * kLanes + lane, u * Vec<T>(p.v[k]));
    }
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
