// How the weight of a layer without a window lies. Where both sides of its matrix [n][ld] are multiples of 16, in
// blocks of 16 x 16, each in one piece, and those row by row: a tile of a product finds what it reads next in one piece
// of a kilobyte, whichever way it goes through the matrix. Else row by row.
#pragma once

#include "../both.h"
#include "code.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

inline constexpr int kBlock = 16, kBlockSize = kBlock * kBlock;

struct Blocks {
  int n, ld;

  PYMGAN_BOTH bool blocked() const { return n % kBlock == 0 && ld % kBlock == 0; }
  // Of a block. Its quads change places from four rows to four rows: without that, lanes that read down the columns of
  // shared memory, four rows apart, would all ask the same banks.
  static PYMGAN_BOTH int in_block(int row, int column) {
    return row * kBlock + ((column / 4 ^ row / 4) * 4 + column % 4);
  }
  PYMGAN_BOTH int at(int row, int column) const {
    if (!blocked()) return row * ld + column;
    const int r = row % kBlock, c = column % kBlock;
    return (row - r) * ld + (column - c) * kBlock + in_block(r, c);
  }
  // From an element to the one 16 columns on, over 16; to that of the next row, of the same four.
  PYMGAN_BOTH int along() const { return blocked() ? kBlock : 1; }
  PYMGAN_BOTH int down() const { return blocked() ? kBlock : ld; }
};

// Where element [row][column] of a weight lies; of a layer with a window row by row.
PYMGAN_BOTH inline int weight_at(const TensorRecord& w, int row, int column) {
  return w.window < 0 ? Blocks{w.n, w.ld}.at(row, column) : row * w.ld + column;
}

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
