// Matrix products in tiles of up to kMaxRows rows by one panel of 16 columns, whose accumulators stay in registers: for
// every p the panel's row is loaded once and multiplied by one broadcast of A a row. Panels are the outer loop, so that
// one of B stays in L1 while the tiles of rows pass. Rows are split evenly (20 = 10 + 10): no narrow tile at the end.
#pragma once

#include "kernels_epilogue.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

// Three quarters of the registers accumulate; AVX-512's sixteen more than cover the latency of an FMA.
#if defined(PYMGAN_SMALL_TILES)  // with sanitizers, GCC needs many minutes for the larger ones
template <class T>
inline constexpr int kMaxRows = 2;
#else
template <class T>
inline constexpr int kMaxRows = kVectors<T> == 1 ? 16 : PYMGAN_REGISTERS * 3 / 4 / kVectors<T>;
#endif

// Calls body(first row, rows) for even tiles of at most kMaxRows<T>.
template <class T, class Body>
PYMGAN_INLINE void tile_rows(int rows, const Body& body) {
  const int tiles = (rows + kMaxRows<T> - 1) / kMaxRows<T>;
  for (int i = 0, m = 0; i < tiles; ++i) {
    const int count = (rows - m + tiles - i - 1) / (tiles - i);
    body(m, count);
    m += count;
  }
}

inline void fetch_ahead(Ahead* ahead, double flops) {
  if (!ahead) return;
  int lines = 1 + static_cast<int>(ahead->lines_per_flop * flops);
  for (const char*& at = ahead->at; at < ahead->end && lines > 0; at += 64, --lines) __builtin_prefetch(at, 1, 2);
}

template <class T, int kRows>
using Accumulators = Vec<T>[kRows][kVectors<T>];

template <class T, int kRows>
PYMGAN_INLINE void load_tile(Accumulators<T, kRows>& acc, const T* from, int64_t row) {
  unroll<kRows>([&](auto m) __attribute__((always_inline)) {
    unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
      constexpr int r = decltype(m)::value, c = decltype(v)::value;
      acc[r][c] = from ? Vec<T>::load(from + r * row + c * Vec<T>::kWidth) : Vec<T>(0.0);
    });
  });
}

template <class T, int kRows, Fused kFused>
PYMGAN_INLINE void store_tile(const Accumulators<T, kRows>& acc, const Epilogue<T>* e, T* to, int64_t row) {
  Vec<T> p0(0.0);
  const T* ref = nullptr;  // at the tile
  if constexpr (kFused != Fused::store) p0 = Vec<T>::broadcast(e->attributes);
  if constexpr (kFused == Fused::leaky_relu_chain) ref = e->ref + (to - e->out);
  unroll<kRows>([&](auto m) __attribute__((always_inline)) {
    unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
      constexpr int r = decltype(m)::value, c = decltype(v)::value;
      const int64_t at = r * row + c * Vec<T>::kWidth;
      apply_fused<T, kFused>(acc[r][c], p0, ref + at).store(to + at);
    });
  });
}

// acc[m][:] += a(m) * row of B, one p.
template <class T, int kRows, class A>
PYMGAN_INLINE void rank_one(Accumulators<T, kRows>& acc, const A& a, const T* b) {
  Vec<T> row[kVectors<T>];
  unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
    row[decltype(v)::value] = Vec<T>::load(b + decltype(v)::value * Vec<T>::kWidth);
  });
  unroll<kRows>([&](auto m) __attribute__((always_inline)) {
    constexpr int r = decltype(m)::value;
    const Vec<T> x = Vec<T>::broadcast(a(m));
    unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
      acc[r][decltype(v)::value] = fma(x, row[decltype(v)::value], acc[r][decltype(v)::value]);
    });
  });
}

// Row m of eight is base + one multiple (by 1, 2, 4) of one of four registers: x86 addresses all sixteen rows of a tile
// from six registers, where sixteen pointers would spill. opaque keeps compilers from computing others of their own.
template <int m, class T>
PYMGAN_INLINE const T* row_address(const char* base, int64_t s, int64_t s3, int64_t s5, int64_t s7) {
  constexpr int r = m % 8;
  const int64_t offset = r == 0   ? 0
                         : r == 1 ? s
                         : r == 2 ? 2 * s
                         : r == 3 ? s3
                         : r == 4 ? 4 * s
                         : r == 5 ? s5
                         : r == 6 ? 2 * s3
                                  : s7;
  return reinterpret_cast<const T*>(base + offset);
}

