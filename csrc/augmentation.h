// Differentiable augmentation (Zhao et al. 2020): what is done to a sample before D scores it, and the numbers that say
// how, a row of `numbers` for each: the brightness that is added, then the shift and then the centre of the block that
// is cut out, by extent.
#pragma once

#include <cstdint>

#include "both.h"

namespace pymgan {

struct Augmentation {
  bool brightness = false, translation = false, cutout = false;
  bool any() const { return brightness || translation || cutout; }
  // Of a sample with that many extents.
  int numbers(int extents) const { return brightness + (translation + cutout) * extents; }
};

// In sites, of an extent.
PYMGAN_BOTH inline int64_t farthest_shift(int64_t extent) { return (extent + 4) / 8; }
PYMGAN_BOTH inline int64_t block_size(int64_t extent) { return (extent + 1) / 2; }

// Number `n` of a sample's row from a uniform one, of which rounding may have made 1.
PYMGAN_BOTH inline double augmentation_number(const Augmentation& a, int extents, const int64_t* extent, int n,
                                              double uniform) {
  if (a.brightness && n-- == 0) return uniform - 0.5;
  auto one_of = [&](int64_t choices) {
    const auto choice = static_cast<int64_t>(uniform * static_cast<double>(choices));
    return static_cast<double>(choice < choices ? choice : choices - 1);
  };
  if (a.translation && n < extents) {
    const int64_t farthest = farthest_shift(extent[n]);
    return one_of(2 * farthest + 1) - static_cast<double>(farthest);
  }
  // A block of an even size lies around the middle between two sites.
  const int64_t along = extent[a.translation ? n - extents : n];
  return one_of(along + 1 - block_size(along) % 2);
}

}  // namespace pymgan
