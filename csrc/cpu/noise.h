// The counter-based normals of a key as the caller's dense rows.
#pragma once

#include <algorithm>

#include "kernels.h"

namespace pymgan::cpu {

// rows: scratch [count][padded(features)]; out [count][features].
template <class T>
void dense_noise(const Kernels<T>& kernels, const NoiseKey& key, int count, int features, T* rows, T* out) {
  const int64_t ld = padded(features);
  kernels.noise(key, count, features, ld, rows);
  for (int r = 0; r < count; ++r) std::copy_n(rows + r * ld, features, out + int64_t{r} * features);
}

}  // namespace pymgan::cpu