template <class T, int kRows>
PYMGAN_INLINE void add_rows_times_panel(Accumulators<T, kRows>& acc, const T* a, int64_t a_row, const T* b,
                                        int64_t b_row, int depth) {
  int64_t s = a_row * sizeof(T), s3 = 3 * s, s5 = 5 * s, s7 = 7 * s;
  const char* low = reinterpret_cast<const char*>(a);
  const char* high = low + 8 * s;
  auto step = [&](int p) __attribute__((always_inline)) {
    opaque(low);
    opaque(high);
    opaque(s);
    opaque(s3);
    opaque(s5);
    opaque(s7);
    rank_one<T, kRows>(
        acc,
        [&](auto m) __attribute__((always_inline)) {
          constexpr int r = decltype(m)::value;
          return row_address<r, T>(r < 8 ? low : high, s, s3, s5, s7) + p;
        },
        b + p * b_row);
    // Left alone, GCC mixes several p and spills what no longer fits.
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
        keep_in_register(acc[decltype(m)::value][decltype(v)::value]);
      });
    });
  };
  int left = depth;
  for (; left >= 4; left -= 4) {
    step(0);
    step(1);
    step(2);
    step(3);
    low += 4 * sizeof(T);
    high += 4 * sizeof(T);
    b += 4 * b_row;
    opaque(low);
    opaque(high);
    opaque(b);
  }
  for (; left > 0; --left) {
    step(0);
    low += sizeof(T);
    high += sizeof(T);
    b += b_row;
  }
}

// Where a tile starts: its first row and its panel of columns.
struct At {
  int row, panel;
};

// What comes between the terms: dot products with the first, in lanes, then its scale. `acc` is at the tile's first row
// and panel; both may be null.
template <class T, int kRows>
PYMGAN_INLINE void between_terms(Accumulators<T, kRows>& acc, const Product<T>& p, At at) {
  if (p.dot) {
    const T* dot = p.dot + at.row * p.epilogue.ld + at.panel * kLanes;
    T* lanes = p.dot_out + int64_t{at.row} * kLanes;
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
        constexpr int r = decltype(m)::value, c = decltype(v)::value;
        T* lane = lanes + r * kLanes + c * Vec<T>::kWidth;
        fma(acc[r][c], Vec<T>::load(dot + r * p.epilogue.ld + c * Vec<T>::kWidth), Vec<T>::load(lane)).store(lane);
      });
    });
  }
  if (p.scale)
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      const Vec<T> scale = Vec<T>::broadcast(p.scale + at.row + decltype(m)::value);
      for (Vec<T>& x : acc[decltype(m)::value]) x = scale * x;
    });
}

// out = fused epilogue of init + sum of the terms (null: absent). init null: 0; init_row 0: the same row (a bias) for
// all. kBetween: dots and scale of the product between the terms.
template <class T, int kRows, Fused kFused, bool kBetween>
void panel_tile(const Product<T>& p, const Term<T>* first, const Term<T>* second, At at, const T* init,
                int64_t init_row, T* out, int64_t out_row) {
  Accumulators<T, kRows> acc;
  load_tile<T, kRows>(acc, init, init_row);
  for (const Term<T>* t = first; t; t = second, second = nullptr) {
    add_rows_times_panel<T, kRows>(acc, t->a + at.row * t->a_row, t->a_row, t->b + at.panel * t->b_panel, t->b_row,
                                   t->depth);
    if (kBetween && t == first) between_terms<T, kRows>(acc, p, at);
  }
  store_tile<T, kRows, kFused>(acc, &p.epilogue, out, out_row);
}

template <class T>
using PanelTile = void (*)(const Product<T>&, const Term<T>*, const Term<T>*, At, const T*, int64_t, T*, int64_t);

template <class T, Fused kFused, bool kBetween, int... i>
PYMGAN_INLINE const PanelTile<T>* panel_tiles(Indices<i...>) {
  static constexpr PanelTile<T> kTiles[] = {&panel_tile<T, i + 1, kFused, kBetween>...};
  return kTiles;
}

// The tiles of 1, 2, ... rows. Only tangents have something between their terms, and they end with a chain rule.
template <class T>
const PanelTile<T>* panel_tiles_of(Fused kind, bool between) {
  using All = typename MakeIndices<kMaxRows<T>>::Type;
  if constexpr (sizeof(T) == 4) {
    if (kind == Fused::leaky_relu_chain)
      return between ? panel_tiles<T, Fused::leaky_relu_chain, true>(All{})
                     : panel_tiles<T, Fused::leaky_relu_chain, false>(All{});
    if (kind == Fused::leaky_relu && !between) return panel_tiles<T, Fused::leaky_relu, false>(All{});
    if (kind == Fused::relu && !between) return panel_tiles<T, Fused::relu, false>(All{});
  }
  return between ? panel_tiles<T, Fused::store, true>(All{}) : panel_tiles<T, Fused::store, false>(All{});
}

