// Products through windows (window.h): convolutions of either kind and Linears between flat samples and images,
// forward, backward and for the weights' gradient. A tile gathers what up to kMaxRows output sites see, whichever
// samples they are of, and is then a product like any other; what is read only once is read where it lies. Nothing
// grows with the batch.
#pragma once

#include "kernels_product.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

// Output sites that one tile computes, found once for all its terms and panels. A group's are counted through the
// samples: number i is site i % sites of sample i / sites.
struct Places {
  int count = 0;
  int sample[kWindowTile], site[kWindowTile], start[kWindowTile];
};
PYMGAN_INLINE void find_places(const WindowShape& w, const WindowGroup& group, int first, int count, Places& places) {
  const int32_t *sites = w.numbers + group.first_site, *starts = w.numbers + group.first_start;
  places.count = count;
  for (int r = 0, sample = first / group.sites, i = first % group.sites; r < count; ++r) {
    places.sample[r] = sample, places.site[r] = sites[i], places.start[r] = starts[i];
    if (++i == group.sites) i = 0, ++sample;
  }
}

// What a group's first site sees; in a uniform one the others see what lies `start` inputs later.
PYMGAN_INLINE const int32_t* seen_by_first(const WindowShape& w, const WindowGroup& group) {
  return w.from + int64_t{w.numbers[group.first_site]} * w.taps;
}

template <class T>
PYMGAN_INLINE T* copy(const T* from, int n, T* to) {
  for (; n >= Vec<T>::kWidth; n -= Vec<T>::kWidth, from += Vec<T>::kWidth, to += Vec<T>::kWidth)
    Vec<T>::load(from).store(to);
  for (; n >= 4; n -= 4, from += 4, to += 4) __builtin_memcpy(to, from, 4 * sizeof(T));
  for (; n > 0; --n) *to++ = *from++;
  return to;
}

// rows[r][tap][channel] = what place r sees through each tap of the group; the rest of a row is zero.
template <class T>
void gather(const WindowShape& w, const WindowGroup& group, const WindowTerm<T>& t, int channels, const Places& places,
            int64_t row, T* rows) {
  const int32_t *taps = w.numbers + group.first_tap, *runs = w.numbers + group.first_run;
  const bool dense = t.a_ld == channels;  // taps of a run are one piece of memory
  const int pieces = dense ? group.runs : group.taps;
  for (int r = 0; r < places.count; ++r, rows += row) {
    const T* sample = t.a + places.sample[r] * t.a_sample;
    const int32_t* from = w.from + int64_t{places.site[r]} * w.taps;
    T* to = rows;
    for (int i = 0, j = 0; i < pieces; ++i) {
      const int run = dense ? runs[i] : 1;
      to = copy(sample + from[taps[j]] * t.a_ld, run * channels, to);
      j += run;
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

// tile [kRows][kLanes] in memory += acc
template <class T, int kRows>
PYMGAN_INLINE void add_tile(const Accumulators<T, kRows>& acc, T* tile) {
  unroll<kRows>([&](auto m) __attribute__((always_inline)) {
    unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
      constexpr int r = decltype(m)::value, c = decltype(v)::value;
      T* at = tile + r * kLanes + c * Vec<T>::kWidth;
      (Vec<T>::load(at) + acc[r][c]).store(at);
    });
  });
}

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
    add_tile<T, kRows>(acc, tile);
  }
}

// The same without gathering, a pointer a row: there are registers for eight.
template <class T>
inline constexpr int kDirectRows = kMaxRows<T> < 8 ? kMaxRows<T> : 8;

