// Products with weights and their gradients, as tiles of warps (fragments.h): matrix products, whose weight comes
// through a ring where it is in global memory, and through a window implicit ones, whose operand is gathered as it is
// read.
#pragma once

#include "epilogue.h"
#include "fragments.h"
#include "weights.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

// What a window shows: the rows are the sites of a sample, of those the ones of a group, which see the same taps.
struct WindowRows {
  const WindowRecord* window;
  const GroupRecord* group;
  const int32_t* numbers;
  const float* x;
  int ld, in_ld, inputs, first, count;  // of the rows, those from `first` on

  struct Row {
    const float* sample;
    const int32_t *from, *taps;  // sites that each tap sees; the group's taps
    int in_ld, inputs, depth, quad_first;

    template <bool kFull>
    PYMGAN_DEVICE Quad quad(int chunk) const {
      const int p = chunk + quad_first;
      Quad q;
      if (!kFull && p >= depth) return q;
      int tap = p / inputs, input = p % inputs;
      if (inputs % 4 == 0) return load_quad(sample + from[taps[tap]] * in_ld + input);
      PYMGAN_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (kFull || p + j < depth) q.x[j] = sample[from[taps[tap]] * in_ld + input];
        if (++input == inputs) input = 0, ++tap;
      }
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int quad_first) const {
    const int m = within(first + i, count), site = numbers[group->first_site + m % group->sites];
    return {x + m / group->sites * ld,
            numbers + window->from + site * window->taps,
            numbers + group->first_tap,
            in_ld,
            inputs,
            group->taps * inputs,
            quad_first};
  }
};

// And of the weight's taps that they see: the contraction runs over taps and inputs, or with `adjoint` over taps and
// outputs.
struct WindowWeight {
  const TensorRecord* w;
  const GroupRecord* group;
  const int32_t* numbers;
  const float* x;
  bool adjoint;
  int first;  // of the columns

  struct Row {
    const float* x;
    const int32_t* taps;
    int tap_ld, input_ld, inputs, depth, quad_first;

    template <bool kFull>
    PYMGAN_DEVICE Quad quad(int chunk) const {
      const int p = chunk + quad_first;
      Quad q;
      if (!kFull && p >= depth) return q;
      int tap = p / inputs, input = p % inputs;
      if (input_ld == 1 && inputs % 4 == 0) return load_quad(x + taps[tap] * tap_ld + input);
      PYMGAN_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (kFull || p + j < depth) q.x[j] = x[taps[tap] * tap_ld + input * input_ld];
        if (++input == inputs) input = 0, ++tap;
      }
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int quad_first) const {
    const int n = within(first + i, adjoint ? w->k : w->n), inputs = adjoint ? w->n : w->k;
    const int32_t* taps = numbers + group->first_tap;
    const int depth = group->taps * inputs;
    return adjoint ? Row{x + n, taps, w->k, w->ld, inputs, depth, quad_first}
                   : Row{x + n * w->ld, taps, w->k, 1, inputs, depth, quad_first};
  }
};

// A matrix whose rows are the pairs of sites of a tap, sample after sample: the contraction runs over them.
struct Pairs {
  const float* x;
  const int32_t* site;                            // [pairs]
  int pairs, samples, ld, site_ld, first, count;  // of the columns, those from `first` on

  struct Row {
    const float* x;
    const int32_t* site;
    int pairs, samples, ld, site_ld, quad_first;

    template <bool kFull>
    PYMGAN_DEVICE Quad quad(int chunk) const {
      const int p = chunk + quad_first;
      Quad q;
      int sample = p / pairs, pair = p % pairs;
      PYMGAN_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (kFull || sample < samples) q.x[j] = x[sample * ld + site[pair] * site_ld];
        if (++pair == pairs) pair = 0, ++sample;
      }
      return q;
    }
  };
  PYMGAN_DEVICE Row row(int i, int quad_first) const {
    return {x + within(first + i, count), site, pairs, samples, ld, site_ld, quad_first};
  }
};

class Products {
 public:
  PYMGAN_DEVICE Products(Operands& operands, Rings& rings, Precision precision)
      : o(operands), rings_(rings), precision_(precision) {}