// Few outputs: vectors run along p and are summed at the end, four rows at a time.
inline constexpr int kTogether = 4;
template <class T, int kColumns>
void dots_tile(const Term<T>& t, int first_row, int rows, const T* init, int64_t init_row, T* out, int64_t out_row) {
  constexpr int kWidth = Vec<T>::kWidth;
  for (int m = 0; m < rows; m += kTogether) {
    const T* a[kTogether];  // the last rows again where four are too many
    for (int r = 0; r < kTogether; ++r) a[r] = t.a + (first_row + (m + r < rows ? m + r : rows - 1)) * t.a_row;
    Vec<T> acc[kColumns][kTogether];
    for (auto& column : acc)
      for (auto& x : column) x = Vec<T>(0.0);
    for (int p = 0; p < t.depth; p += kLanes) {
      const T* b = t.b + (p / kLanes) * t.b_panel;
      for (int v = 0; v < kLanes; v += kWidth) {
        Vec<T> x[kTogether];
        for (int r = 0; r < kTogether; ++r) x[r] = Vec<T>::load(a[r] + p + v);
        for (int n = 0; n < kColumns; ++n) {
          const Vec<T> weight = Vec<T>::load(b + n * t.b_row + v);
          for (int r = 0; r < kTogether; ++r) acc[n][r] = fma(x[r], weight, acc[n][r]);
        }
      }
    }
    T sums[kColumns][kTogether];
    for (int n = 0; n < kColumns; ++n) sum_four(acc[n], sums[n]);
    for (int r = 0; r < kTogether && m + r < rows; ++r) {
      T* row = out + (m + r) * out_row;
      const T* start = init ? init + (m + r) * init_row : nullptr;
      T columns[kColumns];
      for (int n = 0; n < kColumns; ++n) columns[n] = (start ? start[n] : T{0}) + sums[n][r];
      for (int n = 0; n < kLanes; n += kWidth) (start ? Vec<T>::load(start + n) : Vec<T>(0.0)).store(row + n);
      for (int n = 0; n < kColumns; ++n) row[n] = columns[n];
    }
  }
}

template <class T>
void dots_tile_of(int columns, const Term<T>& t, int first_row, int rows, const T* init, int64_t init_row, T* out,
                  int64_t out_row) {
  switch (columns) {
    case 1:
      return dots_tile<T, 1>(t, first_row, rows, init, init_row, out, out_row);
    case 2:
      return dots_tile<T, 2>(t, first_row, rows, init, init_row, out, out_row);
    case 3:
      return dots_tile<T, 3>(t, first_row, rows, init, init_row, out, out_row);
    default:
      return dots_tile<T, 4>(t, first_row, rows, init, init_row, out, out_row);
  }
}

// The same as between_terms for a tile in memory, [rows][kLanes].
template <class T>
void between_terms(const Product<T>& p, At at, int rows, T* tile) {
  for (int r = 0; r < rows; ++r) {
    Accumulators<T, 1> acc;
    load_tile<T, 1>(acc, tile + r * kLanes, 0);
    between_terms<T, 1>(acc, p, {at.row + r, at.panel});
    store_tile<T, 1, Fused::store>(acc, nullptr, tile + r * kLanes, 0);
  }
}

// A tile of a product with a term of few outputs: each term adds to the tile in memory.
template <class T>
void narrow_tile(const Product<T>& p, At at, int rows, const T* bias, T* tile) {
  const PanelTile<T>* plain = panel_tiles_of<T>(Fused::store, false);
  const T* init = bias;
  int64_t init_row = 0;
  for (const Term<T>* t : {&p.term0, &p.term1}) {
    if (!t->a) continue;
    if (t->access == Access::dots)
      dots_tile_of(p.columns, *t, at.row, rows, init, init_row, tile, kLanes);
    else
      plain[rows - 1](p, t, nullptr, at, init, init_row, tile, kLanes);
    if (t == &p.term0) between_terms(p, at, rows, tile);
    init = tile;
    init_row = kLanes;
  }
}

