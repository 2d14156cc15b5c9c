// Products through windows (window.h): convolutions of either kind and Linears between flat samples and images,
// forward, backward and for the weights' gradient. A tile gathers what up to kMaxRows output sites see, whichever
// samples they are of, and is then a product like any other; nothing grows with the batch.
#pragma once

#include "kernels_product.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

// Output sites of one group, counted through the samples: number i is site i % sites of sample i / sites.
struct Place {
  int sample, site;
};
PYMGAN_INLINE Place place_of(const WindowShape& w, const WindowGroup& group, int i) {
  return {i / group.sites, w.numbers[group.first_site + i % group.sites]};
}

// rows[r][tap][channel] = what place first + r sees through each tap of the group; the rest of a row is zero.
template <class T>
void gather(const WindowShape& w, const WindowGroup& group, const WindowTerm<T>& t, int channels, int first, int count,
            int64_t row, T* rows) {
  for (int r = 0; r < count; ++r, rows += row) {
    const Place at = place_of(w, group, first + r);
    const T* sample = t.a + at.sample * t.a_sample;
    T* to = rows;
    for (int j = 0; j < group.taps; ++j) {
      const T* from = sample + int64_t{w.from[at.site * w.taps + w.numbers[group.first_tap + j]]} * t.a_ld;
      int c = 0;
      for (; c + Vec<T>::kWidth <= channels; c += Vec<T>::kWidth, to += Vec<T>::kWidth)
        Vec<T>::load(from + c).store(to);
      for (; c < channels; ++c) *to++ = from[c];
    }
    while (to < rows + row) *to++ = 0;
  }
}

// The taps of a narrow weight [n][padded(taps * channels)] that a group sees, one after the other.
template <class T>
void gather_weight(const WindowShape& w, const WindowGroup& group, const T* weight, int n, int channels, int64_t row,
                   T* out) {
  const int64_t ld = padded(int64_t{w.taps} * channels);
  for (int m = 0; m < n; ++m, out += row, weight += ld) {
    T* to = out;
    for (int j = 0; j < group.taps; ++j)
      for (int c = 0; c < channels; ++c) *to++ = weight[int64_t{w.numbers[group.first_tap + j]} * channels + c];
    while (to < out + row) *to++ = 0;
  }
}

// Contractions are summed in parts of about this depth: a chain of a thousand additions would lose a digit.
inline constexpr int kPartDepth = 64;

// A tile [kRows][kLanes] in memory += the gathered rows times one panel of the weight. Taps that follow each other are
// one contraction.
template <class T, int kRows>
void window_tile(const WindowShape& w, const WindowGroup& group, const T* rows, int64_t row, const T* panel,
                 int channels, T* tile) {
  const int32_t* taps = w.numbers + group.first_tap;
  for (int j = 0; j < group.taps;) {
    Accumulators<T, kRows> acc;
    load_tile<T, kRows>(acc, nullptr, 0);
    for (int depth = 0; j < group.taps && depth < kPartDepth;) {
      int run = 1;
      while (j + run < group.taps && taps[j + run] == taps[j] + run && depth + run * channels < kPartDepth) ++run;
      add_rows_times_panel<T, kRows>(acc, rows + int64_t{j} * channels, row,
                                     panel + int64_t{taps[j]} * channels * kLanes, kLanes, run * channels);
      j += run;
      depth += run * channels;
    }
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
        constexpr int r = decltype(m)::value, c = decltype(v)::value;
        T* at = tile + r * kLanes + c * Vec<T>::kWidth;
        (Vec<T>::load(at) + acc[r][c]).store(at);
      });
    });
  }
}

template <class T>
using WindowTile = void (*)(const WindowShape&, const WindowGroup&, const T*, int64_t, const T*, int, T*);

template <class T, int... i>
PYMGAN_INLINE const WindowTile<T>* window_tiles(Indices<i...>) {
  static constexpr WindowTile<T> kTiles[] = {&window_tile<T, i + 1>...};
  return kTiles;
}

// What comes between the terms of one tile [count][kLanes], of which `width` columns count.
template <class T>
void between_window_terms(const WindowProduct<T>& p, const WindowGroup& group, int first, int count, int panel,
                          int width, T* tile) {
  for (int r = 0; r < count; ++r, tile += kLanes) {
    const Place at = place_of(p.window, group, first + r);
    if (p.dot) {
      const T* dot = p.dot + at.sample * p.epilogue.ld + int64_t{at.site} * p.out_ld + panel * kLanes;
      T* lanes = p.dot_out + int64_t{at.sample} * kLanes;
      for (int n = 0; n < width; ++n) lanes[n] += tile[n] * dot[n];
    }
    if (p.scale)
      for (int n = 0; n < width; ++n) tile[n] *= p.scale[at.sample];
  }
}

