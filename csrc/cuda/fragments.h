// A warp's tile of a matrix product, accumulated over any depth with tensor cores.
//
// Float32 operands are split in two TF32 numbers, x = high + low, and low high + high low + high high is accumulated in
// float32: three products, an error like that of float32 (CUTLASS calls it 3xTF32). With `fast` there is one.
// The tile's elements are spread over the lanes as mma.m16n8k8 has them; each() gives every one its row and column, so
// nobody else knows. On the host the same numbers are computed one after the other.
#pragma once

#include <cstdint>
#include <cstring>

#include "block.h"

namespace pymgan::cuda {

inline constexpr int kTileRows = 16, kTileColumns = 32;

#ifdef __CUDACC__

struct Split {
  uint32_t high, low;
};

__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ Split split(float x) {
  const uint32_t high = to_tf32(x);
  return {high, to_tf32(x - __uint_as_float(high))};
}
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

class Tile {
 public:
  // += A B, a(row, p) of A [16][depth] and b(p, column) of B [depth][32]; both are asked for within the depth only, and
  // give 0 outside of their matrix.
  template <class A, class B>
  __device__ __forceinline__ void multiply(int depth, bool fast, A a, B b) {
    const int lane = threadIdx.x % kWarp, group = lane / 4, in_group = lane % 4;
    for (int p = 0; p < depth; p += 8) {
      const int p0 = p + in_group, p1 = p0 + 4;
      const float of_a[4] = {p0 < depth ? a(group, p0) : 0.f, p0 < depth ? a(group + 8, p0) : 0.f,
                             p1 < depth ? a(group, p1) : 0.f, p1 < depth ? a(group + 8, p1) : 0.f};
      uint32_t a_high[4], a_low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Split s = split(of_a[i]);
        a_high[i] = s.high, a_low[i] = s.low;
      }
#pragma unroll
      for (int n = 0; n < kTileColumns / 8; ++n) {
        const int column = n * 8 + group;
        const Split b0 = split(p0 < depth ? b(p0, column) : 0.f), b1 = split(p1 < depth ? b(p1, column) : 0.f);
        const uint32_t b_high[2] = {b0.high, b1.high}, b_low[2] = {b0.low, b1.low};
        if (!fast) {
          mma(c_[n], a_low, b_high);
          mma(c_[n], a_high, b_low);
        }
        mma(c_[n], a_high, b_high);
      }
    }
  }

  // f(row, column, value&) for every element.
  template <class F>
  __device__ __forceinline__ void each(F f) {
    const int lane = threadIdx.x % kWarp, group = lane / 4, in_group = lane % 4;
#pragma unroll
    for (int n = 0; n < kTileColumns / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) f(group + i / 2 * 8, n * 8 + in_group * 2 + i % 2, c_[n][i]);
  }

  // put(row, the sum of f(row, column, value) over its columns) for every row.
  template <class F, class Put>
  __device__ __forceinline__ void row_sums(F f, Put put) {
    float sums[2] = {0, 0};
    each([&](int row, int column, float value) { sums[row / 8] += f(row, column, value); });
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 1);
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 2);
      if (lane % 4 == 0) put(lane / 4 + i * 8, sums[i]);
    }
  }

 private:
  float c_[kTileColumns / 8][4] = {};
};

#else

// Round to nearest, ties away: what cvt.rna does.
inline float to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&x, &bits, 4);
  return x;
}

class Tile {
 public:
  template <class A, class B>
  void multiply(int depth, bool fast, A a, B b) {
    for (int p = 0; p < depth; p += 8) {
      const int some = depth - p < 8 ? depth - p : 8;
      float a_high[8][kTileRows], a_low[8][kTileRows], b_high[8][kTileColumns], b_low[8][kTileColumns];
      for (int i = 0; i < some; ++i) {
        for (int row = 0; row < kTileRows; ++row) {
          const float x = a(row, p + i);
          a_high[i][row] = to_tf32(x), a_low[i][row] = to_tf32(x - a_high[i][row]);
        }
        for (int column = 0; column < kTileColumns; ++column) {
          const float x = b(p + i, column);
          b_high[i][column] = to_tf32(x), b_low[i][column] = to_tf32(x - b_high[i][column]);
        }
      }
      auto accumulate = [&](const float (&x)[8][kTileRows], const float (&y)[8][kTileColumns]) {
        for (int row = 0; row < kTileRows; ++row)
          for (int column = 0; column < kTileColumns; ++column) {
            float sum = 0;
            for (int i = 0; i < some; ++i) sum += x[i][row] * y[i][column];
            c_[row][column] += sum;
          }
      };
      if (!fast) accumulate(a_low, b_high), accumulate(a_high, b_low);
      accumulate(a_high, b_high);
    }
  }

  template <class F>
  void each(F f) {
    for (int row = 0; row < kTileRows; ++row)
      for (int column = 0; column < kTileColumns; ++column) f(row, column, c_[row][column]);
  }

  template <class F, class Put>
  void row_sums(F f, Put put) {
    for (int row = 0; row < kTileRows; ++row) {
      float sum = 0;
      for (int column = 0; column < kTileColumns; ++column) sum += f(row, column, c_[row][column]);
      put(row, sum);
    }
  }

 private:
  float c_[kTileRows][kTileColumns] = {};
};

#endif

}  // namespace pymgan::cuda
