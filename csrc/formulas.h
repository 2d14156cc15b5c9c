// Activations and losses with their derivatives, each written once. S is whatever has +, -, *, /, a conversion from
// double and exp, expm1, log1p, tanh, erf, sqrt, abs, max (NaN in the first argument stays) and where_positive(c, a, b)
// = c > 0 ? a : b: a vector (cpu/simd.h), or a recorder of expressions (expression.h), through which the engines in
// Python get the same formulas.
#pragma once

#include <array>

#include "both.h"
#include "plan.h"

namespace pymgan {

// Whether derivatives are functions of the output h; if not, of the pre-activation a. Either is as accurate as torch:
// tanh and sigmoid lose nothing in h, the others would (1 + h at h near -1 for elu).
inline bool from_output(Activation activation, const std::array<double, 2>& attributes) {
  switch (activation) {
    case Activation::identity:
    case Activation::relu:
    case Activation::tanh:
    case Activation::sigmoid:
    case Activation::inverse_root:
      return true;
    case Activation::leaky_relu:
      return attributes[0] >= 0;  // a negative slope hides the sign of a
    case Activation::elu:
    case Activation::silu:
    case Activation::softplus:
    case Activation::gelu:
    case Activation::gelu_tanh:
    case Activation::negative_part:  // at zero it is not the positive part's turn
      return false;
  }
  return false;
}

// f'' is not identically zero.
inline bool curved(Activation activation) {
  switch (activation) {
    case Activation::identity:
    case Activation::leaky_relu:
    case Activation::relu:
    case Activation::negative_part:
      return false;
    default:
      return true;
  }
}

namespace formulas {

template <class S>
struct Derivatives {
  S first, second, third;
};

template <class S>
struct Sigmoids {
  S of, of_minus;  // sigmoid(x), sigmoid(-x) = 1 - sigmoid(x), neither by cancellation nor overflow
};

template <class S>
PYMGAN_BOTH Sigmoids<S> sigmoids(S x) {
  const S t = exp(-abs(x));
  const S high = S(1.0) / (S(1.0) + t), low = t / (S(1.0) + t);
  return {where_positive(x, high, low), where_positive(x, low, high)};
}

// Every activation: value(x, p0, p1), and derivatives(ref, p0, p1) of the first three orders, with ref as from_output
// says. Kinks follow torch.

struct Identity {
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return x;
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S, S, S) {
    return {S(1.0), S(0.0), S(0.0)};
  }
};

struct LeakyReLU {  // p0: slope
  template <class S>
  PYMGAN_BOTH static S value(S x, S slope, S) {
    return where_positive(x, x, slope * x);
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S ref, S slope, S) {
    return {where_positive(ref, S(1.0), slope), S(0.0), S(0.0)};
  }
};

struct ReLU {
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return max(x, S(0.0));
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S ref, S, S) {
    return {where_positive(ref, S(1.0), S(0.0)), S(0.0), S(0.0)};
  }
};

struct ELU {  // p0: alpha
  template <class S>
  PYMGAN_BOTH static S value(S x, S alpha, S) {
    return where_positive(x, x, alpha * expm1(x));
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S a, S alpha, S) {
    const S low = alpha * exp(a);
    const S bent = where_positive(a, S(0.0), low);
    return {where_positive(a, S(1.0), low), bent, bent};
  }
};

struct SiLU {
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return x * sigmoids(x).of;
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S a, S, S) {
    const auto [s, t] = sigmoids(a);
    const S st = s * t, d = t - s;
    return {s * (S(1.0) + a * t), st * (S(2.0) + a * d), st * (d * (S(3.0) + a * d) - S(2.0) * a * st)};
  }
};

struct Softplus {  // p0: beta, p1: threshold on beta x, above which it is linear
  template <class S>
  PYMGAN_BOTH static S value(S x, S beta, S threshold) {
    const S y = beta * x;
    return where_positive(y - threshold, x, (max(y, S(0.0)) + log1p(exp(-abs(y)))) / beta);
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S a, S beta, S threshold) {
    const S y = beta * a;
    const auto [s, t] = sigmoids(y);
    const S second = where_positive(y - threshold, S(0.0), beta * s * t);
    return {where_positive(y - threshold, S(1.0), s), second, beta * (t - s) * second};
  }
};

struct Tanh {
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return tanh(x);
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S h, S, S) {
    const S first = (S(1.0) - h) * (S(1.0) + h);
    return {first, S(-2.0) * h * first, first * (S(6.0) * h * h - S(2.0))};
  }
};

