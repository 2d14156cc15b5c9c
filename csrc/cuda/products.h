// Products with weights and their gradients, as tiles of warps (fragments.h): matrix products, and through a window
// implicit ones, whose operand is gathered as it is read.
#pragma once

#include "epilogue.h"
#include "fragments.h"

namespace pymgan::cuda {

class Products {
 public:
  PYMGAN_DEVICE explicit Products(Operands& operands, bool fast) : o(operands), fast_(fast) {}

  // out = apply(scale (a0 B0 + bias) + a1 B1), B = W^T or with adjoint W; dots of the first term.
  PYMGAN_DEVICE_CALL void product(const Code& c) {
    const TensorRecord& w = o.t.tensors[c.tensor];
    if (c.window < 0) {
      tiles(c, w, c.rows, c.columns, FlatRows{}, c.columns);
    } else {
      const WindowRecord& window = o.t.windows[2 * c.window + c.adjoint];
      const int columns = c.adjoint ? w.k : w.n;
      for (int i = 0; i < window.groups; ++i) {
        const GroupRecord& group = o.t.groups[window.first_group + i];
        const WindowRows rows{&window, &group, o.t.numbers, site_ld(window.in_sites, c.depth),
                              site_ld(window.out_sites, columns)};
        tiles(c, w, c.rows * group.sites, columns, rows, rows.out_ld);
      }
      pad_sample(c, window.out_sites * site_ld(window.out_sites, columns));
    }
    sum_dots(c, w);
  }