template <class T>
void product(const Product<T>& p) {
  const Epilogue<T>& e = p.epilogue;
  const Term<T>*first = p.term0.a ? &p.term0 : nullptr, *second = p.term1.a ? &p.term1 : nullptr;
  const bool narrow = (first && first->access == Access::dots) || (second && second->access == Access::dots);
  const bool between = first && (p.scale || p.dot);
  if (!first) first = second, second = nullptr;
  const Fused kind = narrow ? Fused::none : fused(e, between);
  const bool direct = kind != Fused::none;
  const PanelTile<T>* tiles = panel_tiles_of<T>(direct ? kind : Fused::store, between);
  const ApplyBlock<T> apply = apply_of(e);
  const int panels = static_cast<int>(padded(p.columns) / kLanes);
  const double tile_flops = 2.0 * kLanes * (p.term0.depth + p.term1.depth);
  alignas(64) T buffer[(kMaxRows<T> + kTogether) * kLanes];
  for (int panel = 0; panel < panels; ++panel) {
    const T* bias = p.bias ? p.bias + panel * kLanes : nullptr;
    tile_rows<T>(p.rows, [&](int m, int rows) {
      fetch_ahead(p.ahead, tile_flops * rows);
      const At at{m, panel};
      const int64_t offset = m * e.ld + panel * kLanes;
      if (narrow)
        narrow_tile(p, at, rows, bias, buffer);
      else
        tiles[rows - 1](p, first, second, at, bias, 0, direct ? e.out + offset : buffer, direct ? e.ld : kLanes);
      if (!direct) apply(e, {buffer, kLanes, nullptr, offset, rows, kLanes});
    });
  }
}

// theta' = theta - rate * scale * F with F in `acc`; `at`: elements from the start of theta, scale and out.
template <class T, int kRows>
PYMGAN_INLINE void descend(const Accumulators<T, kRows>& acc, const OuterProduct<T>& o, int64_t at) {
  constexpr int kWidth = Vec<T>::kWidth;
  const Vec<T> rate(o.rate);
  unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
    constexpr int c = decltype(v)::value;
    T* spoilt = o.sums->spoilt + c * kWidth;
    Vec<T> squares(0.0), bad = Vec<T>::load(spoilt);
    unroll<kRows>([&](auto m) __attribute__((always_inline)) {
      constexpr int r = decltype(m)::value;
      const int64_t place = at + r * o.out_row + c * kWidth;
      const Vec<T> f = acc[r][c], step = o.scale ? rate * Vec<T>::load(o.scale + place) : rate;
      const Vec<T> moved = Vec<T>::load(o.theta + place) - step * f;
      moved.store(o.out + place);
      squares = fma(f, f, squares);
      bad = fma(moved, Vec<T>(0.0), bad);
    });
    bad.store(spoilt);
    add_lanes(squares, o.sums->squares + c * kWidth);
  });
}

// The weight gradient's form: A is read along its rows (A[p][m]), so that broadcasts lie next to each other.
template <class T, int kRows, bool kDescend>
void outer_tile(const OuterProduct<T>& o, At at, T* out) {
  Accumulators<T, kRows> acc;
  load_tile<T, kRows>(acc, o.accumulate ? out : nullptr, o.out_row);
  for (const OuterTerm<T>* t : {&o.term0, &o.term1}) {
    if (!t->a) continue;
    const T *a = t->a + at.row, *b = t->b + at.panel * kLanes;
    const int64_t a_ld = t->a_ld, b_ld = t->b_ld;
    auto step = [&]() __attribute__((always_inline)) {
      rank_one<T, kRows>(acc, [&](auto m) __attribute__((always_inline)) { return a + decltype(m)::value; }, b);
      a += a_ld;
      b += b_ld;
      opaque(a);
      opaque(b);
    };
    int left = t->depth;
    for (; left >= 2; left -= 2) {
      step();
      step();
    }
    if (left) step();
  }
  if constexpr (kDescend)
    descend<T, kRows>(acc, o, out - o.out);
  else
    store_tile<T, kRows, Fused::store>(acc, nullptr, out, o.out_row);
}

template <class T>
using OuterTile = void (*)(const OuterProduct<T>&, At, T*);

template <class T, bool kDescend, int... i>
PYMGAN_INLINE const OuterTile<T>* outer_tiles(Indices<i...>) {
  static constexpr OuterTile<T> kTiles[] = {&outer_tile<T, i + 1, kDescend>...};
  return kTiles;
}

template <class T>
void outer(const OuterProduct<T>& o) {
  using All = typename MakeIndices<kMaxRows<T>>::Type;
  const OuterTile<T>* tiles = o.theta ? outer_tiles<T, true>(All{}) : outer_tiles<T, false>(All{});
  const int panels = static_cast<int>(padded(o.columns) / kLanes);
  const double tile_flops = 2.0 * kLanes * (o.term0.depth + o.term1.depth);
  for (int panel = 0; panel < panels; ++panel)
    tile_rows<T>(o.rows, [&](int m, int rows) {
      fetch_ahead(o.ahead, tile_flops * rows);
      tiles[rows - 1](o, {m, panel}, o.out + panel * o.out_panel + m * o.out_row);
    });
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
