// Elementary functions of vectors. float: polynomials, within 2 ulp (tests/cpp/test_kernels.cpp); double: libm, lane by
// lane.
#pragma once

#include "simd.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

#define PYMGAN_LIBM(name)                            \
  PYMGAN_INLINE Vec<double> name(Vec<double> x) {    \
    double lanes[Vec<double>::kWidth];               \
    x.store(lanes);                                  \
    for (double& l : lanes) l = __builtin_##name(l); \
    return Vec<double>::load(lanes);                 \
  }
PYMGAN_LIBM(exp)
PYMGAN_LIBM(expm1)
PYMGAN_LIBM(log)
PYMGAN_LIBM(log1p)
PYMGAN_LIBM(tanh)
PYMGAN_LIBM(erf)
#undef PYMGAN_LIBM

template <int N>
PYMGAN_INLINE Vec<float> polynomial(Vec<float> x, const double (&c)[N]) {  // c[0] x^(N-1) + ... + c[N-1]
  Vec<float> y(c[0]);
  for (int i = 1; i < N; ++i) y = fma(y, x, Vec<float>(c[i]));
  return y;
}

// x = n ln2 + r with |r| <= ln2 / 2 for |x| < 2^16, and e^r - 1.
struct Reduced {
  Mask<float> n;
  Vec<float> tail;
};
PYMGAN_INLINE Reduced reduce_exp(Vec<float> x) {
  const Vec<float> magic(12582912.0);  // 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits
  const Vec<float> shifted = fma(x, Vec<float>(1.44269504088896341), magic);
  const Vec<float> n = shifted - magic;
  Vec<float> r = fma(n, Vec<float>(-0.693359375), x);
  r = fma(n, Vec<float>(2.12194440e-4), r);
  const double c[] = {1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3,
                      4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1};
  return {bits(shifted) - bits(magic), fma(polynomial(r, c) * r, r, r)};
}
PYMGAN_INLINE Vec<float> power_of_two(Mask<float> n) { return from_bits<float>((n + 127) << 23); }

PYMGAN_INLINE Vec<float> exp(Vec<float> x) {
  const Reduced e = reduce_exp(min(max(x, Vec<float>(-104.0)), Vec<float>(89.0)));
  const Mask<float> half = e.n >> 1;  // 2^n in two factors: neither overflows, and denormals round once
  return (Vec<float>(1.0) + e.tail) * power_of_two(half) * power_of_two(e.n - half);
}

PYMGAN_INLINE Vec<float> expm1(Vec<float> x) {  // infinite above 88
  const Reduced e = reduce_exp(min(max(x, Vec<float>(-87.0)), Vec<float>(88.0)));
  const Vec<float> scale = power_of_two(e.n);
  const Vec<float> y = fma(scale, e.tail, scale - Vec<float>(1.0));
  return select<float>(x.v > Vec<float>(88.0).v, Vec<float>(__builtin_inf()), y);
}

PYMGAN_INLINE Vec<float> tanh(Vec<float> x) {
  // Small: an odd polynomial. Else 1 - 2 / (e^2|x| + 1), whose subtrahend is below one half: its rounding hardly
  // counts.
  const Vec<float> size = abs(x), square = x * x;
  const double c[] = {-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1};
  const Vec<float> small = fma(polynomial(square, c) * square, x, x);
  const Vec<float> large = Vec<float>(1.0) - Vec<float>(2.0) / (exp(Vec<float>(2.0) * size) + Vec<float>(1.0));
  return select<float>(size.v < Vec<float>(0.625).v, small, where_positive(x, large, -large));
}