template <class T>
void window_product(const WindowProduct<T>& p) {
  static_assert(kMaxRows<T> <= kWindowTile);
  using All = typename MakeIndices<kMaxRows<T>>::Type;
  const WindowTile<T>* tiles = window_tiles<T>(All{});
  const WindowShape& w = p.window;
  const Epilogue<T>& e = p.epilogue;
  const ApplyBlock<T> apply = apply_of(e);
  const bool few = narrow(p.columns);
  const int panels = static_cast<int>(padded(p.columns) / kLanes);
  alignas(64) T tile[(kMaxRows<T> + kTogether) * kLanes];
  for (int g = 0; g < w.group_count; ++g) {
    const WindowGroup& group = w.groups[g];
    const int64_t row = padded(int64_t{group.taps} * p.channels);
    const WindowTerm<T>* terms[] = {&p.term0, &p.term1};
    T *rows[2], *weights[2];
    for (int i = 0; i < 2; ++i) {
      rows[i] = p.scratch + i * (kWindowTile + kNarrow) * row;
      weights[i] = rows[i] + kWindowTile * row;
      if (few && terms[i]->a) gather_weight(w, group, terms[i]->b, p.columns, p.channels, row, weights[i]);
    }
    tile_rows<T>(p.samples * group.sites, [&](int first, int count) {
      for (int i = 0; i < 2; ++i)
        if (terms[i]->a) gather(w, group, *terms[i], p.channels, first, count, row, rows[i]);
      for (int panel = 0; panel < panels; ++panel) {
        const int width = few ? p.columns : kLanes;
        for (int r = 0; r < count; ++r) {
          const int64_t site = p.bias_site * place_of(w, group, first + r).site;
          for (int n = 0; n < kLanes; ++n)
            tile[r * kLanes + n] = p.bias && n < width ? p.bias[site + panel * kLanes + n] : T{0};
        }
        for (int i = 0; i < 2; ++i) {
          const WindowTerm<T>& t = *terms[i];
          if (t.a && few) {
            Term<T> dots;
            dots.a = rows[i], dots.a_row = row, dots.b = weights[i], dots.b_panel = kLanes, dots.b_row = row;
            dots.depth = static_cast<int>(row);
            dots_tile_of(p.columns, dots, 0, count, tile, kLanes, tile, kLanes);
          } else if (t.a) {
            tiles[count - 1](w, group, rows[i], row, t.b + int64_t{panel} * w.taps * p.channels * kLanes, p.channels,
                             tile);
          }
          if (i == 0 && t.a && (p.dot || p.scale)) between_window_terms(p, group, first, count, panel, width, tile);
        }
        if (!e.out && !e.pre) continue;
        for (int r = 0; r < count; ++r) {
          const Place at = place_of(w, group, first + r);
          const int64_t offset = at.sample * e.ld + int64_t{at.site} * p.out_ld + panel * kLanes;
          if (!few)
            apply(e, {tile + r * kLanes, kLanes, nullptr, offset, 1, kLanes});
          else
            for (int n = 0; n < width; ++n) e.out[offset + n] = tile[r * kLanes + n];
        }
      }
    });
  }
  if (!few || (!e.out && !e.pre)) return;
  // Sites of few channels lie close together: they are finished a whole sample at a time.
  const int64_t stored = int64_t{w.out_sites} * p.out_ld;
  for (int s = 0; s < p.samples; ++s) {
    for (int64_t n = stored; n < e.ld; ++n) e.out[s * e.ld + n] = 0;
    apply(e, {e.out + s * e.ld, e.ld, nullptr, s * e.ld, 1, e.ld});
  }
}

