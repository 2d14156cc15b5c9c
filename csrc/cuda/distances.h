// The energy distance of cpu/distance.h for one task, by one block: every sample has a warp, which makes its own part
// of the value and, of `a`, its own row of the cotangent.
#pragma once

#include <cmath>

#include "block.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

// a [n][features], b [m][features]; cotangent [n][features].
PYMGAN_DEVICE_CALL double energy_distance(Block& block, const float* a, int n, const float* b, int m, int features,
                                          double epsilon, float* cotangent) {
  const double across = 2.0 / (static_cast<double>(n) * m);
  const double within_a = n > 1 ? 1.0 / (static_cast<double>(n) * (n - 1)) : 0.0;  // each pair twice
  const double within_b = m > 1 ? 1.0 / (static_cast<double>(m) * (m - 1)) : 0.0;
  auto sample = [&](int i) { return i < n ? a + i * int64_t{features} : b + (i - n) * int64_t{features}; };
  return block.warps_sum(n + m, [&](int row) {
    const bool of_a = row < n;
    const float* x = sample(row);
    float* dx = of_a ? cotangent + row * int64_t{features} : nullptr;
    if (dx) lanes(features, [&](int i) { dx[i] = 0; });
    double own = 0;
    for (int j = of_a ? 0 : n; j < n + m; ++j) {  // pairs across are a's
      if (j == row) continue;
      const float* y = sample(j);
      const double weight = !of_a ? -within_b : j < n ? -within_a : across;
      const float squares = warp_sum(features, [&](int i) { return (x[i] - y[i]) * (x[i] - y[i]); });
      const double distance = std::sqrt(static_cast<double>(squares) + epsilon);
      own += weight * distance;
      const float pull = static_cast<float>((j < n ? 2 : 1) * weight / distance);
      if (dx) lanes(features, [&](int i) { dx[i] += pull * (x[i] - y[i]); });
    }
    return own;
  });
}

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
