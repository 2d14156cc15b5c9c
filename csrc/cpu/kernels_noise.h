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

// 32-bit words in 64-bit lanes, whose upper halves hold whatever: multiply does not read them.
typedef uint64_t WideWords __attribute__((vector_size(PYMGAN_VECTOR_BYTES)));

PYMGAN_INLINE WideWords multiply(WideWords a, uint32_t by) {
  const WideWords b = WideWords{} + by;
#if defined(__AVX512F__)
  return (WideWords)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (WideWords)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (WideWords)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * b;
#endif
}

// The words of blocks first .. first + 15.
inline void philox(const NoiseKey& key, uint32_t first, Words& out) {
  constexpr int kWidth = PYMGAN_VECTOR_BYTES / 8;
  for (int l = 0; l < kBlocks; l += kWidth) {
    WideWords c0, c1 = WideWords{} + key.step, c2 = WideWords{} + ((key.step >> 32) ^ (key.stream << 16)),
                  c3 = WideWords{} + key.task;
    for (int i = 0; i < kWidth; ++i) c0[i] = first + static_cast<uint32_t>(l + i);
    uint32_t k0 = static_cast<uint32_t>(key.seed);
    uint32_t k1 = static_cast<uint32_t>(key.seed >> 32) + static_cast<uint32_t>(key.task >> 32);
    for (int round = 0; round < 10; ++round) {
      const WideWords p0 = multiply(c0, 0xD2511F53u), p1 = multiply(c2, 0xCD9E8D57u);
      c0 = (p1 >> 32) ^ c1 ^ k0;
      c1 = p1;
      c2 = (p0 >> 32) ^ c3 ^ k1;
      c3 = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const WideWords words[4] = {c0, c1, c2, c3};
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < kWidth; ++i) out.w[j][l + i] = static_cast<uint32_t>(words[j][i]);
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
