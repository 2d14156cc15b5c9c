// A warp's tile of a matrix product, accumulated over any depth with tensor cores.
//
// Float32 operands are split in two TF32 numbers, x = high + low, and low high + high low + high high is accumulated in
// float32: three products, an error like that of float32 (CUTLASS calls it 3xTF32). Tensor cores cut off what does not
// fit into the number that they add to, so that is a fresh one for every eight of the contraction, small products
// first, and is added to the tile by an ordinary addition, which rounds to nearest. High is x rounded to nearest, so
// that low has no sign of its own and what is left out, low low, no mean; low's last bits are cut off by the
// multiplication. A NaN stays one: in low, if rounding spoilt high. In tf32 there is one product, of numbers that are
// cut off; in bf16 one of numbers rounded to 8 bits, twice as many at a time.
//
// An operand is asked for four numbers along the contraction at a time (quad), which mostly lie side by side, and for
// those of the next chunk before those of this one are used. A sum may be had in any order: of 16 numbers along the
// contraction, lane l has those from 4 (l % 4) on, in both operands. The tile's elements are spread over the lanes as
// mma.m16n8k8 has them; each() gives every one its row and column, so nobody else knows. On the host the same numbers
// are computed one after the other.
#pragma once

#include <cstdint>
#include <cstring>
#ifndef __CUDACC__
#include <stdexcept>
#endif

#include "block.h"
#include "code.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

inline constexpr int kTileRows = 16, kTileColumns = 16;  // of the smallest tile; a wide one has columns twice
inline constexpr int kChunk = 16;                        // of the contraction

struct Quad {
  float x[4] = {};
};

PYMGAN_DEVICE int within(int i, int count) { return i < count ? i : count - 1; }

// x: 16-byte aligned
PYMGAN_DEVICE Quad load_quad(const float* x) {
  Quad q;
#ifdef __CUDACC__
  const float4 all = *reinterpret_cast<const float4*>(x);
  q.x[0] = all.x, q.x[1] = all.y, q.x[2] = all.z, q.x[3] = all.w;
#else
  if (reinterpret_cast<std::uintptr_t>(x) % 16 != 0) throw std::logic_error("[cuda] a quad is not aligned");
  std::memcpy(q.x, x, sizeof(q.x));
#endif
  return q;
}

// Operands: row(i) is what a lane asks for quads, the numbers first to first + 3 of a chunk along the contraction, with
// first a multiple of 4. In a chunk that is not `kFull` they are 0 from the depth on. Rows that the matrix does not
// have are its last one: what comes of them is nobody's.

// An operand whose chunks come one after the other: each is read between begin() and end().
template <class T>
concept Streamed = requires(const T& operand) {
  operand.begin();
  operand.end();
};
template <class T>
PYMGAN_DEVICE void begin(const T& operand) {
  if constexpr (Streamed<T>) operand.begin();
}
template <class T>
PYMGAN_DEVICE void end(const T& operand) {
  if constexpr (Streamed<T>) operand.end();
}

// Rows [count][ld] of x, ld and x multiples of 4: the contraction runs along a row.
struct Along {
  const float* x;
  int ld, count, depth;

  struct Row {
    const float* x;
    int depth;
    template <bool kFull>
    PYMGAN_DEVICE Quad quad(int p) const {
      if (!kFull && p >= depth) return {};
      Quad q = load_quad(x + p);
      PYMGAN_UNROLL
      for (int j = 1; j < 4; ++j)
        if (!kFull && p + j >= depth) q.x[j] = 0;
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int first) const { return {x + within(i, count) * ld + first, depth - first}; }
};

// Rows [depth][ld] of x, of which `count` columns count: the contraction runs over rows.
struct Across {
  const float* x;
  int ld, count, depth;