template <class T, int kRows>
void direct_tile(const WindowShape& w, const WindowGroup& group, const T* const* starts, int64_t a_ld, const T* panel,
                 int channels, T* tile) {
  const int32_t *taps = w.numbers + group.first_tap, *seen = seen_by_first(w, group);
  const T* a[kRows];
  for (int r = 0; r < kRows; ++r) a[r] = starts[r];
  for (int j = 0; j < group.taps;) {
    Accumulators<T, kRows> acc;
    load_tile<T, kRows>(acc, nullptr, 0);
    for (int depth = 0; j < group.taps && depth < kPartDepth; ++j, depth += channels) {
      const T* b = panel + int64_t{taps[j]} * channels * kLanes;
      int64_t at = seen[taps[j]] * a_ld;
      for (int c = 0; c < channels; ++c, ++at, b += kLanes) {
        opaque(at);
        rank_one<T, kRows>(acc, [&](auto m) __attribute__((always_inline)) { return a[decltype(m)::value] + at; }, b);
        unroll<kRows>([&](auto m) __attribute__((always_inline)) {
          unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
            keep_in_register(acc[decltype(m)::value][decltype(v)::value]);
          });
        });
      }
    }
    add_tile<T, kRows>(acc, tile);
  }
}

template <class T>
using DirectTile = void (*)(const WindowShape&, const WindowGroup&, const T* const*, int64_t, const T*, int, T*);

template <class T, int... i>
PYMGAN_INLINE const DirectTile<T>* direct_tiles(Indices<i...>) {
  static constexpr DirectTile<T> kTiles[] = {&direct_tile<T, i + 1>...};
  return kTiles;
}

template <class T>
using WindowTile = void (*)(const WindowShape&, const WindowGroup&, const T*, int64_t, const T*, int, T*);

template <class T, int... i>
PYMGAN_INLINE const WindowTile<T>* window_tiles(Indices<i...>) {
  static constexpr WindowTile<T> kTiles[] = {&window_tile<T, i + 1>...};
  return kTiles;
}

// What comes between the terms of a tile of one panel.
template <class T>
PYMGAN_INLINE void between_window_terms(const WindowProduct<T>& p, const Places& places, const int64_t* offsets,
                                        int panel, T* tile) {
  for (int r = 0; r < places.count; ++r)
    for (int n = 0; n < kLanes; n += Vec<T>::kWidth, tile += Vec<T>::kWidth) {
      const Vec<T> x = Vec<T>::load(tile);
      if (p.dot) {
        T* lanes = p.dot_out + int64_t{places.sample[r]} * kLanes + n;
        fma(x, Vec<T>::load(p.dot + offsets[r] + panel * kLanes + n), Vec<T>::load(lanes)).store(lanes);
      }
      if (p.scale) (x * Vec<T>::broadcast(p.scale + places.sample[r])).store(tile);
    }
}

// Sums over p of few outputs' terms, with vectors along p, for four places at once: sums[n][r] = sum over taps and
// channels of at(r, tap) times the weights [n][row]. `channels` is a multiple of kLanes.
template <class T, int kColumns, class Source>
PYMGAN_INLINE void sum_few(const Source& at, int taps, int channels, const T* weights, int64_t row,
                           T (&sums)[kColumns][kTogether]) {
  Vec<T> acc[kColumns][kTogether];
  for (auto& column : acc)
    for (auto& x : column) x = Vec<T>(0.0);
  for (int j = 0; j < taps; ++j, weights += channels) {
    const T* a[kTogether];
    for (int r = 0; r < kTogether; ++r) a[r] = at(r, j);
    for (int c = 0; c < channels; c += Vec<T>::kWidth)
      for (int n = 0; n < kColumns; ++n) {
        const Vec<T> weight = Vec<T>::load(weights + n * row + c);
        for (int r = 0; r < kTogether; ++r) acc[n][r] = fma(Vec<T>::load(a[r] + c), weight, acc[n][r]);
      }
  }
  for (int n = 0; n < kColumns; ++n) sum_four(acc[n], sums[n]);
}