PYMGAN_INLINE Vec<float> erf(Vec<float> x) {
  // Small: an odd polynomial. Else 1 - erfc, whose logarithm is one; from 4 on it is below half of an ulp.
  const Vec<float> square = x * x, size = min(abs(x), Vec<float>(4.0));
  const double c[] = {7.88249711e-5, -8.01885499e-4, 5.18931194e-3, -2.68543288e-2,
                      1.12835975e-1, -3.76126269e-1, 1.28379166e-1};
  const double l[] = {2.17892010e-5, -4.42594780e-4, 4.21105199e-3, -2.52264637e-2,
                      1.08448596e-1, 6.33190791e-1,  1.12959379,    -1.91454105e-4};
  const Vec<float> small = fma(polynomial(square, c), x, x);
  const Vec<float> large = Vec<float>(1.0) - exp(-polynomial(size, l));
  const Vec<float> y = select<float>(abs(x).v < Vec<float>(1.0).v, small, where_positive(x, large, -large));
  return select<float>(x.v == x.v, y, x);  // NaN
}

PYMGAN_INLINE Vec<float> log(Vec<float> x) {  // not for denormals
  // The mantissa in [sqrt(1/2), sqrt(2)) and its exponent.
  const int32_t kSqrtHalf = 0x3f3504f3;
  const Mask<float> offset = bits(x) - kSqrtHalf;
  const Mask<float> exponent = offset >> 23;
  const Vec<float> f = from_bits<float>((offset & 0x007fffff) + kSqrtHalf) - Vec<float>(1.0);
  const Vec<float> e(Raw<float>(__builtin_convertvector(exponent, Raw<float>)));
  const double c[] = {7.0376836292e-2,  -1.1514610310e-1, 1.1676998740e-1,  -1.2420140846e-1, 1.4249322787e-1,
                      -1.6668057665e-1, 2.0000714765e-1,  -2.4999993993e-1, 3.3333331174e-1};
  const Vec<float> square = f * f;
  Vec<float> y = polynomial(f, c) * f * square;
  y = fma(e, Vec<float>(-2.12194440e-4), y);
  y = fma(square, Vec<float>(-0.5), y);
  y = fma(e, Vec<float>(0.693359375), f + y);
  const Vec<float> infinity(__builtin_inf()), zero(0.0);
  y = select<float>(x.v < infinity.v, y, x);  // infinity and NaN
  y = select<float>(x.v == zero.v, -infinity, y);
  return select<float>(x.v < zero.v, Vec<float>(__builtin_nan("")), y);
}

PYMGAN_INLINE Vec<float> log1p(Vec<float> x) {
  const Vec<float> u = Vec<float>(1.0) + x;
  const Vec<float> y = log(u) + (x - (u - Vec<float>(1.0))) / u;  // what rounding u lost
  return select<float>(x.v < Vec<float>(1e30).v, y, log(x));
}

// sin and cos of 2 pi u for 0 <= u <= 1.
template <class T>
struct SinCos {
  Vec<T> sin, cos;
};
PYMGAN_INLINE SinCos<float> sincos_turns(Vec<float> u) {
  const Vec<float> magic(12582912.0);
  const Vec<float> shifted = fma(u, Vec<float>(4.0), magic);
  const Mask<float> quadrant = bits(shifted);
  const Vec<float> t = (u * Vec<float>(4.0) - (shifted - magic)) * Vec<float>(1.57079632679489662);
  const Vec<float> z = t * t;
  const double s_c[] = {-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1};
  const double c_c[] = {2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2};
  const Vec<float> s = fma(polynomial(z, s_c) * z, t, t);
  const Vec<float> c = fma(polynomial(z, c_c) * z, z, fma(z, Vec<float>(-0.5), Vec<float>(1.0)));
  const Mask<float> swap = (quadrant & 1) != 0;
  const Vec<float> sine = select<float>(swap, c, s), cosine = select<float>(swap, s, c);
  return {from_bits<float>(bits(sine) ^ ((quadrant & 2) << 30)),
          from_bits<float>(bits(cosine) ^ (((quadrant + 1) & 2) << 30))};
}
PYMGAN_INLINE SinCos<double> sincos_turns(Vec<double> u) {
  double s[Vec<double>::kWidth], c[Vec<double>::kWidth];
  for (int l = 0; l < Vec<double>::kWidth; ++l) {
    const double angle = 6.283185307179586477 * u.v[l];
    s[l] = __builtin_sin(angle);
    c[l] = __builtin_cos(angle);
  }
  return {Vec<double>::load(s), Vec<double>::load(c)};
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