  // out = apply(scale (a0 B0 + bias) + a1 B1), B = W^T or with adjoint W; dots of the first term.
  PYMGAN_DEVICE_CALL void product(const Code& c) {
    const TensorRecord& w = o.t.tensors[c.tensor];
    if (c.window < 0) {
      FlatForm form{c, w, padded(c.columns)};
      tiles(c, w, form, c.rows);
    } else {
      const WindowRecord& window = o.t.windows[2 * c.window + c.adjoint];
      const int columns = c.adjoint ? w.k : w.n;
      for (int i = 0; i < window.groups; ++i) {
        const GroupRecord& group = o.t.groups[window.first_group + i];
        const WindowForm form{c,
                              w,
                              window,
                              group,
                              o.t.numbers,
                              site_ld(window.in_sites, c.depth),
                              site_ld(window.out_sites, columns),
                              padded(c.columns)};
        tiles(c, w, form, c.rows * group.sites);
      }
      pad_sample(c, window.out_sites * site_ld(window.out_sites, columns));
    }
    sum_dots(c, w);
    Epilogue::apply(o, c, c.rows * padded(c.columns));
  }

  // F = b0^T a0 + b1^T a1, and its bias.
  PYMGAN_DEVICE_CALL void outer(const Code& c) {
    const TensorRecord& w = o.t.tensors[c.tensor];
    if (w.of >= 0) return diagonal_outer(c, w);
    Sink sink(o, c, o.at(c.out), o.at(c.theta), o.at(c.rate_scale));
    if (w.taps * up(w.n, kTileRows) * up(w.k, 2 * kTileColumns) < o.block.warp_count())
      outer_tiles<2>(c, w, sink);
    else
      outer_tiles<4>(c, w, sink);
    look(c, sink);
  }

  // The same with numbers that elements share.
  PYMGAN_DEVICE_CALL void diagonal(const Code& c) {
    const TensorRecord& w = o.t.tensors[c.tensor];
    const int32_t* of = o.t.numbers + w.of;
    const float *a0 = o.at(c.a0), *w0 = o.at(c.b0), *a1 = o.at(c.a1), *w1 = o.at(c.b1), *b = o.bias_at(c.bias);
    const float *scale = o.at(c.scale), *dot = o.at(c.dot);
    const Epilogue e(o, c);
    const int ld = padded(c.columns);
    auto first = [&](int row, int n) {
      if (!a0 || n >= w.elements || of[n] < 0) return 0.f;
      return w0[of[n]] * a0[row * ld + n] + (b ? b[of[n]] : 0.f);
    };
    if (c.dot_out.slot >= 0) {
      float* dot_out = o.at(c.dot_out);
      o.block.warps(c.rows, [&](int row) {
        const float sum = warp_sum(c.columns, [&](int n) { return dot[row * ld + n] * first(row, n); });
        one_lane([&] { dot_out[row * c.dot_out.ld] += sum; });
      });
    }
    o.block.each(c.rows * ld, [&](int i) {
      const int row = i / ld, n = i % ld;
      float y = first(row, n);
      if (scale) y *= scale[row];
      if (a1 && n < w.elements && of[n] >= 0) y += w1[of[n]] * a1[i];
      e.put(i, y);
    });
    Epilogue::apply(o, c, c.rows * ld);
  }

 private:
  static PYMGAN_DEVICE int up(int n, int by) { return (n + by - 1) / by; }

  // Rows of out are samples.
  struct FlatForm {
    static constexpr bool kWide = true, kStreams = true;
    const Code& c;
    const TensorRecord& w;
    int ld;

    PYMGAN_DEVICE int depth() const { return c.depth; }
    PYMGAN_DEVICE int columns() const { return c.columns; }
    PYMGAN_DEVICE int width() const { return ld; }  // with padding, which becomes what zero gives
    PYMGAN_DEVICE int sites() const { return 1; }
    PYMGAN_DEVICE int sample(int m) const { return m; }
    PYMGAN_DEVICE int site(int) const { return 0; }
    PYMGAN_DEVICE int out(int sample, int) const { return sample * ld; }
    // Whether a tile from column n0 on has full blocks of the weight alone, as a ring wants them.
    template <int N>
    PYMGAN_DEVICE bool has_full_blocks(int n0) const {
      return Blocks{w.n, w.ld}.blocked() && c.depth % kBlock == 0 && n0 + 8 * N <= c.columns;
    }
    template <int N>
    PYMGAN_DEVICE void multiply(Tile<N>& tile, Precision precision, const float* a, int a_ld, const float* weight,
                                int m0, int n0, Ring<N / 2>& ring, bool streams) const {
      const Along rows{a + m0 * a_ld, a_ld, c.rows - m0, c.depth};
      const Blocks blocks{w.n, w.ld};
      if (c.adjoint && streams)
        tile.multiply(c.depth, precision, rows, RingWeight<true, N / 2>{&ring, w.ld});
      else if (c.adjoint)
        tile.multiply(c.depth, precision, rows, WeightColumns{weight, blocks, n0, c.columns - n0, c.depth});
      else if (streams)
        tile.multiply(c.depth, precision, rows, RingWeight<false, N / 2>{&ring, w.ld});
      else
        tile.multiply(c.depth, precision, rows, WeightRows{weight, blocks, n0, c.depth});
    }
  };
  // Rows of out are the sites of a group, sample after sample.
  struct WindowForm {
    static constexpr bool kWide = false, kStreams = false;
    const Code& c;
    const TensorRecord& w;
    const WindowRecord& window;
    const GroupRecord& group;
    const int32_t* numbers;
    int in_ld, out_ld, ld;

