#include "distance.h"

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
double energy_distance(const T* a, int n, const T* b, int m, int features, double epsilon, T* cotangent) {
  const double across = 2.0 / (double(n) * m);
  const double within_a = n > 1 ? 2.0 / (double(n) * (n - 1)) : 0.0;  // each pair once
  const double within_b = m > 1 ? 2.0 / (double(m) * (m - 1)) : 0.0;
  std::fill_n(cotangent, int64_t{n} * features, T{0});
  double value = 0;
  for (int i = 0; i < n; ++i) {
    const T* x = a + int64_t{i} * features;
    T* dx = cotangent + int64_t{i} * features;
    for (int j = 0; j < m; ++j) {
      const T* y = b + int64_t{j} * features;
      const double d = distance_of(x, y, features, epsilon);
      value += across * d;
      const T weight = static_cast<T>(across / d);
      for (int l = 0; l < features; ++l) dx[l] += weight * (x[l] - y[l]);
    }
    for (int j = i + 1; j < n; ++j) {
      const T* y = a + int64_t{j} * features;
      T* dy = cotangent + int64_t{j} * features;
      const double d = distance_of(x, y, features, epsilon);
      value -= within_a * d;
      const T weight = static_cast<T>(within_a / d);
      for (int l = 0; l < features; ++l) {
        const T pull = weight * (x[l] - y[l]);
        dx[l] -= pull;
        dy[l] += pull;
      }
    }
  }
  for (int i = 0; i < m; ++i)
    for (int j = i + 1; j < m; ++j)
      value -= within_b * distance_of(b + int64_t{i} * features, b + int64_t{j} * features, features, epsilon);
  return value;
}

template <class T>
void distance(const DistanceCall<T>& call) {
  const int64_t a_size = int64_t{call.a_count} * call.features, b_size = int64_t{call.b_count} * call.features;
  parallel_for(call.tasks, call.threads, [&](int64_t t, int) {
    call.value[t] = energy_distance(call.a + t * a_size, call.a_count, call.b + t * b_size, call.b_count, call.features,
                                    call.epsilon, call.cotangent + t * a_size);
  });
}

template double energy_distance(const float*, int, const float*, int, int, double, float*);
template double energy_distance(const double*, int, const double*, int, int, double, double*);
template void distance(const DistanceCall<float>&);
template void distance(const DistanceCall<double>&);

}  // namespace pymgan::cpu
