// Linear maps without parameters, between samples as they lie in memory: pooling, upsampling, shuffles of pixels, means
// over groups of features, and other orders of a sample. Made of blocks of neighbouring elements, which are what
// kernels are fast at.
#pragma once

#include <cstdint>
#include <vector>

namespace pymgan {

struct FixedBlock {
  // out[to + i] += factor in[from + i] (copy), out[to] += factor in[from + i] (sum),
  // out[to + i] += factor in[from] (spread); i < count
  enum class Kind : uint8_t { copy, sum, spread };
  Kind kind = Kind::copy;
  int32_t to = 0, from = 0, count = 0;
  double factor = 1;
};

struct FixedMap {
  // One term: out[to] += factor in[from].
  struct Link {
    int32_t to, from;
    double factor;
  };

  int in = 0, out = 0;  // elements of a sample as stored
  std::vector<FixedBlock> blocks;

  FixedMap(int in, int out, std::vector<Link> links);
  std::vector<Link> links() const;
  FixedMap transposed() const;
};

}  // namespace pymgan