    PYMGAN_DEVICE int depth() const { return group.taps * c.depth; }
    PYMGAN_DEVICE int columns() const { return c.adjoint ? w.k : w.n; }
    PYMGAN_DEVICE int width() const { return out_ld; }
    PYMGAN_DEVICE int sites() const { return window.out_sites; }
    PYMGAN_DEVICE int sample(int m) const { return m / group.sites; }
    PYMGAN_DEVICE int site(int m) const { return numbers[group.first_site + m % group.sites]; }
    PYMGAN_DEVICE int out(int sample, int site) const { return sample * ld + site * out_ld; }
    template <int N>
    PYMGAN_DEVICE bool has_full_blocks(int) const {
      return false;
    }
    template <int N>
    PYMGAN_DEVICE void multiply(Tile<N>& tile, Precision precision, const float* a, int a_ld, const float* weight,
                                int m0, int n0, Ring<N / 2>&, bool) const {
      const WindowRows rows{&window, &group, numbers, a, a_ld, in_ld, c.depth, m0, c.rows * group.sites};
      tile.multiply(depth(), precision, rows, WindowWeight{&w, &group, numbers, weight, c.adjoint, n0});
    }
  };

  // Rows m < count of out; narrow tiles where wide ones would leave warps idle, or want more registers than there are.
  template <class Form>
  PYMGAN_DEVICE void tiles(const Code& c, const TensorRecord& w, const Form& form, int count) {
    if (!Form::kWide || up(count, kTileRows) * up(form.width(), 2 * kTileColumns) < o.block.warp_count())
      tiles_of<2>(c, w, form, count);
    else if constexpr (Form::kWide)
      tiles_of<4>(c, w, form, count);
  }

  template <int N, class Form>
  PYMGAN_DEVICE void tiles_of(const Code& c, const TensorRecord& w, const Form& form, int count) {
    const float *a0 = o.at(c.a0), *w0 = o.at(c.b0), *a1 = o.at(c.a1), *w1 = o.at(c.b1), *bias = o.bias_at(c.bias);
    const float *scale = o.at(c.scale), *dot = o.at(c.dot);
    float* dots = c.dot_out.slot >= 0 ? o.at(c.scratch) : nullptr;
    const Epilogue e(o, c);
    const int columns = form.columns(), width = form.width();
    const int column_tiles = up(width, 8 * N), dot_tiles = up(w.n, kTileColumns);
    // The weights that a ring has.
    const float *far0 = nullptr, *far1 = nullptr;
    if (Form::kStreams && rings_.have(N / 2)) {
      if (a0 && o.block.is_far(w0)) far0 = w0;
      if (a1 && o.block.is_far(w1)) far1 = w1;
      if (far0 || far1) rings_.see_writes();
    }
    o.block.warps(up(count, kTileRows) * column_tiles, [&](int number) {
      const int m0 = number / column_tiles * kTileRows, n0 = number % column_tiles * 8 * N;
      Tile<N> tile;
      const bool streams = Form::kStreams && (far0 || far1) && form.template has_full_blocks<N>(n0);
      Ring<N / 2> ring = rings_.template ring<N / 2>(number);
      if (streams) ring.start({w.n, w.ld}, c.adjoint, n0, far0, far1);
      // Of the lane's rows.
      bool in[Tile<N>::kRows];
      int sample[Tile<N>::kRows], site[Tile<N>::kRows], at[Tile<N>::kRows];
      PYMGAN_UNROLL
      for (int r = 0; r < Tile<N>::kRows; ++r) {
        const int m = m0 + Tile<N>::row(r);
        in[r] = m < count;
        sample[r] = in[r] ? form.sample(m) : 0, site[r] = in[r] ? form.site(m) : 0;
        at[r] = form.out(sample[r], site[r]) + n0;
      }
      PYMGAN_LOOP
      for (int term = 0; term < 2; ++term) {
        const float* a = term == 0 ? a0 : a1;
        if (!a) continue;
        form.multiply(tile, precision_, a, term == 0 ? c.a0.ld : c.a1.ld, term == 0 ? w0 : w1, m0, n0, ring,
                      streams && (term == 0 ? far0 : far1));
        if (term == 1) break;
        if (bias)
          tile.each([&](int r, int column, float& value) {
            if (in[r] && n0 + column < columns)
              value += bias[(w.bias_sites > 1 ? site[r] * w.bias_ld : 0) + n0 + column];
          });
        if (dots)
          tile.row_sums([&](int r, int column,
                            float value) { return in[r] && n0 + column < columns ? dot[at[r] + column] * value : 0.f; },
                        [&](int r, int part, float sum) {
                          const int number = n0 / kTileColumns + part;
                          if (in[r] && number < dot_tiles)
                            dots[(sample[r] * form.sites() + site[r]) * dot_tiles + number] = sum;
                        });
        if (scale)
          tile.each([&](int r, int, float& value) {
            if (in[r]) value *= scale[sample[r]];
          });
      }
      if (streams) ring.stop();
      tile.each([&](int r, int column, float value) {
        if (in[r] && n0 + column < width) e.put(at[r] + column, n0 + column < columns ? value : 0.f);
      });
    });
  }