// A tile of few outputs, up to but not including the epilogue. Whole vectors of channels are read where they lie.
template <class T, int kColumns>
void few_tile(const WindowProduct<T>& p, const WindowGroup& group, const Places& places, const int64_t* offsets,
              int64_t row) {
  const WindowShape& w = p.window;
  const int32_t* taps = w.numbers + group.first_tap;
  const bool direct = p.channels % kLanes == 0 && group.uniform;
  const int32_t* seen = seen_by_first(w, group);
  const WindowTerm<T>* terms[] = {&p.term0, &p.term1};
  T *rows[2], *weights[2];
  for (int i = 0; i < 2; ++i) {
    rows[i] = p.scratch + i * (kWindowTile + kNarrow) * row;
    weights[i] = rows[i] + kWindowTile * row;
    if (terms[i]->a && !direct) gather(w, group, *terms[i], p.channels, places, row, rows[i]);
  }
  for (int m = 0; m < places.count; m += kTogether) {
    int at[kTogether];  // the last place again where four are too many
    for (int r = 0; r < kTogether; ++r) at[r] = m + r < places.count ? m + r : places.count - 1;
    T sums[2][kColumns][kTogether] = {};
    for (int i = 0; i < 2; ++i) {
      const WindowTerm<T>& t = *terms[i];
      if (!t.a) continue;
      if (!direct) {
        sum_few<T, kColumns>([&](int r, int) { return rows[i] + at[r] * row; }, 1, static_cast<int>(row), weights[i],
                             row, sums[i]);
        continue;
      }
      const T* starts[kTogether];
      for (int r = 0; r < kTogether; ++r)
        starts[r] = t.a + places.sample[at[r]] * t.a_sample + places.start[at[r]] * t.a_ld;
      sum_few<T, kColumns>([&](int r, int j) { return starts[r] + seen[taps[j]] * t.a_ld; }, group.taps, p.channels,
                           weights[i], row, sums[i]);
    }
    for (int r = 0; r < kTogether && m + r < places.count; ++r) {
      const int sample = places.sample[m + r];
      for (int n = 0; n < kColumns; ++n) {
        T x = sums[0][n][r];
        if (p.bias) x += p.bias[p.bias_site * places.site[m + r] + n];
        if (p.dot) p.dot_out[int64_t{sample} * kLanes + n] += x * p.dot[offsets[m + r] + n];
        if (p.scale) x *= p.scale[sample];
        if (p.epilogue.out) p.epilogue.out[offsets[m + r] + n] = x + sums[1][n][r];
      }
    }
  }
}

template <class T>
using FewTile = void (*)(const WindowProduct<T>&, const WindowGroup&, const Places&, const int64_t*, int64_t);

// Calls body(group, row, places, offsets) for every tile; a gathered row has `row` elements, outputs are at `offsets`.
template <class T, class Start, class Body>
PYMGAN_INLINE void window_places(const WindowProduct<T>& p, const Start& start, const Body& body) {
  const WindowShape& w = p.window;
  Places places;
  int64_t offsets[kWindowTile];
  for (int g = 0; g < w.group_count; ++g) {
    const WindowGroup& group = w.groups[g];
    const int64_t row = padded(int64_t{group.taps} * p.channels);
    start(group, row);
    tile_rows<T>(p.samples * group.sites, [&](int first, int count) {
      find_places(w, group, first, count, places);
      for (int r = 0; r < count; ++r) offsets[r] = places.sample[r] * p.epilogue.ld + places.site[r] * p.out_ld;
      body(group, row, places, offsets);
    });
  }
}

