// What stands between a player's scores and its gradient: losses, penalties and the numbers that mix samples.
#pragma once

#include <algorithm>
#include <cmath>

#include "noise.h"
#include "operands.h"
#include "relative.h"

namespace pymgan::cpu {

template <class T>
class Scores {
 public:
  explicit Scores(Operands<T>& operands) : o(operands) {}

  void head(const Instr& i) {
    T stats[6];
    Head<T> h;
    h.loss = o.game.loss;
    h.smoothing = static_cast<T>(o.game.smoothing);
    h.fakes = i.fakes;
    h.reals = i.reals;
    h.score = o.at(i.a0);
    h.score_ld = o.ld(i.a0);
    h.c_g = o.at(i.c_g);
    h.c_d = o.at(i.c_d);
    h.cc_g = o.at(i.cc_g);
    h.cc_d = o.at(i.cc_d);
    h.stats = i.stats ? stats : nullptr;
    if (o.game.relative()) {
      // The relative scores stand beside the scores, which the trace wants.
      T* relative = o.at(i.scratch);
      for (int r = 0; r < i.rows; ++r) relative[r] = h.score[r * h.score_ld];
      to_relative(relative, i.fakes, i.reals);
      T of_scores[6];
      Head<T> plain = h;
      plain.c_g = plain.c_d = plain.cc_g = plain.cc_d = nullptr;
      plain.stats = of_scores;
      o.kernels.head(plain);
      h.score = relative, h.score_ld = 1;
      o.kernels.head(h);
      std::copy(of_scores + 2, of_scores + 6, stats + 2);
      for (T* c : {h.c_g, h.c_d})
        if (c) from_relative(c, i.fakes, i.reals);
    } else {
      o.kernels.head(h);
    }
    if (!i.stats) return;
    const bool traced = o.frame.trace && i.traced;
    if (i.index & kGenerator) {
      o.judge(Player::generator, stats[0]);
      if (traced) o.frame.trace[0] = stats[0];
    }
    if (i.index & kDiscriminator) {
      o.judge(Player::discriminator, stats[1]);
      if (traced) {
        o.frame.trace[1] = stats[1];
        std::copy(stats + 2, stats + 6, o.frame.trace + 4);
      }
    }
  }

  void combine(const Instr& i) {
    T* out = o.at(i.out);
    const T *a0 = o.at(i.a0), *b0 = o.at(i.b0), *a1 = o.at(i.a1);
    if (a1)
      o.kernels.row_dot(o.at(i.b1), nullptr, i.rows, o.ld(i.b1), out, false);
    else
      std::fill_n(out, i.rows, T{0});
    const bool relative = i.fakes > 0;
    if (a1 && relative) to_relative(out, i.fakes, i.reals);
    for (int r = 0; a1 && r < i.rows; ++r) out[r] *= a1[r];
    if (a0 && relative) {
      T* change = o.at(i.scratch);
      std::fill(std::copy_n(b0, i.rows0, change), change + i.rows, T{0});
      to_relative(change, i.fakes, i.reals);
      for (int r = 0; r < i.rows; ++r) out[r] += a0[r] * change[r];
    } else {
      for (int r = 0; a0 && r < i.rows0; ++r) out[r] += a0[r] * b0[r];
    }
    if (relative) from_relative(out, i.fakes, i.reals);
  }

  void penalty(const Instr& i) {
    PenaltyHead<T> h;
    h.kind = o.game.penalty.kind;
    h.weight = static_cast<T>(o.game.penalty.weight * o.game.penalty.every);
    h.rows = i.rows;
    h.norm2 = o.at(i.a0);
    h.c = o.at(i.c_d);
    h.k = o.at(i.cc_d);
    o.kernels.penalty(h);
    if (!i.stats) return;
    if (o.frame.trace && i.traced) o.frame.trace[1] += static_cast<T>(h.value);
    o.judge(Player::discriminator, h.value);
  }

  // Uniform numbers: where a standard normal lies in its distribution.
  void mix(const Instr& i) const {
    T *u = o.at(i.c_g), *rest = o.at(i.c_d);
    NoiseKey key = o.frame.key;
    key.stream = kMixStream;
    o.kernels.noise(key, 1, i.rows, padded(i.rows), u);
    for (int r = 0; r < i.rows; ++r) {
      const double uniform = 0.5 * std::erfc(-static_cast<double>(u[r]) * std::sqrt(0.5));
      u[r] = static_cast<T>(uniform);
      if (rest) rest[r] = static_cast<T>(1 - uniform);
    }
  }

 private:
  Operands<T>& o;
};

}  // namespace pymgan::cpu
