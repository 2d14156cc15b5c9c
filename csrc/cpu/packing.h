// Whole parameter vectors between torch's flat order and the packed layout.
#pragma once

#include <algorithm>

#include "../layout.h"
#include "kernels.h"

namespace pymgan::cpu {

// flat [P] -> packed [total]; padding becomes zero.
template <class T>
void pack(const Kernels<T>& kernels, const Layout& layout, const T* flat, T* packed) {
  std::fill_n(packed, layout.total, T{0});
  for (const Tensor& t : layout.tensors) {
    T* start = packed + layout.start[index(t.player)];
    kernels.pack(flat + t.weight, t.n, t.k, start + t.packed_weight);
    if (t.bias >= 0) std::copy_n(flat + t.bias, t.n, start + t.packed_bias);
  }
}

// packed [total] -> flat [P]; halves that are not in `halves` become zero.
template <class T>
void unpack(const Kernels<T>& kernels, const Layout& layout, const T* packed, T* flat, uint8_t halves = kBoth) {
  for (const Tensor& t : layout.tensors) {
    const bool wanted = halves & (t.player == Player::generator ? kGenerator : kDiscriminator);
    const T* start = packed + layout.start[index(t.player)];
    if (wanted)
      kernels.unpack(start + t.packed_weight, t.n, t.k, flat + t.weight);
    else
      std::fill_n(flat + t.weight, int64_t{t.n} * t.k, T{0});
    if (t.bias < 0) continue;
    if (wanted)
      std::copy_n(start + t.packed_bias, t.n, flat + t.bias);
    else
      std::fill_n(flat + t.bias, t.n, T{0});
  }
}

}  // namespace pymgan::cpu
