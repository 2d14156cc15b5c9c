// Whole parameter vectors between torch's flat order and the packed layout.
#pragma once

#include <algorithm>

#include "../layout.h"
#include "kernels.h"

namespace pymgan::cpu {

// Calls visit(packed, flat): where every element of a windowed weight lies, from its start and from phi's.
template <class Visit>
void visit_window_weight(const Tensor& t, Visit&& visit) {
  for (int n = 0; n < t.n; ++n)
    for (int tap = 0; tap < t.taps; ++tap)
      for (int k = 0; k < t.k; ++k) {
        const int64_t input = int64_t{tap} * t.k + k;
        visit(t.by_rows ? n * padded(t.inputs()) + input
                        : (int64_t{n / kLanes} * t.inputs() + input) * kLanes + n % kLanes,
              t.weight + n * t.weight_n + t.weight_tap[tap] + k * t.weight_k);
      }
}
template <class Visit>
void visit_bias(const Tensor& t, Visit&& visit) {
  for (int n = 0; t.bias >= 0 && n < t.n; ++n)
    for (int site = 0; site < t.bias_sites; ++site)
      visit(int64_t{site} * t.bias_ld + n, t.bias + int64_t{n} * t.bias_sites + site);
}

// flat [P] -> packed [total]; padding becomes zero.
template <class T>
void pack(const Kernels<T>& kernels, const Layout& layout, const T* flat, T* packed) {
  std::fill_n(packed, layout.total, T{0});
  for (const Tensor& t : layout.tensors) {
    T* start = packed + layout.start[index(t.player)];
    if (t.diagonal())
      std::copy_n(flat + t.weight, t.n, start + t.packed_weight);
    else if (t.window < 0)
      kernels.pack(flat + t.weight, t.n, t.k, start + t.packed_weight);
    else
      visit_window_weight(t, [&](int64_t at, int64_t from) { start[t.packed_weight + at] = flat[from]; });
    visit_bias(t, [&](int64_t at, int64_t from) { start[t.packed_bias + at] = flat[from]; });
  }
}

// packed [total] -> flat [P]; halves that are not in `halves` become zero.
template <class T>
void unpack(const Kernels<T>& kernels, const Layout& layout, const T* packed, T* flat, uint8_t halves = kBoth) {
  for (const Tensor& t : layout.tensors) {
    const bool wanted = halves & (t.player == Player::generator ? kGenerator : kDiscriminator);
    const T* start = packed + layout.start[index(t.player)];
    if (t.diagonal() && wanted)
      std::copy_n(start + t.packed_weight, t.n, flat + t.weight);
    else if (t.window < 0 && wanted)
      kernels.unpack(start + t.packed_weight, t.n, t.k, flat + t.weight);
    else if (t.window < 0)
      std::fill_n(flat + t.weight, int64_t{t.n} * t.k, T{0});
    else
      visit_window_weight(t, [&](int64_t at, int64_t to) { flat[to] = wanted ? start[t.packed_weight + at] : T{0}; });
    visit_bias(t, [&](int64_t at, int64_t to) { flat[to] = wanted ? start[t.packed_bias + at] : T{0}; });
  }
}

// u of D's spectral norms, from torch's state [U] to the engine's; v, which follows from it, and padding become zero.
template <class T>
void pack_spectral(const Layout& layout, const T* state, T* packed) {
  std::fill_n(packed, layout.spectral_size, T{0});
  for (const SpectralNorm& s : layout.spectral) std::copy_n(state + s.state, layout.tensors[s.tensor].n, packed + s.u);
}
template <class T>
void unpack_spectral(const Layout& layout, const T* packed, T* state) {
  for (const SpectralNorm& s : layout.spectral) std::copy_n(packed + s.u, layout.tensors[s.tensor].n, state + s.state);
}

}  // namespace pymgan::cpu