struct Sigmoid {
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return sigmoids(x).of;
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S h, S, S) {
    const S first = h * (S(1.0) - h);
    const S bend = S(1.0) - S(2.0) * h;
    return {first, first * bend, first * (bend * bend - S(2.0) * first)};
  }
};

struct GELU {  // a Phi(a), with Phi the standard normal's distribution
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return x * distribution(x);
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S a, S, S) {
    const S square = a * a, density = S(0.39894228040143267794) * exp(S(-0.5) * square);
    return {distribution(a) + a * density, density * (S(2.0) - square), density * a * (square - S(4.0))};
  }

 private:
  template <class S>
  PYMGAN_BOTH static S distribution(S x) {
    return S(0.5) * (S(1.0) + erf(S(0.70710678118654752440) * x));
  }
};

struct TanhGELU {  // a sigmoid(v), v = 2 sqrt(2 / pi) (a + 0.044715 a^3)
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return x * sigmoids(inner(x)).of;
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S a, S, S) {
    const S c(kCubic), two(kScale), square = a * a;
    const S v1 = two * (S(1.0) + S(3.0) * c * square), v2 = two * S(6.0) * c * a, v3 = two * S(6.0) * c;
    const auto [s, t] = sigmoids(inner(a));
    const S s1 = s * t, s2 = s1 * (t - s), s3 = s1 * (S(1.0) - S(6.0) * s1);
    const S g1 = s1 * v1, g2 = s2 * v1 * v1 + s1 * v2;
    const S g3 = s3 * v1 * v1 * v1 + S(3.0) * s2 * v1 * v2 + s1 * v3;
    return {s + a * g1, S(2.0) * g1 + a * g2, S(3.0) * g2 + a * g3};
  }

 private:
  static constexpr double kScale = 1.59576912160573071176, kCubic = 0.044715;
  template <class S>
  PYMGAN_BOTH static S inner(S x) {
    return S(kScale) * (x + S(kCubic) * x * x * x);
  }
};

struct NegativePart {
  template <class S>
  PYMGAN_BOTH static S value(S x, S, S) {
    return where_positive(x, S(0.0), x);
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S a, S, S) {
    return {where_positive(a, S(0.0), S(1.0)), S(0.0), S(0.0)};
  }
};

struct InverseRoot {  // p0: eps
  template <class S>
  PYMGAN_BOTH static S value(S x, S eps, S) {
    return S(1.0) / sqrt(x + eps);
  }
  template <class S>
  PYMGAN_BOTH static Derivatives<S> derivatives(S h, S, S) {
    const S square = h * h, cube = h * square;
    return {S(-0.5) * cube, S(0.75) * cube * square, S(-1.875) * cube * square * square};
  }
};

// Calls visitor with the struct of `activation`.
PYMGAN_CALLS_EITHER
template <class Visitor>
PYMGAN_BOTH auto visit(Activation activation, const Visitor& visitor) {
  switch (activation) {
    case Activation::leaky_relu:
      return visitor(LeakyReLU{});
    case Activation::relu:
      return visitor(ReLU{});
    case Activation::elu:
      return visitor(ELU{});
    case Activation::silu:
      return visitor(SiLU{});
    case Activation::softplus:
      return visitor(Softplus{});
    case Activation::tanh:
      return visitor(Tanh{});
    case Activation::sigmoid:
      return visitor(Sigmoid{});
    case Activation::gelu:
      return visitor(GELU{});
    case Activation::gelu_tanh:
      return visitor(TanhGELU{});
    case Activation::negative_part:
      return visitor(NegativePart{});
    case Activation::inverse_root:
      return visitor(InverseRoot{});
    case Activation::identity:
      break;
  }
  return visitor(Identity{});
}

// Every loss has four terms in one sample's score s, with e the one-sided label smoothing (the real target is 1 - e): g
// and d_fake on G's samples, g_real and d_real on real ones. g_real is not zero where scores are relative to the mean
// score of the other kind, see relative().
template <class S>
struct LossTerm {
  S value, first, second;
};

struct NoRealTerm {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> g_real(S, S) {
    return {S(0.0), S(0.0), S(0.0)};
  }
};

