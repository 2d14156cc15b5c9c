// Inner optimisers, each written once: kernels compile these formulas, expression.h records them for the engines in
// Python (S as in formulas.h, and sqrt).
//
// All of them move a player by theta' = theta - rate scale d, where the direction d and the moments m' after the update
// are functions of the gradient F and the moments m before it: `move`. `adjoint` is the transposed derivative of that:
// from a, the cotangent of d (-rate scale v), and v, those of m', to w, the cotangent of F, and those of m. Everything
// is elementwise but two sums over the player's gradient, which come in as knobs.
//
// eps stands inside every square root, so that no derivative is infinite where a gradient or a moment is zero.
#pragma once

#include <cstdint>
#include <string>

#include "both.h"

namespace pymgan {

enum class Optimiser : uint8_t { sgd, normalised, momentum, nesterov, rmsprop, adam, optimistic, extragradient };
inline constexpr int kMostMoments = 2;

const char* name(Optimiser kind);
Optimiser optimiser_of(const std::string& name);  // throws std::invalid_argument
int moments_of(Optimiser kind);                   // vectors that it carries from one update to the next
bool adjoint_reads_gradient(Optimiser kind);

namespace formulas {

template <class S>
struct Knobs {
  S momentum;
  S beta1, beta2, rest1, rest2;  // rest = 1 - beta
  S bias1, bias2;                // 1 - beta^t in the player's t-th update
  S eps;
  S past;         // 1; in the player's first update, which has no gradient before it, 0
  S norm, along;  // of normalised: sqrt(<F, F> + eps), and <a, d> for its adjoint
};

template <class S>
struct Moments {
  S first, second;  // those that a kind does not have are passed on
};

template <class S>
struct Moved {
  S direction;
  Moments<S> moments;
};

template <class S>
struct Pulled {
  S w;
  Moments<S> v;
};

// d = F
struct Sgd {
  static constexpr int kMoments = 0;
  static constexpr bool kReadsGradient = false;
  template <class S>
  PYMGAN_BOTH static Moved<S> move(S f, Moments<S> m, const Knobs<S>&) {
    return {f, m};
  }
  template <class S>
  PYMGAN_BOTH static Pulled<S> adjoint(S, Moments<S>, S a, Moments<S> v, const Knobs<S>&) {
    return {a, v};
  }
};

// d = F / n, n = sqrt(<F, F> + eps): a step's length is its rate.  w = (a - d <a, d>) / n
struct Normalised {
  static constexpr int kMoments = 0;
  static constexpr bool kReadsGradient = true;
  template <class S>
  PYMGAN_BOTH static Moved<S> move(S f, Moments<S> m, const Knobs<S>& k) {
    return {f / k.norm, m};
  }
  template <class S>
  PYMGAN_BOTH static Pulled<S> adjoint(S f, Moments<S> m, S a, Moments<S> v, const Knobs<S>& k) {
    return {(a - move(f, m, k).direction * k.along) / k.norm, v};
  }
};

// m' = mu m + F, d = m'
struct Momentum {
  static constexpr int kMoments = 1;
  static constexpr bool kReadsGradient = false;
  template <class S>
  PYMGAN_BOTH static Moved<S> move(S f, Moments<S> m, const Knobs<S>& k) {
    const S next = k.momentum * m.first + f;
    return {next, {next, m.second}};
  }
  template <class S>
  PYMGAN_BOTH static Pulled<S> adjoint(S, Moments<S>, S a, Moments<S> v, const Knobs<S>& k) {
    const S w = v.first + a;
    return {w, {k.momentum * w, v.second}};
  }
};

// m' = mu m + F, d = F + mu m'
struct Nesterov {
  static constexpr int kMoments = 1;
  static constexpr bool kReadsGradient = false;
  template <class S>
  PYMGAN_BOTH static Moved<S> move(S f, Moments<S> m, const Knobs<S>& k) {
    const S next = k.momentum * m.first + f;
    return {f + k.momentum * next, {next, m.second}};
  }
  template <class S>
  PYMGAN_BOTH static Pulled<S> adjoint(S, Moments<S>, S a, Moments<S> v, const Knobs<S>& k) {
    const S next = v.first + k.momentum * a;
    return {a + next, {k.momentum * next, v.second}};
  }
};

// s' = beta2 s + (1 - beta2) F^2, d = F r, r = 1 / sqrt(s' + eps).  dr/ds' = -r^3 / 2
struct RMSProp {
  static constexpr int kMoments = 1;
  static constexpr bool kReadsGradient = true;
  template <class S>
  PYMGAN_BOTH static Moved<S> move(S f, Moments<S> m, const Knobs<S>& k) {
    const S square = k.beta2 * m.first + k.rest2 * f * f;
    return {f / sqrt(square + k.eps), {square, m.second}};
  }
  template <class S>
  PYMGAN_BOTH static Pulled<S> adjoint(S f, Moments<S> m, S a, Moments<S> v, const Knobs<S>& k) {
    const Moved<S> moved = move(f, m, k);
    const S inner = moved.moments.first + k.eps;
    const S square = v.first - S(0.5) * a * moved.direction / inner;
    return {a / sqrt(inner) + S(2.0) * k.rest2 * f * square, {k.beta2 * square, v.second}};
  }
};

// m' = beta1 m + (1 - beta1) F, s' = beta2 s + (1 - beta2) F^2, d = m' / bias1 / sqrt(s' / bias2 + eps)
struct Adam {
  static constexpr int kMoments = 2;
  static constexpr bool kReadsGradient = true;
  template <class S>
  PYMGAN_BOTH static Moved<S> move(S f, Moments<S> m, const Knobs<S>& k) {
    const S mean = k.beta1 * m.first + k.rest1 * f, square = k.beta2 * m.second + k.rest2 * f * f;
    return {mean / k.bias1 / sqrt(square / k.bias2 + k.eps), {mean, square}};
  }
  template <class S>
  PYMGAN_BOTH static Pulled<S> adjoint(S f, Moments<S> m, S a, Moments<S> v, const Knobs<S>& k) {
    const Moved<S> moved = move(f, m, k);
    const S inner = moved.moments.second / k.bias2 + k.eps;
    const S mean = v.first + a / (k.bias1 * sqrt(inner));
    const S square = v.second - S(0.5) * a * moved.direction / (inner * k.bias2);
    return {k.rest1 * mean + S(2.0) * k.rest2 * f * square, {k.beta1 * mean, k.beta2 * square}};
  }
};

// d = 2 F - p, p' = F, p the gradient of the update before; in the first one p = F. Optimistic gradient descent, which
// is extragradient with one gradient a step, from the past.
struct Optimistic {
  static constexpr int kMoments = 1;
  static constexpr bool kReadsGradient = false;
  template <class S>
  PYMGAN_BOTH static Moved<S> move(S f, Moments<S> m, const Knobs<S>& k) {
    return {f + k.past * (f - m.first), {f, m.second}};
  }
  template <class S>
  PYMGAN_BOTH static Pulled<S> adjoint(S, Moments<S>, S a, Moments<S> v, const Knobs<S>& k) {
    const S again = k.past * a;
    return {a + again + v.first, {-again, v.second}};
  }
};

// Calls visitor with the struct of `kind`.
PYMGAN_CALLS_EITHER
template <class Visitor>
PYMGAN_BOTH auto visit(Optimiser kind, const Visitor& visitor) {
  switch (kind) {
    case Optimiser::normalised:
      return visitor(Normalised{});
    case Optimiser::momentum:
      return visitor(Momentum{});
    case Optimiser::nesterov:
      return visitor(Nesterov{});
    case Optimiser::rmsprop:
      return visitor(RMSProp{});
    case Optimiser::adam:
      return visitor(Adam{});
    case Optimiser::optimistic:
      return visitor(Optimistic{});
    case Optimiser::sgd:
    case Optimiser::extragradient:  // both of its updates; where F is taken is extragradient.cpp's
      break;
  }
  return visitor(Sgd{});
}

}  // namespace formulas
}  // namespace pymgan