  // Behind a sample's last site.
  PYMGAN_DEVICE void pad_sample(const Code& c, int stored) {
    const int ld = padded(c.columns), spare = ld - stored;
    if (spare <= 0) return;
    const Epilogue e(o, c);
    o.block.each(c.rows * spare, [&](int i) { e.put(i / spare * ld + stored + i % spare, 0.f); });
  }

  PYMGAN_DEVICE void sum_dots(const Code& c, const TensorRecord& w) {
    if (c.dot_out.slot < 0 || c.a0.slot < 0) return;
    const int sites = c.window < 0 ? 1 : o.t.windows[2 * c.window].out_sites;
    const int each = sites * up(w.n, kTileColumns);
    const float* dots = o.at(c.scratch);
    float* out = o.at(c.dot_out);
    o.block.each(c.rows, [&](int row) {
      float sum = 0;
      for (int i = 0; i < each; ++i) sum += dots[row * each + i];
      out[row * c.dot_out.ld] += sum;
    });
  }

  // Where a gradient goes: to memory, or with theta straight into the parameters after the step.
  struct Sink {
    float* out;
    const float *theta, *scale;
    float rate;
    bool accumulate;
    double squares = 0, spoilt = 0;  // of what this thread has put

    PYMGAN_DEVICE Sink(const Operands& o, const Code& c, float* out, const float* theta, const float* scale)
        : out(out), theta(theta), scale(scale), rate(o.task.rate[index_of(c.player)]), accumulate(c.accumulate) {}
    PYMGAN_DEVICE void put(int i, float f) {
      if (!theta) {
        out[i] = accumulate ? out[i] + f : f;
        return;
      }
      out[i] = theta[i] - rate * (scale ? scale[i] : 1.f) * f;
      squares += static_cast<double>(f) * f;
      spoilt += is_finite(out[i]) ? 0 : 1;
    }
    PYMGAN_DEVICE void clear(int i) const { out[i] = theta ? theta[i] : 0.f; }
  };

  // Tiles of the weight, padding included, and after those the bias, a warp 32 of it.
  template <int N>
  PYMGAN_DEVICE void outer_tiles(const Code& c, const TensorRecord& w, Sink& sink) {
    const WindowRecord* window = c.window < 0 ? nullptr : &o.t.windows[2 * c.window];
    const int spare = w.ld - w.taps * w.k;  // behind each row
    const int row_tiles = up(w.n, kTileRows), column_tiles = up(w.k + spare, 8 * N);
    const int in_ld = window ? site_ld(window->in_sites, w.k) : 0,
              out_ld = window ? site_ld(window->out_sites, w.n) : 0;
    const int tiles = w.taps * row_tiles * column_tiles;
    const int bias_tiles = o.bias_at(c.out) ? up(w.bias_size, kWarp) : 0;
    o.block.warps(tiles + bias_tiles, [&](int number) {
      if (number >= tiles) return bias(c, w, window, out_ld, (number - tiles) * kWarp, sink);
      const int tap = number / (row_tiles * column_tiles), rest = number % (row_tiles * column_tiles);
      const int n0 = rest / column_tiles * kTileRows, k0 = rest % column_tiles * 8 * N;
      Tile<N> tile;
      PYMGAN_LOOP
      for (int term = 0; term < 2; ++term) {
        const Operand &h = term == 0 ? c.a0 : c.a1, &delta = term == 0 ? c.b0 : c.b1;
        const float *a = o.at(delta), *b = o.at(h);
        if (!a || !b) continue;
        const int samples = term == 0 ? c.rows0 : c.rows1;
        if (!window) {
          tile.multiply(samples, precision_, Across{a + n0, delta.ld, w.n - n0, samples},
                        Across{b + k0, h.ld, w.k - k0, samples});
          continue;
        }
        const int32_t* first = o.t.numbers + window->first_pair + tap;
        const int pairs = first[1] - first[0];
        if (pairs == 0) continue;
        tile.multiply(samples * pairs, precision_,
                      Pairs{a, o.t.numbers + window->pair_out + first[0], pairs, samples, delta.ld, out_ld, n0, w.n},
                      Pairs{b, o.t.numbers + window->pair_in + first[0], pairs, samples, h.ld, in_ld, k0, w.k});
      }
      const int width = tap == w.taps - 1 ? w.k + spare : w.k;
      tile.each([&](int r, int column, float value) {
        const int n = n0 + Tile<N>::row(r), k = k0 + column;
        if (n >= w.n || k >= width) return;
        const int at = weight_at(w, n, tap * w.k + k);
        if (k < w.k)
          sink.put(at, value);
        else if (!c.accumulate)
          sink.clear(at);
      });
    });
  }

