// The sum of squares, and with it whether values are finite.
#pragma once

#include <cmath>

#include "kernels.h"

namespace pymgan::cpu {

template <class T>
double squares(const Kernels<T>& kernels, const T* values, int64_t n) {
  double norm2 = 0;
  Update<T> u;
  u.n = n;
  u.gradient = values;
  u.norm2 = &norm2;
  kernels.update(u);
  return norm2;
}

template <class T>
bool finite(const Kernels<T>& kernels, const T* values, int64_t n) {
  return std::isfinite(squares(kernels, values, n));
}

}  // namespace pymgan::cpu