// -log D with D = sigmoid(s): softplus(-s), softplus(s), (1 - e) softplus(-s) + e softplus(s).
struct Nonsaturating : NoRealTerm {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> g(S s, S) {
    const auto [of, of_minus] = sigmoids(s);
    return {max(-s, S(0.0)) + log1p(exp(-abs(s))), -of_minus, of * of_minus};
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_fake(S s, S) {
    const auto [of, of_minus] = sigmoids(s);
    return {max(s, S(0.0)) + log1p(exp(-abs(s))), of, of * of_minus};
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_real(S s, S e) {
    const auto [of, of_minus] = sigmoids(s);
    const S value = (S(1.0) - e) * max(-s, S(0.0)) + e * max(s, S(0.0)) + log1p(exp(-abs(s)));
    return {value, e * of - (S(1.0) - e) * of_minus, of * of_minus};
  }
};

// log(1 - D), the minimax loss: -softplus(s); D's as before.
struct Saturating : Nonsaturating {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> g(S s, S e) {
    const LossTerm<S> t = Nonsaturating::d_fake(s, e);
    return {-t.value, -t.first, -t.second};
  }
};

// Of relative scores: G plays D's game with the roles exchanged.
struct Relativistic : Nonsaturating {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> g_real(S s, S e) {
    return Nonsaturating::d_fake(s, e);
  }
};

// -s, relu(1 + s), relu(1 - s)
struct Hinge : NoRealTerm {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> g(S s, S) {
    return {-s, S(-1.0), S(0.0)};
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_fake(S s, S) {
    const S margin = S(1.0) + s;
    return {max(margin, S(0.0)), where_positive(margin, S(1.0), S(0.0)), S(0.0)};
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_real(S s, S) {
    const S margin = S(1.0) - s;
    return {max(margin, S(0.0)), where_positive(margin, S(-1.0), S(0.0)), S(0.0)};
  }
};

// (s - 1)^2 / 2, s^2 / 2, (s - (1 - e))^2 / 2
struct LeastSquares : NoRealTerm {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> g(S s, S) {
    return half_square(s - S(1.0));
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_fake(S s, S) {
    return half_square(s);
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_real(S s, S e) {
    return half_square(s - (S(1.0) - e));
  }

 private:
  template <class S>
  PYMGAN_BOTH static LossTerm<S> half_square(S d) {
    return {S(0.5) * d * d, d, S(1.0)};
  }
};

// -s, s, -s
struct Wasserstein : NoRealTerm {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> g(S s, S) {
    return {-s, S(-1.0), S(0.0)};
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_fake(S s, S) {
    return {s, S(1.0), S(0.0)};
  }
  template <class S>
  PYMGAN_BOTH static LossTerm<S> d_real(S s, S) {
    return {-s, S(-1.0), S(0.0)};
  }
};

// Calls visitor with the struct of `loss`.
PYMGAN_CALLS_EITHER
template <class Visitor>
PYMGAN_BOTH auto visit(Loss loss, const Visitor& visitor) {
  switch (loss) {
    case Loss::saturating:
      return visitor(Saturating{});
    case Loss::relativistic:
      return visitor(Relativistic{});
    case Loss::hinge:
      return visitor(Hinge{});
    case Loss::least_squares:
      return visitor(LeastSquares{});
    case Loss::wasserstein:
      return visitor(Wasserstein{});
    case Loss::nonsaturating:
      break;
  }
  return visitor(Nonsaturating{});
}

// Inside the root of a gradient's norm.
inline constexpr double kPenaltyEpsilon = 1e-12;

// A penalty in the squared norm n of a gradient, eps >= 0 beside it, and its derivatives by n.
struct HalfSquare {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> of(S n, S) {
    return {S(0.5) * n, S(0.5), S(0.0)};
  }
};

struct Square {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> of(S n, S) {
    return {n, S(1.0), S(0.0)};
  }
};

// (|e| - 1)^2 with |e| = sqrt(n + eps)
struct UnitNorm {
  template <class S>
  PYMGAN_BOTH static LossTerm<S> of(S n, S eps) {
    const S norm = sqrt(n + eps), off = norm - S(1.0);
    return {off * off, off / norm, S(0.5) / (norm * norm * norm)};
  }
};

// Calls visitor with the struct of `kind`.
PYMGAN_CALLS_EITHER
template <class Visitor>
PYMGAN_BOTH auto visit(PenaltyKind kind, const Visitor& visitor) {
  switch (kind) {
    case PenaltyKind::wgan_gp:
      return visitor(UnitNorm{});
    case PenaltyKind::zero_centred:
      return visitor(Square{});
    case PenaltyKind::none:
    case PenaltyKind::r1:
    case PenaltyKind::r2:
      break;
  }
  return visitor(HalfSquare{});
}

}  // namespace formulas
}  // namespace pymgan
