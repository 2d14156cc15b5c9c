// Between torch's [N][K], panels of W and panels of W^T: all are transpositions of 16 x 16 blocks.
#pragma once

#include "simd.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

// dst[j][i] = src[i][j] for 16 x 16 elements.
template <class T>
void transpose_full(const T* src, int64_t src_row, T* dst, int64_t dst_row) {
  for (int j = 0; j < kLanes; ++j)
    for (int i = 0; i < kLanes; ++i) dst[j * dst_row + i] = src[i * src_row + j];
}

#if defined(__AVX512F__)
template <>
void transpose_full(const float* src, int64_t src_row, float* dst, int64_t dst_row) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(src + i * src_row);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)  // a[i + q]: column q of every quarter, rows i to i + 3
    for (int h = 0; h < 2; ++h) {
      const __m512d x = _mm512_castps_pd(b[i + h]), y = _mm512_castps_pd(b[i + 2 + h]);
      a[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      a[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  for (int q = 0; q < 4; ++q) {
    const __m512 even_low = _mm512_shuffle_f32x4(a[q], a[4 + q], 0x88),
                 odd_low = _mm512_shuffle_f32x4(a[q], a[4 + q], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(a[8 + q], a[12 + q], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(a[8 + q], a[12 + q], 0xdd);
    _mm512_storeu_ps(dst + q * dst_row, _mm512_shuffle_f32x4(even_low, even_high, 0x88));
    _mm512_storeu_ps(dst + (4 + q) * dst_row, _mm512_shuffle_f32x4(odd_low, odd_high, 0x88));
    _mm512_storeu_ps(dst + (8 + q) * dst_row, _mm512_shuffle_f32x4(even_low, even_high, 0xdd));
    _mm512_storeu_ps(dst + (12 + q) * dst_row, _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd));
  }
}
#elif defined(__SSE2__)
template <>
void transpose_full(const float* src, int64_t src_row, float* dst, int64_t dst_row) {
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 16; j += 4) {
      const float* from = src + i * src_row + j;
      __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + src_row);
      __m128 c = _mm_loadu_ps(from + 2 * src_row), d = _mm_loadu_ps(from + 3 * src_row);
      _MM_TRANSPOSE4_PS(a, b, c, d);
      float* to = dst + j * dst_row + i;
      _mm_storeu_ps(to, a);
      _mm_storeu_ps(to + dst_row, b);
      _mm_storeu_ps(to + 2 * dst_row, c);
      _mm_storeu_ps(to + 3 * dst_row, d);
    }
}
#endif

// A block of which src has `rows` rows and `columns` columns: dst gets `columns` rows of 16, zero from `rows` on.
template <class T>
void transpose_block(const T* src, int64_t src_row, int rows, int columns, T* dst, int64_t dst_row) {
  if (rows == kLanes && columns == kLanes) return transpose_full(src, src_row, dst, dst_row);
  for (int j = 0; j < columns; ++j)
    for (int i = 0; i < kLanes; ++i) dst[j * dst_row + i] = i < rows ? src[i * src_row + j] : T{0};
}

inline int up_to_lanes(int n) { return n < kLanes ? n : kLanes; }

template <class T>
void transpose(const T* w, int n, int k, T* out) {
  // Blocks are read one after the other, as the memory's own prefetching expects: parameters are often far away.
  for (int i = 0; i < n; i += kLanes)
    for (int j = 0; j < k; j += kLanes)
      transpose_block(w + (int64_t{i} * k + int64_t{j} * kLanes), kLanes, up_to_lanes(k - j), up_to_lanes(n - i),
                      out + (int64_t{j} * n + int64_t{i} * kLanes), kLanes);
}

template <class T>
void pack(const T* w, int n, int k, T* out) {
  if (narrow(n)) {
    const int64_t ld = padded(k);
    for (int i = 0; i < n; ++i)
      for (int64_t j = 0; j < ld; ++j) out[i * ld + j] = j < k ? w[int64_t{i} * k + j] : T{0};
    return;
  }
  for (int i = 0; i < n; i += kLanes)
    for (int j = 0; j < k; j += kLanes)
      transpose_block(w + (int64_t{i} * k + j), k, up_to_lanes(n - i), up_to_lanes(k - j),
                      out + (int64_t{i} * k + int64_t{j} * kLanes), kLanes);
}

template <class T>
void unpack(const T* packed, int n, int k, T* out) {
  if (narrow(n)) {
    const int64_t ld = padded(k);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < k; ++j) out[int64_t{i} * k + j] = packed[i * ld + j];
    return;
  }
  for (int i = 0; i < n; i += kLanes)
    for (int j = 0; j < k; j += kLanes) {
      const int rows = up_to_lanes(n - i), columns = up_to_lanes(k - j);
      const T* panel = packed + (int64_t{i} * k + int64_t{j} * kLanes);
      T* to = out + (int64_t{i} * k + j);
      if (rows == kLanes && columns == kLanes) {
        transpose_full(panel, kLanes, to, k);
        continue;
      }
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) to[int64_t{r} * k + c] = panel[c * kLanes + r];
    }
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