// out[m][n] (+)= sum over samples and pairs of one tap of A[m] B[n]
template <class T, int kRows, bool kDescend>
void window_outer_tile(const OuterProduct<T>& o, const WindowOuter<T>& p, int tap, At at, T* out) {
  Accumulators<T, kRows> acc;
  load_tile<T, kRows>(acc, o.accumulate ? out : nullptr, o.out_row);
  const WindowShape& w = p.window;
  const int32_t first = w.first_pair[tap], last = w.first_pair[tap + 1];
  for (const WindowOuterTerm<T>* t : {&p.term0, &p.term1}) {
    if (!t->a) continue;
    for (int s = 0; s < t->samples; ++s) {
      const T *a = t->a + s * t->a_sample + at.row, *b = t->b + s * t->b_sample + at.panel * kLanes;
      for (int32_t i = first; i < last; ++i) {
        const T* row = a + int64_t{t->a_site[i]} * t->a_ld;
        rank_one<T, kRows>(
            acc, [&](auto m) __attribute__((always_inline)) { return row + decltype(m)::value; },
            b + int64_t{t->b_site[i]} * t->b_ld);
        unroll<kRows>([&](auto m) __attribute__((always_inline)) {
          unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
            keep_in_register(acc[decltype(m)::value][decltype(v)::value]);
          });
        });
      }
    }
  }
  if constexpr (kDescend)
    descend<T, kRows>(acc, o, out - o.out);
  else
    store_tile<T, kRows, Fused::store>(acc, nullptr, out, o.out_row);
}

template <class T>
using WindowOuterTile = void (*)(const OuterProduct<T>&, const WindowOuter<T>&, int, At, T*);

template <class T, bool kDescend, int... i>
PYMGAN_INLINE const WindowOuterTile<T>* window_outer_tiles(Indices<i...>) {
  static constexpr WindowOuterTile<T> kTiles[] = {&window_outer_tile<T, i + 1, kDescend>...};
  return kTiles;
}

template <class T>
void window_outer(const WindowOuter<T>& p) {
  using All = typename MakeIndices<kMaxRows<T>>::Type;
  const OuterProduct<T>& o = p.update;
  const WindowOuterTile<T>* tiles = o.theta ? window_outer_tiles<T, true>(All{}) : window_outer_tiles<T, false>(All{});
  const int panels = static_cast<int>(padded(o.columns) / kLanes);
  for (int panel = 0; panel < panels; ++panel)
    for (int tap = 0; tap < p.window.taps; ++tap)
      tile_rows<T>(o.rows, [&](int m, int rows) {
        T* out = o.out + panel * o.out_panel + tap * p.out_tap + m * o.out_row;
        tiles[rows - 1](o, p, tap, {m, panel}, out);
      });
}

// Inputs or outputs of a weight are few and its rows not whole vectors: element by element.
template <class T>
void window_outer_few(const WindowOuter<T>& p) {
  const OuterProduct<T>& o = p.update;
  const WindowShape& w = p.window;
  for (int m = 0; m < o.rows; ++m)
    for (int tap = 0; tap < w.taps; ++tap)
      for (int n = 0; n < o.columns; ++n) {
        T* out = o.out + m * o.out_row + tap * p.out_tap + n;
        T sum = o.accumulate ? *out : T{0};
        for (const WindowOuterTerm<T>* t : {&p.term0, &p.term1})
          for (int s = 0; t->a && s < t->samples; ++s)
            for (int32_t i = w.first_pair[tap]; i < w.first_pair[tap + 1]; ++i)
              sum += t->a[s * t->a_sample + int64_t{t->a_site[i]} * t->a_ld + m] *
                     t->b[s * t->b_sample + int64_t{t->b_site[i]} * t->b_ld + n];
        *out = sum;
      }
}

// The weight of a window [n][taps][k], packed, to that of the window seen from its input [k][taps][n], packed.
template <class T>
void window_transpose(const T* from, int n, int taps, int k, T* to) {
  auto at = [taps](int outputs, int inputs, int o, int tap, int i) -> int64_t {
    if (narrow(outputs)) return o * padded(int64_t{taps} * inputs) + int64_t{tap} * inputs + i;
    return ((int64_t{o / kLanes} * taps + tap) * inputs + i) * kLanes + o % kLanes;
  };
  if (narrow(n) || narrow(k)) {
    const int64_t size = narrow(k) ? k * padded(int64_t{taps} * n) : padded(k) * int64_t{taps} * n;
    for (int64_t i = 0; i < size; ++i) to[i] = 0;
    for (int o = 0; o < n; ++o)
      for (int tap = 0; tap < taps; ++tap)
        for (int i = 0; i < k; ++i) to[at(k, n, i, tap, o)] = from[at(n, k, o, tap, i)];
    return;
  }
  for (int o = 0; o < n; o += kLanes)
    for (int tap = 0; tap < taps; ++tap)
      for (int i = 0; i < k; i += kLanes)
        transpose_block(from + at(n, k, o, tap, i), kLanes, up_to_lanes(k - i), up_to_lanes(n - o),
                        to + at(k, n, i, tap, o), kLanes);
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
