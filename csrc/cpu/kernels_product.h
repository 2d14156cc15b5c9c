// Matrix products in tiles of up to kMaxRows rows by one panel of 16 columns, whose accumulators stay in registers: for
// every p the panel's row is loaded once and multiplied by one broadcast of A a row. Panels are the outer loop, so that
// one of B stays in L1 while the tiles of rows pass. Rows are split evenly (20 = 10 + 10): no narrow tile at the end.
#pragma once

#include "kernels_epilogue.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

// Three quarters of the registers accumulate; AVX-512's sixteen more than cover the latency of an FMA.
template <class T>
inline constexpr int kMaxRows = kVectors<T> == 1 ? 16 : PYMGAN_REGISTERS * 3 / 4 / kVectors<T>;

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

template <class T, int kRows>
PYMGAN_INLINE void store_tile(const Accumulators<T, kRows>& acc, T* to, int64_t row) {
  unroll<kRows>([&](auto m) __attribute__((always_inline)) {
    unroll<kVectors<T>>([&](auto v) __attribute__((always_inline)) {
      constexpr int r = decltype(m)::value, c = decltype(v)::value;
      acc[r][c].store(to + r * row + c * Vec<T>::kWidth);
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
// from six registers, where sixteen pointers would spill. The empty asm keeps compilers from computing their own.
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
    asm("" : "+r"(low), "+r"(high), "+r"(s), "+r"(s3), "+r"(s5), "+r"(s7));
    rank_one<T, kRows>(
        acc,
        [&](auto m) __attribute__((always_inline)) {
          constexpr int r = decltype(m)::value;
          return row_address<r, T>(r < 8 ? low : high, s, s3, s5, s7) + p;
        },
        b + p * b_row);
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
    asm("" : "+r"(low), "+r"(high), "+r"(b));
  }
  for (; left > 0; --left) {
    step(0);
    low += sizeof(T);
    high += sizeof(T);
    b += b_row;
  }
}

// The two terms of a tile with their pointers at its first row and its panel.
template <class T>
struct TileTerms {
  Term<T> term[2];
  int count = 0;
  void add(const Term<T>& t) {
    if (t.a) term[count++] = t;
  }
};

// out = init + sum of the terms; init null: 0, init_row 0: the same row (a bias) for all.
template <class T, int kRows>
void panel_tile(const TileTerms<T>& terms, const T* init, int64_t init_row, T* out, int64_t out_row) {
  Accumulators<T, kRows> acc;
  load_tile<T, kRows>(acc, init, init_row);
  for (int i = 0; i < terms.count; ++i) {
    const Term<T>& t = terms.term[i];
    add_rows_times_panel<T, kRows>(acc, t.a, t.a_row, t.b, t.b_row, t.depth);
  }
  store_tile<T, kRows>(acc, out, out_row);
}

template <class T, int... i>
PYMGAN_INLINE void call_panel_tile(Indices<i...>, int rows, const TileTerms<T>& terms, const T* init, int64_t init_row,
                                   T* out, int64_t out_row) {
  using Tile = void (*)(const TileTerms<T>&, const T*, int64_t, T*, int64_t);
  static constexpr Tile kTiles[] = {&panel_tile<T, i + 1>...};
  kTiles[rows - 1](terms, init, init_row, out, out_row);
}

// Few outputs: vectors run along p and are summed at the end; kTogether rows hide the latency.
template <class T, int kColumns, int kTogether>
PYMGAN_INLINE void dots(const Term<T>& t, const T* init, int64_t init_row, T* out, int64_t out_row) {
  constexpr int kWidth = Vec<T>::kWidth;
  Vec<T> acc[kTogether][kColumns];
  for (auto& row : acc)
    for (auto& x : row) x = Vec<T>(0.0);
  for (int p = 0; p < t.depth; p += kLanes) {
    const T* b = t.b + (p / kLanes) * t.b_panel;
    for (int v = 0; v < kVectors<T>; ++v) {
      Vec<T> column[kColumns];
      for (int n = 0; n < kColumns; ++n) column[n] = Vec<T>::load(b + n * t.b_row + v * kWidth);
      for (int m = 0; m < kTogether; ++m) {
        const Vec<T> x = Vec<T>::load(t.a + m * t.a_row + p + v * kWidth);
        for (int n = 0; n < kColumns; ++n) acc[m][n] = fma(x, column[n], acc[m][n]);
      }
    }
  }
  for (int m = 0; m < kTogether; ++m) {
    alignas(64) T row[kLanes] = {};
    for (int n = 0; n < kColumns; ++n) row[n] = sum(acc[m][n]);
    for (int n = 0; n < kLanes; n += kWidth) {
      Vec<T> x = Vec<T>::load(row + n);
      if (init) x = x + Vec<T>::load(init + m * init_row + n);
      x.store(out + m * out_row + n);
    }
  }
}

template <class T, int kColumns>
void dots_tile(Term<T> t, int rows, const T* init, int64_t init_row, T* out, int64_t out_row) {
  constexpr int kTogether = PYMGAN_REGISTERS == 32 || kColumns < 3 ? 4 : 2;
  while (rows > 0) {
    const int done = rows >= kTogether ? kTogether : 1;
    if (done > 1)
      dots<T, kColumns, kTogether>(t, init, init_row, out, out_row);
    else
      dots<T, kColumns, 1>(t, init, init_row, out, out_row);
    rows -= done;
    t.a += done * t.a_row;
    if (init) init += done * init_row;
    out += done * out_row;
  }
}

template <class T>
void call_dots_tile(int columns, const Term<T>& t, int rows, const T* init, int64_t init_row, T* out, int64_t out_row) {
  switch (columns) {
    case 1:
      return dots_tile<T, 1>(t, rows, init, init_row, out, out_row);
    case 2:
      return dots_tile<T, 2>(t, rows, init, init_row, out, out_row);
    case 3:
      return dots_tile<T, 3>(t, rows, init, init_row, out, out_row);
    default:
      return dots_tile<T, 4>(t, rows, init, init_row, out, out_row);
  }
}

// One tile: out = init + the given terms of row m, panel `panel`.
template <class T>
void product_tile(const Product<T>& p, bool first, bool second, int m, int rows, int panel, const T* init,
                  int64_t init_row, T* out, int64_t out_row) {
  TileTerms<T> chained;
  for (const Term<T>* t : {first ? &p.term0 : nullptr, second ? &p.term1 : nullptr}) {
    if (!t || !t->a) continue;
    Term<T> at = *t;
    at.a += m * t->a_row;
    if (t->access == Access::panels) {
      at.b += panel * t->b_panel;
      chained.add(at);
    } else {
      call_dots_tile(p.columns, at, rows, init, init_row, out, out_row);
      init = out;
      init_row = out_row;
    }
  }
  if (chained.count > 0 || init != out)
    call_panel_tile(typename MakeIndices<kMaxRows<T>>::Type{}, rows, chained, init, init_row, out, out_row);
}

// What comes between the terms: dot products with the first, then its scale.
template <class T>
void middle(const Product<T>& p, int m, int rows, int panel, T* tile) {
  for (int r = 0; r < rows; ++r) {
    T* row = tile + r * kLanes;
    const T* dot = p.dot ? p.dot + (m + r) * p.epilogue.ld + panel * kLanes : nullptr;
    Vec<T> total(0.0);
    for (int n = 0; n < kLanes; n += Vec<T>::kWidth) {
      Vec<T> x = Vec<T>::load(row + n);
      if (dot) total = fma(x, Vec<T>::load(dot + n), total);
      if (p.scale) (x * Vec<T>::broadcast(p.scale + m + r)).store(row + n);
    }
    if (dot) p.dot_out[m + r] += sum(total);
  }
}

template <class T>
void product(const Product<T>& p) {
  const Epilogue<T>& e = p.epilogue;
  const bool direct = plain(e), between = p.term0.a && (p.scale || p.dot);
  const ApplyBlock<T> apply = apply_of(e);
  const int panels = static_cast<int>(padded(p.columns) / kLanes);
  alignas(64) T buffer[kMaxRows<T> * kLanes];
  for (int panel = 0; panel < panels; ++panel) {
    const T* bias = p.bias ? p.bias + panel * kLanes : nullptr;
    tile_rows<T>(p.rows, [&](int m, int rows) {
      const int64_t offset = m * e.ld + panel * kLanes;
      T* tile = direct ? e.out + offset : buffer;
      const int64_t tile_row = direct ? e.ld : kLanes;
      if (!between) {
        product_tile(p, true, true, m, rows, panel, bias, 0, tile, tile_row);
      } else {
        product_tile(p, true, false, m, rows, panel, bias, 0, buffer, kLanes);
        middle(p, m, rows, panel, buffer);
        if (p.term1.a || direct) product_tile<T>(p, false, true, m, rows, panel, buffer, kLanes, tile, tile_row);
      }
      if (!direct) apply(e, {tile, tile_row, nullptr, offset, rows, kLanes});
    });
  }
}

// The weight gradient's form: A is read along its rows (A[p][m]), so that broadcasts lie next to each other.
template <class T, int kRows>
void outer_tile(const OuterTerm<T> (&terms)[2], bool accumulate, T* out, int64_t out_row) {
  Accumulators<T, kRows> acc;
  load_tile<T, kRows>(acc, accumulate ? out : nullptr, out_row);
  for (const OuterTerm<T>& t : terms) {
    if (!t.a) continue;
    const T *a = t.a, *b = t.b;
    auto step = [&]() __attribute__((always_inline)) {
      rank_one<T, kRows>(acc, [&](auto m) __attribute__((always_inline)) { return a + decltype(m)::value; }, b);
      a += t.a_ld;
      b += t.b_ld;
      asm("" : "+r"(a), "+r"(b));
    };
    int left = t.depth;
    for (; left >= 2; left -= 2) {
      step();
      step();
    }
    if (left) step();
  }
  store_tile<T, kRows>(acc, out, out_row);
}

template <class T, int... i>
PYMGAN_INLINE void call_outer_tile(Indices<i...>, int rows, const OuterTerm<T> (&terms)[2], bool accumulate, T* out,
                                   int64_t out_row) {
  using Tile = void (*)(const OuterTerm<T>(&)[2], bool, T*, int64_t);
  static constexpr Tile kTiles[] = {&outer_tile<T, i + 1>...};
  kTiles[rows - 1](terms, accumulate, out, out_row);
}

template <class T>
void outer(const OuterProduct<T>& p) {
  const int panels = static_cast<int>(padded(p.columns) / kLanes);
  for (int panel = 0; panel < panels; ++panel)
    tile_rows<T>(p.rows, [&](int m, int rows) {
      OuterTerm<T> terms[2] = {p.term0, p.term1};
      for (OuterTerm<T>& t : terms) {
        if (!t.a) continue;
        t.a += m;
        t.b += panel * kLanes;
      }
      call_outer_tile(typename MakeIndices<kMaxRows<T>>::Type{}, rows, terms, p.accumulate,
                      p.out + panel * p.out_panel + m * p.out_row, p.out_row);
    });
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