  // F = b0^T a0 + b1^T a1, and its bias.
  PYMGAN_DEVICE_CALL void outer(const Code& c) {
    const TensorRecord& w = o.t.tensors[c.tensor];
    if (w.of >= 0) return diagonal_outer(c, w);
    Sink sink(o, c, o.at(c.out), o.at(c.theta), o.at(c.rate_scale));
    const WindowRecord* window = c.window < 0 ? nullptr : &o.t.windows[2 * c.window];
    const int row_tiles = up(w.n, kTileRows), column_tiles = up(w.k, kTileColumns);
    const int in_ld = window ? site_ld(window->in_sites, w.k) : 0,
              out_ld = window ? site_ld(window->out_sites, w.n) : 0;
    o.block.warps(w.taps * row_tiles * column_tiles, [&](int tile_number) {
      const int tap = tile_number / (row_tiles * column_tiles), rest = tile_number % (row_tiles * column_tiles);
      const int n0 = rest / column_tiles * kTileRows, k0 = rest % column_tiles * kTileColumns;
      Tile tile;
      auto term = [&](const Operand& h, const Operand& delta, int samples) {
        const float *a = o.at(delta), *b = o.at(h);
        if (!b) return;
        if (!window) {
          tile.multiply(
              samples, fast_, [&](int row, int p) { return n0 + row < w.n ? a[p * delta.ld + n0 + row] : 0.f; },
              [&](int p, int column) { return k0 + column < w.k ? b[p * h.ld + k0 + column] : 0.f; });
          return;
        }
        const int32_t* numbers = o.t.numbers;
        const int first = numbers[window->first_pair + tap], pairs = numbers[window->first_pair + tap + 1] - first;
        const int32_t *in = numbers + window->pair_in + first, *out = numbers + window->pair_out + first;
        tile.multiply(
            samples * pairs, fast_,
            [&](int row, int p) {
              return n0 + row < w.n ? a[p / pairs * delta.ld + out[p % pairs] * out_ld + n0 + row] : 0.f;
            },
            [&](int p, int column) {
              return k0 + column < w.k ? b[p / pairs * h.ld + in[p % pairs] * in_ld + k0 + column] : 0.f;
            });
      };
      term(c.a0, c.b0, c.rows0);
      if (c.a1.slot >= 0) term(c.a1, c.b1, c.rows1);
      tile.each([&](int row, int column, float& value) {
        const int n = n0 + row, k = k0 + column;
        if (n < w.n && k < w.k) sink.put(n * w.ld + tap * w.k + k, value);
      });
    });
    const int inputs = w.taps * w.k, spare = w.ld - inputs;
    if (!c.accumulate && spare > 0)
      o.block.each(w.n * spare, [&](int i) { sink.clear(i / spare * w.ld + inputs + i % spare); });
    look(c, sink);
    bias(c, w, window, out_ld);
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
      e.finish(i, y);
    });
  }

 private:
  static PYMGAN_DEVICE int up(int n, int by) { return (n + by - 1) / by; }

  // How a tile's row m finds what it multiplies: a sample.
  struct FlatRows {
    PYMGAN_DEVICE int depth(const Code& c) const { return c.depth; }
    PYMGAN_DEVICE float a(const float* x, int ld, const Code&, int m, int p) const { return x[m * ld + p]; }
    PYMGAN_DEVICE int tap(const Code&, int) const { return 0; }
    PYMGAN_DEVICE int input(const Code&, int p) const { return p; }
    PYMGAN_DEVICE int out(int ld, int m, int n) const { return m * ld + n; }
    PYMGAN_DEVICE int sample(int m) const { return m; }
    PYMGAN_DEVICE int site(int) const { return 0; }
  };
  // A site of a sample, and of those the ones of a group, which see the same taps.
  struct WindowRows {
    const WindowRecord* window;
    const GroupRecord* group;
    const int32_t* numbers;
    int in_ld, out_ld;

    PYMGAN_DEVICE int depth(const Code& c) const { return group->taps * c.depth; }
    PYMGAN_DEVICE int tap(const Code& c, int p) const { return numbers[group->first_tap + p / c.depth]; }
    PYMGAN_DEVICE int input(const Code& c, int p) const { return p % c.depth; }
    PYMGAN_DEVICE int sample(int m) const { return m / group->sites; }
    PYMGAN_DEVICE int site(int m) const { return numbers[group->first_site + m % group->sites]; }
    PYMGAN_DEVICE float a(const float* x, int ld, const Code& c, int m, int p) const {
      const int from = numbers[window->from + site(m) * window->taps + tap(c, p)];
      return x[sample(m) * ld + from * in_ld + input(c, p)];
    }
    PYMGAN_DEVICE int out(int ld, int m, int n) const { return sample(m) * ld + site(m) * out_ld + n; }
  };

  // Rows m < count of out; columns: exact, width: with the padding of a site or sample, which becomes what zero gives.
  template <class Rows>
  PYMGAN_DEVICE void tiles(const Code& c, const TensorRecord& w, int count, int columns, const Rows& rows, int width) {
    const float *a0 = o.at(c.a0), *w0 = o.at(c.b0), *a1 = o.at(c.a1), *w1 = o.at(c.b1), *bias = o.bias_at(c.bias);
    const float *scale = o.at(c.scale), *dot = o.at(c.dot);
    float* dots = c.dot_out.slot >= 0 ? o.at(c.scratch) : nullptr;
    const Epilogue e(o, c);
    const int ld = padded(c.columns), span = c.window < 0 ? ld : width, depth = rows.depth(c);
    const int column_tiles = up(span, kTileColumns), dot_tiles = up(w.n, kTileColumns);
    const int all_sites = c.window < 0 ? 1 : o.t.windows[2 * c.window + c.adjoint].out_sites;
    o.block.warps(up(count, kTileRows) * column_tiles, [&](int number) {
      const int m0 = number / column_tiles * kTileRows, n0 = number % column_tiles * kTileColumns;
      Tile tile;
      auto term = [&](const float* a, int a_ld, const float* weight) {
        tile.multiply(
            depth, fast_, [&](int row, int p) { return m0 + row < count ? rows.a(a, a_ld, c, m0 + row, p) : 0.f; },
            [&](int p, int column) {
              const int n = n0 + column;
              if (n >= columns) return 0.f;
              const int tap = rows.tap(c, p) * w.k, input = rows.input(c, p);
              return c.adjoint ? weight[input * w.ld + tap + n] : weight[n * w.ld + tap + input];
            });
      };
      if (a0) {
        term(a0, c.a0.ld, w0);
        if (bias)
          tile.each([&](int row, int column, float& value) {
            if (m0 + row >= count || n0 + column >= columns) return;
            value += bias[(w.bias_sites > 1 ? rows.site(m0 + row) * w.bias_ld : 0) + n0 + column];
          });
        if (dots)
          tile.row_sums(
              [&](int row, int column, float value) {
                if (m0 + row >= count || n0 + column >= columns) return 0.f;
                return dot[rows.out(ld, m0 + row, n0 + column)] * value;
              },
              [&](int row, float sum) {
                const int m = m0 + row;
                if (m < count) dots[(rows.sample(m) * all_sites + rows.site(m)) * dot_tiles + n0 / kTileColumns] = sum;
              });
        if (scale)
          tile.each([&](int row, int, float& value) {
            if (m0 + row < count) value *= scale[rows.sample(m0 + row)];
          });
      }
      if (a1) term(a1, c.a1.ld, w1);
      tile.each([&](int row, int column, float& value) {
        if (m0 + row < count && n0 + column < span) e.finish(rows.out(ld, m0 + row, n0 + column), value);
      });
    });
  }

  // Behind a sample's last site.
  PYMGAN_DEVICE void pad_sample(const Code& c, int stored) {
    const int ld = padded(c.columns), spare = ld - stored;
    if (spare <= 0) return;
    const Epilogue e(o, c);
    o.block.each(c.rows * spare, [&](int i) { e.finish(i / spare * ld + stored + i % spare, 0.f); });
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

  PYMGAN_DEVICE void look(const Code& c, const Sink& sink) {
    if (!sink.theta) return;
    const int p = index_of(c.player);
    o.task.squares[p] += o.block.reduce(sink.squares);
    o.task.spoilt[p] += o.block.reduce(sink.spoilt);
  }

  PYMGAN_DEVICE void bias(const Code& c, const TensorRecord& w, const WindowRecord* window, int out_ld) {
    float* out = o.bias_at(c.out);
    if (!out) return;
    Sink sink(o, c, out, o.bias_at(c.theta), o.bias_at(c.rate_scale));
    const float* delta = o.at(c.b0);
    const int sites = window && w.bias_sites == 1 ? window->out_sites : 1;
    o.block.each(w.bias_size, [&](int i) {
      const int site = i / w.bias_ld, n = i % w.bias_ld;
      if (site >= w.bias_sites || n >= w.n) {
        if (!c.accumulate) sink.clear(i);
        return;
      }
      const int first = (w.bias_sites > 1 ? site * out_ld : 0) + n;
      float sum = 0;
      for (int m = 0; m < c.rows0; ++m)
        for (int s = 0; s < sites; ++s) sum += delta[m * c.b0.ld + first + s * out_ld];
      sink.put(i, sum);
    });
    look(c, sink);
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
  bool fast_;  // one TF32 product instead of three
};

}  // namespace pymgan::cuda