  struct Row {
    const float* x;
    int ld, depth;
    template <bool kFull>
    PYMGAN_DEVICE Quad quad(int p) const {
      Quad q;
      PYMGAN_UNROLL
      for (int j = 0; j < 4; ++j)
        if (kFull || p + j < depth) q.x[j] = x[(p + j) * ld];
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int first) const { return {x + within(i, count) + first * ld, ld, depth - first}; }
};

#ifdef __CUDACC__

struct Split {
  uint32_t high, low;
};

// half: half a unit in the last place of TF32; 0: high is cut off
__device__ __forceinline__ Split split(float x, uint32_t half) {
  const uint32_t high = (__float_as_uint(x) + half) & 0xffffe000u;
  return {high, __float_as_uint(x - __uint_as_float(high))};
}
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint32_t pair_bf16(float first, float second) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
}
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// [16][8 N]
template <int N>
class Tile {
 public:
  // += A B^T with A [16][depth] and B [8 N][depth], as quads along the depth.
  template <class A, class B>
  __device__ __forceinline__ void multiply(int depth, Precision precision, const A& a, const B& b) {
    const int lane = threadIdx.x % kWarp, group = lane / 4, first = lane % 4 * 4;
    const typename A::Row rows[2] = {a.row(group, first), a.row(group + 8, first)};
    typename B::Row columns[N];
    PYMGAN_UNROLL
    for (int n = 0; n < N; ++n) columns[n] = b.row(group + 8 * n, first);
    Quad next_a[2], next_b[N];
    auto load = [&]<bool kFull>(int p) {
      PYMGAN_UNROLL
      for (int i = 0; i < 2; ++i) next_a[i] = rows[i].template quad<kFull>(p);
      begin(b);
      PYMGAN_UNROLL
      for (int n = 0; n < N; ++n) next_b[n] = columns[n].template quad<kFull>(p);
      end(b);
    };
    const uint32_t half = precision == Precision::tf32 ? 0 : 0x1000;
    PYMGAN_LOOP
    for (int p = -kChunk; p < depth; p += kChunk) {
      Quad of_a[2], of_b[N];
      PYMGAN_UNROLL
      for (int i = 0; i < 2; ++i) of_a[i] = next_a[i];
      PYMGAN_UNROLL
      for (int n = 0; n < N; ++n) of_b[n] = next_b[n];
      const int next = p + kChunk;
      if (next + kChunk <= depth) {
        load.template operator()<true>(next);
      } else if constexpr (!Streamed<B>) {
        if (next < depth) load.template operator()<false>(next);
      }
      if (p < 0) continue;
      if (precision == Precision::bf16) {
        accumulate_bf16(of_a, of_b);
        continue;
      }
      PYMGAN_UNROLL
      for (int step = 0; step < 2; ++step) {
        uint32_t a_high[4], a_low[4];
        PYMGAN_UNROLL
        for (int i = 0; i < 4; ++i) {
          const Split s = split(of_a[i % 2].x[2 * step + i / 2], half);
          a_high[i] = s.high, a_low[i] = s.low;
        }
        PYMGAN_UNROLL
        for (int n = 0; n < N; ++n) {
          const Split b0 = split(of_b[n].x[2 * step], half), b1 = split(of_b[n].x[2 * step + 1], half);
          const uint32_t b_high[2] = {b0.high, b1.high}, b_low[2] = {b0.low, b1.low};
          float part[4] = {};
          if (precision == Precision::float32) {
            mma(part, a_low, b_high);
            mma(part, a_high, b_low);
          }
          mma(part, a_high, b_high);
          PYMGAN_UNROLL
          for (int i = 0; i < 4; ++i) c_[n][i] += part[i];
        }
      }
    }
  }

  // Rows that a lane has elements of, and which they are.
  static constexpr int kRows = 2;
  static __device__ __forceinline__ int row(int r) { return threadIdx.x % kWarp / 4 + 8 * r; }

  // f(r, column, value&) for every element.
  template <class F>
  __device__ __forceinline__ void each(F f) {
    const int in_group = threadIdx.x % 4;
    PYMGAN_UNROLL
    for (int n = 0; n < N; ++n) {
      PYMGAN_UNROLL
      for (int i = 0; i < 4; ++i) f(i / 2, n * 8 + in_group * 2 + i % 2, c_[n][i]);
    }
  }

  // put(r, i, the sum of f(r, column, value) over the columns 16 i to 16 i + 15) for every row.
  template <class F, class Put>
  __device__ __forceinline__ void row_sums(F f, Put put) {
    float sums[N / 2][kRows] = {};
    each([&](int r, int column, float value) { sums[column / kTileColumns][r] += f(r, column, value); });
    PYMGAN_UNROLL
    for (int part = 0; part < N / 2; ++part) {
      PYMGAN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        float sum = sums[part][r];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (threadIdx.x % 4 == 0) put(r, part, sum);
      }
    }
  }

