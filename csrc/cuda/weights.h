// The weight of a layer without a window (blocks.h) as an operand of its products, as each lane reads it where it lies,
// and as it comes through a ring (ring.h).
#pragma once

#include "fragments.h"
#include "ring.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

static_assert(kChunk == kBlock && kTileRows == kBlock && kTileColumns == kBlock);

// Rows from `top` on: the contraction runs along a row.
struct WeightRows {
  const float* x;
  Blocks blocks;
  int top, depth;

  struct Row {
    const float* x;
    int along, depth;
    template <bool kFull>
    PYMGAN_DEVICE Quad quad(int chunk) const {
      if (!kFull && chunk >= depth) return {};
      Quad q = load_quad(x + chunk * along);
      PYMGAN_UNROLL
      for (int j = 1; j < 4; ++j)
        if (!kFull && chunk + j >= depth) q.x[j] = 0;
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int first) const {
    return {x + blocks.at(top + within(i, blocks.n - top), first), blocks.along(), depth - first};
  }
};

// Columns from `left` on, of which `count` count: the contraction runs over rows.
struct WeightColumns {
  const float* x;
  Blocks blocks;
  int left, count, depth;

  struct Row {
    const float* x;
    int ld, down, depth;
    template <bool kFull>
    PYMGAN_DEVICE Quad quad(int chunk) const {
      Quad q;
      PYMGAN_UNROLL
      for (int j = 0; j < 4; ++j)
        if (kFull || chunk + j < depth) q.x[j] = x[chunk * ld + j * down];
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int first) const {
    return {x + blocks.at(first, left + within(i, count)), blocks.ld, blocks.down(), depth - first};
  }
};

// Of a tile that has nothing but full blocks, in chunks that are full: its rows; with `kAdjoint` its columns.
template <bool kAdjoint, int kSlotBlocks>
struct RingWeight {
  Ring<kSlotBlocks>* ring;
  int ld;

  struct Row {
    const Ring<kSlotBlocks>* ring;
    int at;
    template <bool>
    PYMGAN_DEVICE Quad quad(int) const {
      const float* x = ring->at() + at;
      if (!kAdjoint) return load_quad(x);
      Quad q;
      PYMGAN_UNROLL
      for (int j = 0; j < 4; ++j) q.x[j] = x[j * kBlock];
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int first) const {
    const int own = i % kBlock;
    return {ring, i / kBlock * kBlockSize + (kAdjoint ? Blocks::in_block(first, own) : Blocks::in_block(own, first))};
  }
  PYMGAN_DEVICE void begin() const { ring->begin(); }
  PYMGAN_DEVICE void end() const { ring->template end<kAdjoint>(ld); }
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