  PYMGAN_DEVICE void look(const Code& c, const Sink& sink) {
    if (!sink.theta) return;
    const int p = index_of(c.player);
    double squares = sink.squares, spoilt = sink.spoilt;
    o.block.reduce(squares, spoilt);
    o.task.squares[p] += squares, o.task.spoilt[p] += spoilt;
  }

  // Elements `first` to `first` + 31 of a bias, by a warp; what it finds is the weight's sink's.
  PYMGAN_DEVICE void bias(const Code& c, const TensorRecord& w, const WindowRecord* window, int out_ld,
                          int first_of_all, Sink& found) {
    Sink sink(o, c, o.bias_at(c.out), o.bias_at(c.theta), o.bias_at(c.rate_scale));
    const float* delta = o.at(c.b0);
    const int sites = window && w.bias_sites == 1 ? window->out_sites : 1;
    lanes(w.bias_size - first_of_all < kWarp ? w.bias_size - first_of_all : kWarp, [&](int lane) {
      const int i = first_of_all + lane, site = i / w.bias_ld, n = i % w.bias_ld;
      if (site >= w.bias_sites || n >= w.n) {
        if (!c.accumulate) sink.clear(i);
        return;
      }
      const float* x = delta + (w.bias_sites > 1 ? site * out_ld : 0) + n;
      float sums[4] = {};  // of every fourth row: four loads at a time
      for (int m = 0; m < c.rows0; m += 4)
        for (int s = 0; s < sites; ++s) PYMGAN_UNROLL
      for (int j = 0; j < 4; ++j)
        if (m + j < c.rows0) sums[j] += x[(m + j) * c.b0.ld + s * out_ld];
      sink.put(i, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    });
    found.squares += sink.squares, found.spoilt += sink.spoilt;
  }

  PYMGAN_DEVICE_CALL void diagonal_outer(const Code& c, const TensorRecord& w) {
    const float *a0 = o.at(c.a0), *b0 = o.at(c.b0), *a1 = o.at(c.a1), *b1 = o.at(c.b1);
    const int32_t *start = o.t.numbers + w.start, *members = o.t.numbers + w.members;
    for (int of_bias = 0; of_bias < 2; ++of_bias) {
      float* out = of_bias ? o.bias_at(c.out) : o.at(c.out);
      if (!out) continue;
      Sink sink(o, c, out, of_bias ? o.bias_at(c.theta) : o.at(c.theta),
                of_bias ? o.bias_at(c.rate_scale) : o.at(c.rate_scale));
      o.block.warps(padded(w.n), [&](int i) {
        const int first = i < w.n ? start[i] : 0, count = i < w.n ? start[i + 1] - first : 0;
        const float sum = warp_sum(count, [&](int n) {
          const int at = members[first + n];
          float all = 0;
          for (int m = 0; m < c.rows0; ++m) all += b0[m * c.b0.ld + at] * (of_bias ? 1.f : a0[m * c.a0.ld + at]);
          if (a1 && !of_bias)
            for (int m = 0; m < c.rows1; ++m) all += b1[m * c.b1.ld + at] * a1[m * c.a1.ld + at];
          return all;
        });
        one_lane([&] {
          if (i < w.n)
            sink.put(i, sum);
          else if (!c.accumulate)
            sink.clear(i);
        });
      });
      look(c, sink);
    }
  }

  Operands& o;
  Rings& rings_;
  Precision precision_;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