template <class T>
void window_product_few(const WindowProduct<T>& p) {
  static constexpr FewTile<T> kTiles[] = {&few_tile<T, 1>, &few_tile<T, 2>, &few_tile<T, 3>, &few_tile<T, 4>};
  static_assert(sizeof kTiles == kNarrow * sizeof *kTiles);
  const Epilogue<T>& e = p.epilogue;
  window_places(
      p,
      [&](const WindowGroup& group, int64_t row) {
        T* weights = p.scratch + kWindowTile * row;
        for (const WindowTerm<T>* t : {&p.term0, &p.term1}) {
          if (t->a) gather_weight(p.window, group, t->b, p.columns, p.channels, row, weights);
          weights += (kWindowTile + kNarrow) * row;
        }
      },
      [&](const WindowGroup& group, int64_t row, const Places& places, const int64_t* offsets) {
        kTiles[p.columns - 1](p, group, places, offsets, row);
      });
  if (!e.out && !e.pre) return;
  // Sites of few channels lie close together: they are finished a whole sample at a time.
  const ApplyBlock<T> apply = apply_of(e);
  const int64_t stored = int64_t{p.window.out_sites} * p.out_ld;
  for (int s = 0; s < p.samples; ++s) {
    for (int64_t n = stored; n < e.ld; ++n) e.out[s * e.ld + n] = 0;
    apply(e, {e.out + s * e.ld, e.ld, nullptr, s * e.ld, 1, e.ld});
  }
}

template <class T>
void window_product(const WindowProduct<T>& p) {
  static_assert(kMaxRows<T> <= kWindowTile);
  if (narrow(p.columns)) return window_product_few(p);
  using All = typename MakeIndices<kMaxRows<T>>::Type;
  const WindowTile<T>* tiles = window_tiles<T>(All{});
  const DirectTile<T>* directs = direct_tiles<T>(typename MakeIndices<kDirectRows<T>>::Type{});
  const WindowShape& w = p.window;
  const Epilogue<T>& e = p.epilogue;
  const ApplyBlock<T> apply = apply_of(e);
  const int panels = static_cast<int>(padded(p.columns) / kLanes);
  const WindowTerm<T>* terms[] = {&p.term0, &p.term1};
  alignas(64) T tile[kWindowTile * kLanes];
  window_places(
      p, [](const WindowGroup&, int64_t) {},
      [&](const WindowGroup& group, int64_t row, const Places& places, const int64_t* offsets) {
        // What few columns read is not worth a copy.
        const bool direct = group.uniform && (p.channels < kLanes || panels == 1);
        T* rows[] = {p.scratch, p.scratch + kWindowTile * row};
        const T* starts[2][kWindowTile];
        for (int i = 0; i < 2; ++i) {
          const WindowTerm<T>& t = *terms[i];
          if (t.a && !direct) gather(w, group, t, p.channels, places, row, rows[i]);
          for (int r = 0; t.a && direct && r < places.count; ++r)
            starts[i][r] = t.a + places.sample[r] * t.a_sample + places.start[r] * t.a_ld;
        }
        for (int panel = 0; panel < panels; ++panel) {
          for (int r = 0; r < places.count; ++r) {
            const T* bias = p.bias ? p.bias + p.bias_site * places.site[r] + panel * kLanes : nullptr;
            for (int n = 0; n < kLanes; n += Vec<T>::kWidth)
              (bias ? Vec<T>::load(bias + n) : Vec<T>(0.0)).store(tile + r * kLanes + n);
          }
          for (int i = 0; i < 2; ++i) {
            if (!terms[i]->a) continue;
            const T* weight = terms[i]->b + int64_t{panel} * w.taps * p.channels * kLanes;
            if (!direct) tiles[places.count - 1](w, group, rows[i], row, weight, p.channels, tile);
            for (int r = 0, n; direct && r < places.count; r += n) {
              n = places.count - r < kDirectRows<T> ? places.count - r : kDirectRows<T>;
              directs[n - 1](w, group, starts[i] + r, terms[i]->a_ld, weight, p.channels, tile + r * kLanes);
            }
            if (i == 0 && (p.dot || p.scale)) between_window_terms(p, places, offsets, panel, tile);
          }
          if (e.out || e.pre) apply(e, {tile, kLanes, nullptr, panel * kLanes, places.count, kLanes, offsets});
        }
      });
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

// Weights of few inputs (or outputs) a site: what is few is read through the window of the other side's sites, so that
// the taps of a site are the rows of a tile.
template <class T, int kRows>
void thin_places(const WindowOuterTerm<T>& t, const WindowShape& w, const WindowGroup& group, const int64_t* taps,
                 int column, T* tile, const int* rows) {
  Accumulators<T, kRows> acc;
  load_tile<T, kRows>(acc, nullptr, 0);
  const int32_t *sites = w.numbers + group.first_site, *starts = w.numbers + group.first_start;
  for (int s = 0; s < t.samples; ++s)
    for (int i = 0; i < group.sites; ++i) {
      const T* a = t.a + s * t.a_sample + starts[i] * t.a_ld;
      rank_one<T, kRows>(
          acc, [&](auto m) __attribute__((always_inline)) { return a + taps[decltype(m)::value]; },
          t.b + s * t.b_sample + sites[i] * t.b_ld + column);
      unroll<kRows>([&](auto m) __attribute__((always_inline)) {
        unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
          keep_in_register(acc[decltype(m)::value][decltype(v)::value]);
        });
      });
    }
  unroll<kRows>([&](auto m) __attribute__((always_inline)) {
    unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
      constexpr int r = decltype(m)::value, c = decltype(v)::value;
      T* to = tile + rows[r] * kLanes + c * Vec<T>::kWidth;
      (Vec<T>::load(to) + acc[r][c]).store(to);
    });
  });
}