 private:
  __device__ __forceinline__ void accumulate_bf16(const Quad (&of_a)[2], const Quad (&of_b)[N]) {
    const uint32_t a[4] = {pair_bf16(of_a[0].x[0], of_a[0].x[1]), pair_bf16(of_a[1].x[0], of_a[1].x[1]),
                           pair_bf16(of_a[0].x[2], of_a[0].x[3]), pair_bf16(of_a[1].x[2], of_a[1].x[3])};
    PYMGAN_UNROLL
    for (int n = 0; n < N; ++n) {
      const uint32_t b[2] = {pair_bf16(of_b[n].x[0], of_b[n].x[1]), pair_bf16(of_b[n].x[2], of_b[n].x[3])};
      mma_bf16(c_[n], a, b);
    }
  }

  float c_[N][4] = {};
};

#else

// x plus `half`, then what TF32 has of it: its upper 19 bits.
inline float to_tf32(float x, uint32_t half) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + half) & 0xffffe000u;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Rounded to nearest, ties to even.
inline float to_bf16(float x) {
  if (x != x) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  std::memcpy(&x, &bits, 4);
  return x;
}

template <int N>
class Tile {
 public:
  template <class A, class B>
  void multiply(int depth, Precision precision, const A& a, const B& b) {
    constexpr int columns = 8 * N;
    float a_high[kChunk][kTileRows], a_low[kChunk][kTileRows], b_high[kChunk][columns], b_low[kChunk][columns];
    auto split = [&](const auto& operand, int i, int p, auto& high, auto& low) {
      for (int first = 0; first < kChunk; first += 4) {
        const bool full = p + kChunk <= depth;
        const auto row = operand.row(i, first);
        const Quad q = full ? row.template quad<true>(p) : row.template quad<false>(p);
        for (int j = 0; j < 4; ++j) {
          high[first + j][i] = precision == Precision::bf16
                                   ? to_bf16(q.x[j])
                                   : to_tf32(q.x[j], precision == Precision::tf32 ? 0 : 0x1000);
          low[first + j][i] = to_tf32(q.x[j] - high[first + j][i], 0);
        }
      }
    };
    for (int p = 0; p < depth; p += kChunk) {
      for (int row = 0; row < kTileRows; ++row) split(a, row, p, a_high, a_low);
      begin(b);
      for (int column = 0; column < columns; ++column) split(b, column, p, b_high, b_low);
      end(b);
      for (int step = 0; step < 2; ++step) {
        float part[kTileRows][columns] = {};
        auto accumulate = [&](const auto& x, const auto& y) {
          for (int row = 0; row < kTileRows; ++row)
            for (int column = 0; column < columns; ++column) {
              float sum = 0;
              for (int i = 0; i < 8; ++i) {
                const int k = i / 2 * 4 + 2 * step + i % 2;
                sum += x[k][row] * y[k][column];
              }
              part[row][column] += sum;
            }
        };
        if (precision == Precision::float32) accumulate(a_low, b_high), accumulate(a_high, b_low);
        accumulate(a_high, b_high);
        for (int row = 0; row < kTileRows; ++row)
          for (int column = 0; column < columns; ++column) c_[row][column] += part[row][column];
      }
    }
  }

  static constexpr int kRows = kTileRows;
  static int row(int r) { return r; }

  template <class F>
  void each(F f) {
    for (int row = 0; row < kTileRows; ++row)
      for (int column = 0; column < 8 * N; ++column) f(row, column, c_[row][column]);
  }

  template <class F, class Put>
  void row_sums(F f, Put put) {
    for (int row = 0; row < kTileRows; ++row)
      for (int part = 0; part < N / 2; ++part) {
        float sum = 0;
        for (int column = part * kTileColumns; column < (part + 1) * kTileColumns; ++column)
          sum += f(row, column, c_[row][column]);
        put(row, part, sum);
      }
  }

 private:
  float c_[kTileRows][8 * N] = {};
};

#endif

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
