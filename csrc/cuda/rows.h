// Instructions over the rows of a batch that are no products.
#pragma once

#include "epilogue.h"
#include "noise.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class Rows {
 public:
  PYMGAN_DEVICE explicit Rows(Operands& operands) : o(operands) {}

  // out = apply(scale a0 b0 + a1)
  PYMGAN_DEVICE_CALL void elementwise(const Code& c) {
    const float *a0 = o.at(c.a0), *b0 = o.at(c.b0), *a1 = o.at(c.a1), *scale = o.at(c.scale);
    const Epilogue e(o, c);
    const int ld = padded(c.columns);
    o.block.each(c.rows * ld, [&](int i) {
      float y = a0[i];
      if (b0) y *= b0[i];
      if (scale) y *= scale[i / ld];
      if (a1) y += a1[i];
      e.put(i, y);
    });
    Epilogue::apply(o, c, c.rows * ld);
  }

  PYMGAN_DEVICE_CALL void row_dot(const Code& c) {
    const float *a = o.at(c.a0), *b = o.at(c.b0);
    float* out = o.at(c.out);
    const int ld = c.a0.ld;
    o.block.warps(c.rows, [&](int row) {
      const float sum = warp_sum(ld, [&](int n) { return a[row * ld + n] * b[row * ld + n]; });
      one_lane([&] { out[row] = sum; });
    });
  }

  PYMGAN_DEVICE_CALL void spread(const Code& c) {
    const float* numbers = o.at(c.a0);
    float* out = o.at(c.out);
    const int ld = c.out.ld;
    o.block.each(c.rows * ld, [&](int i) { out[i] = i % ld > 0 ? 0.f : numbers ? numbers[i / ld] : 1.f; });
  }

  PYMGAN_DEVICE void fill(const Code& c) {
    float* out = o.at(c.out);
    o.block.each(c.elements, [&](int i) { out[i] = 0; });
  }

  PYMGAN_DEVICE void add(const Code& c) {
    const float* a = o.at(c.a0);
    float* out = o.at(c.out);
    o.block.each(c.elements, [&](int i) { out[i] += a[i]; });
  }

  PYMGAN_DEVICE void rate(const Code& c) {
    const float* of = o.at(c.a0);
    float* out = o.at(c.out);
    const int p = index_of(c.player);
    const bool moves = o.active(p);
    const float by = -o.task.rate[p];
    o.block.each(c.rows, [&](int i) { out[i] = moves ? by * (of ? of[i] : 1.f) : 0.f; });
  }

  PYMGAN_DEVICE_CALL void fixed(const Code& c) {
    const MapRecord& map = o.t.maps[2 * c.map + c.adjoint];
    const int32_t *start = o.t.numbers + map.start, *source = o.t.numbers + map.source;
    const float *factor = o.t.factors + map.factor, *x = o.at(c.a0);
    float* out = o.at(c.out);
    const int ld = c.out.ld;
    o.block.each(c.rows * ld, [&](int i) {
      const int row = i / ld, n = i % ld;
      float sum = 0;
      if (n < map.out)
        for (int j = start[n]; j < start[n + 1]; ++j) sum += factor[j] * x[row * c.a0.ld + source[j]];
      out[i] = sum;
    });
  }

  PYMGAN_DEVICE_CALL void softmax(const Code& c) {
    const GroupsRecord& groups = o.t.softmaxes[c.map];
    const int32_t *start = o.t.numbers + groups.start, *members = o.t.numbers + groups.members;
    const float* x = o.at(c.a0);
    float* out = o.at(c.out);
    const int ld = c.out.ld;
    o.block.each(c.rows * ld, [&](int i) { out[i] = 0; });
    o.block.each(c.rows * groups.count, [&](int i) {
      const int row = i / groups.count * ld, first = start[i % groups.count], end = start[i % groups.count + 1];
      float most = x[row + members[first]], sum = 0;
      for (int j = first; j < end; ++j)
        if (!(x[row + members[j]] <= most)) most = x[row + members[j]];  // NaN stays
      for (int j = first; j < end; ++j) sum += out[row + members[j]] = expf(x[row + members[j]] - most);
      for (int j = first; j < end; ++j) out[row + members[j]] /= sum;
    });
  }

  // Rows of the caller's, in torch's order, to ours: rows of `source`, of which `picked` are wanted (null: the first).
  PYMGAN_DEVICE_CALL void rows_in(const Code& c, const FormRecord& form, const float* source, const int32_t* picked) {
    const int features = form.channels * form.sites;
    fill_rows(c, form,
              [&](int row, int feature) { return source[(picked ? picked[row] : row) * int64_t{features} + feature]; });
  }

  PYMGAN_DEVICE_CALL void rows_out(const Code& c, const FormRecord& form, float* target) {
    const float* x = o.at(c.a0);
    const int features = form.channels * form.sites;
    o.block.each(c.rows * features, [&](int i) {
      const int feature = i % features;
      target[i] = x[i / features * c.a0.ld + feature % form.sites * form.ld + feature / form.sites];
    });
  }

  PYMGAN_DEVICE_CALL void noise(const Code& c) {
    const FormRecord& form = c.index == 0 ? o.t.z : o.t.x;
    if (c.index == 0 && o.task.noise) return rows_in(c, form, o.task.noise, nullptr);
    NoiseKey key = o.task.key;
    if (c.index != 0) key.stream = kInstanceNoiseStream;
    const float deviation = c.index == 0 ? 1.f : o.t.instance_noise;
    const int features = form.channels * form.sites;
    fill_rows(c, form, [&](int row, int feature) { return deviation * normal<float>(key, row * features + feature); });
  }

 private:
  // out from f(row, feature), features in torch's order; padding becomes zero.
  template <class F>
  PYMGAN_DEVICE void fill_rows(const Code& c, const FormRecord& form, F f) {
    float* out = o.at(c.out);
    const int ld = c.out.ld;
    o.block.each(c.rows * ld, [&](int i) {
      const int n = i % ld, site = n / form.ld, channel = n % form.ld;
      const bool inside = site < form.sites && channel < form.channels;
      out[i] = inside ? f(i / ld, channel * form.sites + site) : 0.f;
    });
  }

  Operands& o;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
