#include <algorithm>
#include <cmath>

#include "engine.h"
#include "threads.h"

namespace pymgan::cpu {
namespace {

template <class T>
double distance_of(const T* x, const T* y, int features, double epsilon) {
  // Eight partial sums in a fixed order; differences in T, as the samples are.
  T sums[8] = {};
  int i = 0;
  for (; i + 8 <= features; i += 8)
    for (int l = 0; l < 8; ++l) {
      const T d = x[i + l] - y[i + l];
      sums[l] += d * d;
    }
  for (int l = 0; i < features; ++i, ++l) {
    const T d = x[i] - y[i];
    sums[l] += d * d;
  }
  double sum = 0;
  for (T s : sums) sum += static_cast<double>(s);
  return std::sqrt(sum + epsilon);
}

}  // namespace

template <class T>
void distance(const DistanceCall<T>& call) {
  const int n = call.a_count, m = call.b_count, f = call.features;
  const double across = 2.0 / (double(n) * m);
  const double within_a = n > 1 ? 2.0 / (double(n) * (n - 1)) : 0.0;  // each pair once
  const double within_b = m > 1 ? 2.0 / (double(m) * (m - 1)) : 0.0;
  parallel_for(call.tasks, call.threads, [&](int64_t t, int) {
    const T* a = call.a + t * n * f;
    const T* b = call.b + t * m * f;
    T* cotangent = call.cotangent + t * n * f;
    std::fill_n(cotangent, int64_t{n} * f, T{0});
    double value = 0;
    for (int i = 0; i < n; ++i) {
      const T* x = a + int64_t{i} * f;
      T* dx = cotangent + int64_t{i} * f;
      for (int j = 0; j < m; ++j) {
        const T* y = b + int64_t{j} * f;
        const double d = distance_of(x, y, f, call.epsilon);
        value += across * d;
        const T weight = static_cast<T>(across / d);
        for (int l = 0; l < f; ++l) dx[l] += weight * (x[l] - y[l]);
      }
      for (int j = i + 1; j < n; ++j) {
        const T* y = a + int64_t{j} * f;
        T* dy = cotangent + int64_t{j} * f;
        const double d = distance_of(x, y, f, call.epsilon);
        value -= within_a * d;
        const T weight = static_cast<T>(within_a / d);
        for (int l = 0; l < f; ++l) {
          const T pull = weight * (x[l] - y[l]);
          dx[l] -= pull;
          dy[l] += pull;
        }
      }
    }
    for (int i = 0; i < m; ++i)
      for (int j = i + 1; j < m; ++j)
        value -= within_b * distance_of(b + int64_t{i} * f, b + int64_t{j} * f, f, call.epsilon);
    call.value[t] = value;
  });
}

template void distance(const DistanceCall<float>&);
template void distance(const DistanceCall<double>&);

}  // namespace pymgan::cpu
