// Standard normals from a counter: Philox4x32-10 (Salmon et al., 2011), then Box-Muller.
//
//   block b = i / 4:  (w0, w1, w2, w3) = philox(counter = (b, step & 2^32-1, step >> 32 xor stream << 16, task &
//   2^32-1),
//                                               key = (seed & 2^32-1, (seed >> 32) + (task >> 32) mod 2^32))
//   u(w) = ((w >> 9) + 0.5) * 2^-23                    exact in float: 2^-24 <= u <= 1 - 2^-24
//   r = sqrt(-2 log u(w0)), a = 2 pi u(w1):            normals 4b, 4b+1 = r cos a, r sin a
//   r = sqrt(-2 log u(w2)), a = 2 pi u(w3):            normals 4b+2, 4b+3 = r cos a, r sin a
#pragma once

#include "simd_math.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

inline constexpr int kBlocks = 16;  // counter blocks at once

struct Words {
  uint32_t w[4][kBlocks];
};

// The words of blocks first .. first + 15.
inline void philox(const NoiseKey& key, uint32_t first, Words& out) {
  uint32_t c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks];
  for (int l = 0; l < kBlocks; ++l) {
    c0[l] = first + static_cast<uint32_t>(l);
    c1[l] = static_cast<uint32_t>(key.step);
    c2[l] = static_cast<uint32_t>(key.step >> 32) ^ (key.stream << 16);
    c3[l] = static_cast<uint32_t>(key.task);
  }
  uint32_t k0 = static_cast<uint32_t>(key.seed);
  uint32_t k1 = static_cast<uint32_t>(key.seed >> 32) + static_cast<uint32_t>(key.task >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int l = 0; l < kBlocks; ++l) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0[l], p1 = uint64_t{0xCD9E8D57u} * c2[l];
      c0[l] = static_cast<uint32_t>(p1 >> 32) ^ c1[l] ^ k0;
      c1[l] = static_cast<uint32_t>(p1);
      c2[l] = static_cast<uint32_t>(p0 >> 32) ^ c3[l] ^ k1;
      c3[l] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int l = 0; l < kBlocks; ++l) {
    out.w[0][l] = c0[l];
    out.w[1][l] = c1[l];
    out.w[2][l] = c2[l];
    out.w[3][l] = c3[l];
  }
}

template <class T>
PYMGAN_INLINE Vec<T> uniform(const uint32_t* words) {
  T u[Vec<T>::kWidth];
  for (int l = 0; l < Vec<T>::kWidth; ++l)
    u[l] = (static_cast<T>(static_cast<int32_t>(words[l] >> 9)) + T(0.5)) * T(1.1920928955078125e-07);
  return Vec<T>::load(u);
}

// out[4 i + j] = x[j][i] for the kBlocks blocks i
PYMGAN_INLINE void interleave(const double (&x)[4][kBlocks], double* out) {
  for (int i = 0; i < kBlocks; ++i)
    for (int j = 0; j < 4; ++j) out[4 * i + j] = x[j][i];
}
PYMGAN_INLINE void interleave(const float (&x)[4][kBlocks], float* out) {
#if defined(__SSE2__)
  for (int i = 0; i < kBlocks; i += 4) {
    __m128 a = _mm_loadu_ps(x[0] + i), b = _mm_loadu_ps(x[1] + i), c = _mm_loadu_ps(x[2] + i),
           d = _mm_loadu_ps(x[3] + i);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(out + 4 * i, a);
    _mm_storeu_ps(out + 4 * i + 4, b);
    _mm_storeu_ps(out + 4 * i + 8, c);
    _mm_storeu_ps(out + 4 * i + 12, d);
  }
#else
  for (int i = 0; i < kBlocks; ++i)
    for (int j = 0; j < 4; ++j) out[4 * i + j] = x[j][i];
#endif
}

// 64 normals in order.
template <class T>
void normals(const NoiseKey& key, uint32_t first_block, T* out) {
  Words words;
  philox(key, first_block, words);
  T x[4][kBlocks];
  for (int pair = 0; pair < 4; pair += 2)
    for (int l = 0; l < kBlocks; l += Vec<T>::kWidth) {
      const Vec<T> r = sqrt(Vec<T>(-2.0) * log(uniform<T>(words.w[pair] + l)));
      const SinCos<T> a = sincos_turns(uniform<T>(words.w[pair + 1] + l));
      (r * a.cos).store(x[pair] + l);
      (r * a.sin).store(x[pair + 1] + l);
    }
  interleave(x, out);
}

template <class T>
void noise(const NoiseKey& key, int rows, int columns, int64_t ld, T* out) {
  constexpr int kChunk = 4 * kBlocks;
  T chunk[kChunk];
  int used = kChunk;
  uint32_t block = 0;
  for (int m = 0; m < rows; ++m, out += ld) {
    for (int n = 0; n < columns;) {
      if (used == kChunk) {
        normals(key, block, chunk);
        block += kBlocks;
        used = 0;
      }
      const int count = columns - n < kChunk - used ? columns - n : kChunk - used;
      for (int i = 0; i < count; ++i) out[n + i] = chunk[used + i];
      n += count;
      used += count;
    }
    for (int64_t n = columns; n < ld; ++n) out[n] = 0;
  }
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
