// Scores: losses and their derivatives, penalties, what becomes of tangents of scores.
#pragma once

#include <cmath>

#include "../formulas.h"
#include "noise.h"
#include "real.h"
#include "task.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class Scores {
 public:
  PYMGAN_DEVICE explicit Scores(Operands& operands) : o(operands) {}

  PYMGAN_DEVICE_CALL void head(const Code& c) {
    const float* scores = o.at(c.a0);
    const int rows = c.fakes + c.reals, score_ld = c.a0.ld;
    float* relative = o.t.relative ? o.at(c.scratch) : nullptr;
    if (relative) {
      o.block.each(rows, [&](int i) { relative[i] = scores[i * score_ld]; });
      to_relative(relative, c);
    }
    auto score = [&](int i) { return Real(relative ? relative[i] : scores[i * score_ld]); };
    double losses[2];
    formulas::visit(o.t.loss, [&](auto l) {
      using L = decltype(l);
      const Real smoothing(o.t.smoothing);
      auto of_g = [&](int i) { return i < c.fakes ? L::g(score(i), smoothing) : L::g_real(score(i), smoothing); };
      auto of_d = [&](int i) { return i < c.fakes ? L::d_fake(score(i), smoothing) : L::d_real(score(i), smoothing); };
      losses[0] = term(c, of_g, o.at(c.c_g), o.at(c.cc_g));
      losses[1] = term(c, of_d, o.at(c.c_d), o.at(c.cc_d));
    });
    if (relative)
      for (float* cotangent : {o.at(c.c_g), o.at(c.c_d)})
        if (cotangent) from_relative(cotangent, c);
    if (c.stats.slot < 0) return;
    const bool traced = o.task.trace && c.traced;
    for (int p = 0; p < 2; ++p) {
      if (!(c.index >> p & 1)) continue;
      judge(p, losses[p]);
      if (traced) write(p, losses[p]);
    }
    if (!traced || !(c.index & kDiscriminator)) return;
    for (int kind = 0; kind < 2; ++kind) {
      const int first = kind ? c.fakes : 0, count = kind ? c.reals : c.fakes;
      const double mean =
          count ? o.block.sum(count, [&](int i) { return double(scores[(first + i) * score_ld]); }) / count : 0;
      const double square = o.block.sum(count, [&](int i) {
        const double d = scores[(first + i) * score_ld] - mean;
        return d * d;
      });
      write(4 + 2 * kind, mean);
      write(5 + 2 * kind, count ? std::sqrt(square / count) : 0);
    }
  }

  // Squared norms a0 [rows] to c_d = 2 p' and cc_d = 4 p'' of the penalty's mean.
  PYMGAN_DEVICE_CALL void penalty(const Code& c) {
    const float *norm2 = o.at(c.a0), share = o.t.penalty_weight / static_cast<float>(c.rows);
    float *first = o.at(c.c_d), *second = o.at(c.cc_d);
    double loss = 0;
    formulas::visit(o.t.penalty, [&](auto p) {
      auto of = [&](int i) { return p.of(Real(norm2[i]), Real(formulas::kPenaltyEpsilon)); };
      o.block.each(c.rows, [&](int i) {
        const auto term = of(i);
        if (first) first[i] = 2 * share * term.first.v;
        if (second) second[i] = 4 * share * term.second.v;
      });
      loss = o.block.sum(c.rows, [&](int i) { return double(share * of(i).value.v); });
    });
    if (c.stats.slot < 0) return;
    if (o.task.trace && c.traced) o.block.each(1, [&](int) { o.task.trace[1] += static_cast<float>(loss); });
    judge(1, loss);
  }

  // out = a0 b0 + a1 rowsum(b1); of relative scores R^T (a0 R b0 + a1 R rowsum(b1)).
  PYMGAN_DEVICE_CALL void combine(const Code& c) {
    const float *a0 = o.at(c.a0), *b0 = o.at(c.b0), *a1 = o.at(c.a1), *b1 = o.at(c.b1);
    float *out = o.at(c.out), *change = c.fakes > 0 ? o.at(c.scratch) : nullptr;
    o.block.each(c.rows, [&](int i) {
      out[i] = a1 ? b1[i * c.b1.ld] : 0.f;
      if (change) change[i] = a0 && i < c.rows0 ? b0[i] : 0.f;
    });
    if (change && a1) to_relative(out, c);
    if (change && a0) to_relative(change, c);
    o.block.each(c.rows, [&](int i) {
      if (a1) out[i] *= a1[i];
      if (a0 && (change || i < c.rows0)) out[i] += a0[i] * (change ? change[i] : b0[i]);
    });
    if (change) from_relative(out, c);
  }

  PYMGAN_DEVICE_CALL void mix(const Code& c) {
    float *u = o.at(c.c_g), *rest = o.at(c.c_d);
    NoiseKey key = o.task.key;
    key.stream = kMixStream;
    o.block.each(c.rows, [&](int i) {
      const double uniform = 0.5 * erfc(-static_cast<double>(normal<float>(key, i)) * 0.70710678118654752440);
      u[i] = static_cast<float>(uniform);
      if (rest) rest[i] = static_cast<float>(1 - uniform);
    });
  }

 private:
  // The mean over fakes plus that over reals; derivatives by each score.
  template <class F>
  PYMGAN_DEVICE double term(const Code& c, F f, float* first, float* second) {
    auto share = [&](int i) { return 1.f / static_cast<float>(i < c.fakes ? c.fakes : c.reals); };
    o.block.each(c.fakes + c.reals, [&](int i) {
      const auto t = f(i);
      if (first) first[i] = share(i) * t.first.v;
      if (second) second[i] = share(i) * t.second.v;
    });
    return o.block.sum(c.fakes + c.reals, [&](int i) { return double(f(i).value.v) * share(i); });
  }

  PYMGAN_DEVICE double mean(const float* x, int first, int count) {
    return o.block.sum(count, [&](int i) { return double(x[first + i]); }) / count;
  }
  // R s and R^T c, see csrc/cpu/relative.h.
  PYMGAN_DEVICE void to_relative(float* s, const Code& c) {
    const double fake = mean(s, 0, c.fakes), real = mean(s, c.fakes, c.reals);
    o.block.each(c.fakes + c.reals, [&](int i) { s[i] -= static_cast<float>(i < c.fakes ? real : fake); });
  }
  PYMGAN_DEVICE void from_relative(float* x, const Code& c) {
    const double of_fakes = mean(x, 0, c.fakes) * c.fakes / c.reals,
                 of_reals = mean(x, c.fakes, c.reals) * c.reals / c.fakes;
    o.block.each(c.fakes + c.reals, [&](int i) { x[i] -= static_cast<float>(i < c.fakes ? of_reals : of_fakes); });
  }

  PYMGAN_DEVICE void judge(int player, double loss) {
    if (o.active(player) && !is_finite(static_cast<float>(loss))) o.task.valid = false;
  }
  PYMGAN_DEVICE void write(int column, double value) {
    o.block.each(1, [&](int) { o.task.trace[column] = static_cast<float>(value); });
  }

  Operands& o;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