template <class T>
using ThinPlaces = void (*)(const WindowOuterTerm<T>&, const WindowShape&, const WindowGroup&, const int64_t*, int, T*,
                            const int*);

template <class T, int... i>
PYMGAN_INLINE const ThinPlaces<T>* thin_places_of(Indices<i...>) {
  static constexpr ThinPlaces<T> kTiles[] = {&thin_places<T, i + 1>...};
  return kTiles;
}

template <class T>
void window_outer_thin(const WindowOuter<T>& p) {
  using All = typename MakeIndices<kMaxRows<T>>::Type;
  const ThinPlaces<T>* places = thin_places_of<T>(All{});
  const WindowShape& w = *p.of_b;
  OuterProduct<T> o = p.update;  // a tile's rows are taps
  o.out_row = p.out_tap;
  const int panels = static_cast<int>(padded(o.columns) / kLanes);
  alignas(64) T tile[kWindowTile * kLanes];
  for (int m = 0; m < p.update.rows; ++m)
    for (int panel = 0; panel < panels; ++panel)
      tile_rows<T>(w.taps, [&](int first, int count) {
        T* out = o.out + panel * o.out_panel + first * p.out_tap + m * p.update.out_row;
        for (int r = 0; r < count; ++r)
          for (int n = 0; n < kLanes; ++n) tile[r * kLanes + n] = o.accumulate ? out[r * o.out_row + n] : T{0};
        for (const WindowOuterTerm<T>* t : {&p.term0, &p.term1}) {
          if (!t->a) continue;
          for (int g = 0; g < w.group_count; ++g) {
            const WindowGroup& group = w.groups[g];
            int64_t taps[kWindowTile];
            int rows[kWindowTile], inside = 0;
            for (int j = 0; j < group.taps; ++j) {
              const int tap = w.numbers[group.first_tap + j];
              if (tap < first || tap >= first + count) continue;
              taps[inside] = seen_by_first(w, group)[tap] * t->a_ld + m;
              rows[inside++] = tap - first;
            }
            if (inside > 0) places[inside - 1](*t, w, group, taps, panel * kLanes, tile, rows);
          }
        }
        for (int r = 0; r < count; ++r) {
          Accumulators<T, 1> acc;
          load_tile<T, 1>(acc, tile + r * kLanes, 0);
          T* to = out + r * o.out_row;
          if (o.theta)
            descend<T, 1>(acc, o, to - o.out);
          else
            store_tile<T, 1, Fused::store>(acc, nullptr, to, 0);
        }
      });
}

template <class T>
void window_outer(const WindowOuter<T>& p) {
  if (p.of_b) return window_outer_thin(p);
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
