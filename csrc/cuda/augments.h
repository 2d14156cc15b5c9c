// What stands between samples and D: numbers that augment them, and the augmentation, site by site.
#pragma once

#include "../augmentation.h"
#include "noise.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class Augments {
 public:
  PYMGAN_DEVICE explicit Augments(Operands& operands) : o(operands) {}

  PYMGAN_DEVICE_CALL void draw(const Code& c) {
    NoiseKey key = o.task.key;
    key.stream = kAugmentStream;
    float* out = o.at(c.out);
    Augmentation kinds;
    kinds.brightness = o.t.brightness, kinds.translation = o.t.translation, kinds.cutout = o.t.cutout;
    int64_t extent[3] = {o.t.extent[0], o.t.extent[1], o.t.extent[2]};
    const int most = c.fakes > c.reals ? c.fakes : c.reals;
    o.block.each(most * c.columns, [&](int i) {
      const int row = i / c.columns, column = i % c.columns;
      const float number =
          static_cast<float>(augmentation_number(kinds, o.t.extents, extent, column, uniform_of(key, i)));
      if (row < c.fakes) out[row * c.out.ld + column] = number;
      if (row < c.reals) out[(c.fakes + row) * c.out.ld + column] = number;
    });
  }

  PYMGAN_DEVICE_CALL void augment(const Code& c) {
    const int channels = o.t.channels, sites = o.t.x.channels * o.t.x.sites / channels;
    // Flat samples have torch's order.
    const bool by_site = o.t.x.sites == sites;
    const int channel_stride = by_site ? 1 : sites, site_stride = by_site ? o.t.x.ld : 1;
    const bool brighter = c.bias.slot >= 0;
    const float *from = o.at(c.a0), *numbers = o.at(c.b0);
    float* to = o.at(c.out);
    o.block.each(c.rows * c.out.ld, [&](int i) { to[i] = 0; });
    o.block.each(c.rows * sites * channels, [&](int i) {
      const int row = i / (sites * channels), site = i / channels % sites, channel = i % channels;
      const float* own = numbers + row * c.b0.ld;
      const int origin = origin_of(site, own);
      if (origin < 0) return;
      const int in = (c.adjoint ? site : origin) * site_stride + channel * channel_stride;
      const int out = (c.adjoint ? origin : site) * site_stride + channel * channel_stride;
      to[row * c.out.ld + out] = from[row * c.a0.ld + in] + (brighter ? own[0] : 0.f);
    });
  }

 private:
  // The site that an augmented sample shows at `site`; -1: none, there it is zero.
  PYMGAN_DEVICE int origin_of(int site, const float* numbers) const {
    const float *shift = numbers + (o.t.brightness ? 1 : 0), *centre = shift + (o.t.translation ? o.t.extents : 0);
    int origin = 0, stride = 1;
    bool cut = o.t.cutout;
    for (int d = o.t.extents - 1; d >= 0; --d) {
      const int extent = o.t.extent[d], at = site % extent, size = static_cast<int>(block_size(extent));
      site /= extent;
      if (o.t.cutout) {
        const int first = static_cast<int>(centre[d]) - size / 2;
        cut = cut && first <= at && at < first + size;
      }
      const int was = o.t.translation ? at - static_cast<int>(shift[d]) : at;
      if (was < 0 || was >= extent) return -1;
      origin += was * stride;
      stride *= extent;
    }
    return cut ? -1 : origin;
  }

  Operands& o;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
