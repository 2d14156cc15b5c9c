// Standard normals from a counter, the numbers of csrc/cpu/kernels_noise.h.
#pragma once

#include <cmath>

#include "task.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

struct Words {
  uint32_t w[4];
};

PYMGAN_DEVICE Words philox(const NoiseKey& key, uint32_t block) {
  uint32_t c0 = block, c1 = static_cast<uint32_t>(key.step),
           c2 = static_cast<uint32_t>(key.step >> 32) ^ (key.stream << 16), c3 = static_cast<uint32_t>(key.task);
  uint32_t k0 = static_cast<uint32_t>(key.seed);
  uint32_t k1 = static_cast<uint32_t>(key.seed >> 32) + static_cast<uint32_t>(key.task >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{c0} * 0xD2511F53u, p1 = uint64_t{c2} * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

template <class T>
PYMGAN_DEVICE T uniform(uint32_t word) {
  return (static_cast<T>(static_cast<int32_t>(word >> 9)) + T(0.5)) * T(1.1920928955078125e-07);
}

// Number i of a key.
template <class T>
PYMGAN_DEVICE T normal(const NoiseKey& key, int i) {
  const Words words = philox(key, static_cast<uint32_t>(i / 4));
  const int pair = i % 4 / 2 * 2;
  const T turns = uniform<T>(words.w[pair + 1]);
#ifdef __CUDACC__
  T sine, cosine;
  if constexpr (sizeof(T) == 4)
    sincospif(2 * turns, &sine, &cosine);
  else
    sincospi(2 * turns, &sine, &cosine);
#else
  const double angle = 6.283185307179586 * turns;
  const T sine = static_cast<T>(std::sin(angle)), cosine = static_cast<T>(std::cos(angle));
#endif
  const T length = std::sqrt(T(-2) * std::log(uniform<T>(words.w[pair])));
  return length * (i % 2 ? sine : cosine);
}

// Where it lies in its distribution: a uniform number, in double, so that rounding never makes another choice.
PYMGAN_DEVICE double uniform_of(const NoiseKey& key, int i) {
  return 0.5 * erfc(-normal<double>(key, i) * 0.70710678118654752440);
}

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
