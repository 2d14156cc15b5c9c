// What stands between samples and D: the numbers of the step that augment them, the augmentation itself, site by site,
// and noise.
#pragma once

#include <algorithm>
#include <cmath>

#include "form_rows.h"
#include "noise.h"
#include "operands.h"

namespace pymgan::cpu {

template <class T>
class Augments {
 public:
  explicit Augments(Operands<T>& operands) : o(operands) {}

  void draw(const Instr& i) const {
    const int64_t* extent = o.layout.sample.data() + 1;
    const int extents = static_cast<int>(o.layout.sample.size()) - 1;
    const int count = std::max(i.fakes, i.reals) * i.columns;
    NoiseKey key = o.frame.key;
    key.stream = kAugmentStream;
    double normals[kNormals];
    for (int at = 0; at < count; ++at) {
      if (at % kNormals == 0) o.kernels.normals(key, static_cast<uint32_t>(at / 4), normals);
      const double uniform = 0.5 * std::erfc(-normals[at % kNormals] * std::sqrt(0.5));
      const int row = at / i.columns, column = at % i.columns;
      const double number = augmentation_number(o.game.augmentation, extents, extent, column, uniform);
      if (row < i.fakes) o.at(i.out)[row * o.ld(i.out) + column] = static_cast<T>(number);
      if (row < i.reals) o.at(i.out)[(i.fakes + row) * o.ld(i.out) + column] = static_cast<T>(number);
    }
  }

  void augment(const Instr& i) const {
    const Form& form = o.layout.x;
    const auto& sample = o.layout.sample;
    const int channels = static_cast<int>(sample[0]), sites = form.features() / channels;
    // Flat samples have torch's order.
    const bool by_site = form.sites == sites;
    const int64_t channel_stride = by_site ? 1 : sites, site_stride = by_site ? form.ld : 1;
    const int64_t ld = o.ld(i.out);
    const bool brighter = static_cast<bool>(i.bias);
    const T *from = o.at(i.a0), *numbers = o.at(i.b0);
    T* to = o.at(i.out);
    for (int r = 0; r < i.rows; ++r, from += o.ld(i.a0), to += ld, numbers += o.ld(i.b0)) {
      std::fill_n(to, ld, T{0});
      const T add = brighter ? numbers[0] : T{0};
      for (int s = 0; s < sites; ++s) {
        const int64_t origin = origin_of(s, numbers);
        if (origin < 0) continue;
        const T* in = from + (i.adjoint ? s : origin) * site_stride;
        T* out = to + (i.adjoint ? origin : s) * site_stride;
        for (int c = 0; c < channels; ++c) out[c * channel_stride] = in[c * channel_stride] + add;
      }
    }
  }

  void instance_noise(const Instr& i) const {
    const Form& form = o.layout.x;
    NoiseKey key = o.frame.key;
    key.stream = kInstanceNoiseStream;
    T* out = o.at(i.out);
    const int64_t ld = o.ld(i.out);
    if (form.flat()) {
      o.kernels.noise(key, i.rows, form.features(), ld, out);
    } else {
      T *rows = o.at(i.scratch), *dense = rows + i.rows * padded(form.features());
      dense_noise(o.kernels, key, i.rows, form.features(), rows, dense);
      rows_in(form, dense, nullptr, i.rows, ld, out);
    }
    const T deviation = static_cast<T>(o.game.instance_noise);
    for (int64_t n = 0; n < i.rows * ld; ++n) out[n] *= deviation;
  }

 private:
  // The site that an augmented sample shows at `site`; -1: none, there it is zero.
  int64_t origin_of(int64_t site, const T* numbers) const {
    const auto& sample = o.layout.sample;
    const Augmentation& a = o.game.augmentation;
    const int64_t extents = static_cast<int64_t>(sample.size()) - 1;
    const T *shift = numbers + a.brightness, *centre = shift + (a.translation ? extents : 0);
    int64_t origin = 0, stride = 1;
    bool cut = a.cutout;
    for (int64_t d = extents - 1; d >= 0; --d) {
      const int64_t extent = sample[d + 1], at = site % extent, size = block_size(extent);
      site /= extent;
      if (a.cutout) {
        const int64_t first = static_cast<int64_t>(centre[d]) - size / 2;
        cut &= first <= at && at < first + size;
      }
      const int64_t was = a.translation ? at - static_cast<int64_t>(shift[d]) : at;
      if (was < 0 || was >= extent) return -1;
      origin += was * stride;
      stride *= extent;
    }
    return cut ? -1 : origin;
  }

  Operands<T>& o;
};

}  // namespace pymgan::cpu
