// One instruction set's vectors: Vec<T> is exactly one of its registers. Included by kernels.cpp alone, once per set,
// with PYMGAN_ISA_NAMESPACE naming it. Everything is in an unnamed namespace and nothing from std:: is instantiated, so
// that no inline function compiled for a newer instruction set is ever linked into code for an older one
// (tests/cpp/check_symbols.cmake looks).
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define PYMGAN_VECTOR_BYTES 64
#define PYMGAN_REGISTERS 32
#elif defined(__AVX2__)
#define PYMGAN_VECTOR_BYTES 32
#define PYMGAN_REGISTERS 16
#elif defined(__aarch64__)
#define PYMGAN_VECTOR_BYTES 16
#define PYMGAN_REGISTERS 32
#else
#define PYMGAN_VECTOR_BYTES 16
#define PYMGAN_REGISTERS 16
#endif
#define PYMGAN_INLINE [[gnu::always_inline]] inline
// A vector register, in inline assembly.
#if defined(__AVX512F__)
#define PYMGAN_IN_REGISTER "+v"
#elif defined(__SSE2__)
#define PYMGAN_IN_REGISTER "+x"
#elif defined(__aarch64__)
#define PYMGAN_IN_REGISTER "+w"
#else
#define PYMGAN_IN_REGISTER "+m"
#endif

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

template <class T>
struct Integer;
template <>
struct Integer<float> {
  using Type = int32_t;
};
template <>
struct Integer<double> {
  using Type = int64_t;
};

template <class T>
using Raw [[gnu::vector_size(PYMGAN_VECTOR_BYTES)]] = T;
template <class T>
using Mask [[gnu::vector_size(PYMGAN_VECTOR_BYTES)]] = typename Integer<T>::Type;  // -1 or 0 a lane

// The operations that C++ operators on vectors do not express, or not for certain as one instruction.
#if defined(__AVX512F__)
PYMGAN_INLINE __m512 native_set(float x) { return _mm512_set1_ps(x); }
PYMGAN_INLINE __m512d native_set(double x) { return _mm512_set1_pd(x); }
PYMGAN_INLINE __m512 native_fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
PYMGAN_INLINE __m512d native_fma(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
PYMGAN_INLINE __m512 native_sqrt(__m512 a) { return _mm512_sqrt_ps(a); }
PYMGAN_INLINE __m512d native_sqrt(__m512d a) { return _mm512_sqrt_pd(a); }
// The first `count` lanes, from 1 to all of them.
PYMGAN_INLINE __m512 native_load(const float* p, int count) {
  return _mm512_maskz_loadu_ps(0xffffu >> (16 - count), p);
}
PYMGAN_INLINE __m512d native_load(const double* p, int count) { return _mm512_maskz_loadu_pd(0xffu >> (8 - count), p); }
PYMGAN_INLINE void native_store(__m512 a, float* p, int count) { _mm512_mask_storeu_ps(p, 0xffffu >> (16 - count), a); }
PYMGAN_INLINE void native_store(__m512d a, double* p, int count) { _mm512_mask_storeu_pd(p, 0xffu >> (8 - count), a); }
PYMGAN_INLINE __m512 native_max(__m512 a, __m512 b) { return _mm512_max_ps(b, a); }
PYMGAN_INLINE __m512d native_max(__m512d a, __m512d b) { return _mm512_max_pd(b, a); }
#elif defined(__AVX2__)
PYMGAN_INLINE __m256 native_set(float x) { return _mm256_set1_ps(x); }
PYMGAN_INLINE __m256d native_set(double x) { return _mm256_set1_pd(x); }
PYMGAN_INLINE __m256 native_fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
PYMGAN_INLINE __m256d native_fma(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
PYMGAN_INLINE __m256 native_sqrt(__m256 a) { return _mm256_sqrt_ps(a); }
PYMGAN_INLINE __m256d native_sqrt(__m256d a) { return _mm256_sqrt_pd(a); }
PYMGAN_INLINE __m256i first_lanes(float, int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
PYMGAN_INLINE __m256i first_lanes(double, int count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
PYMGAN_INLINE __m256 native_load(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(0.0f, n)); }
PYMGAN_INLINE __m256d native_load(const double* p, int n) { return _mm256_maskload_pd(p, first_lanes(0.0, n)); }
PYMGAN_INLINE void native_store(__m256 a, float* p, int n) { _mm256_maskstore_ps(p, first_lanes(0.0f, n), a); }
PYMGAN_INLINE void native_store(__m256d a, double* p, int n) { _mm256_maskstore_pd(p, first_lanes(0.0, n), a); }
PYMGAN_INLINE __m256 native_max(__m256 a, __m256 b) { return _mm256_max_ps(b, a); }
PYMGAN_INLINE __m256d native_max(__m256d a, __m256d b) { return _mm256_max_pd(b, a); }
#else
template <class T>
PYMGAN_INLINE Raw<T> native_set(T x) {
  return x - Raw<T>{};  // unlike x + 0 this keeps -0
}
template <class V>
PYMGAN_INLINE V native_fma(V a, V b, V c) {
  return a * b + c;  // one rounding where the compiler may contract (aarch64), two on x86 without FMA
}
PYMGAN_INLINE Raw<float> native_sqrt(Raw<float> a) {
  for (int l = 0; l < PYMGAN_VECTOR_BYTES / 4; ++l) a[l] = __builtin_sqrtf(a[l]);
  return a;
}
PYMGAN_INLINE Raw<double> native_sqrt(Raw<double> a) {
  for (int l = 0; l < PYMGAN_VECTOR_BYTES / 8; ++l) a[l] = __builtin_sqrt(a[l]);
  return a;
}
template <class V>
PYMGAN_INLINE V native_max(V a, V b) {
  return b > a ? b : a;
}
template <class T>
PYMGAN_INLINE Raw<T> native_load(const T* p, int count) {
  Raw<T> a{};
  for (int l = 0; l < count; ++l) a[l] = p[l];
  return a;
}
template <class V, class T>
PYMGAN_INLINE void native_store(V a, T* p, int count) {
  for (int l = 0; l < count; ++l) p[l] = a[l];
}
#endif

template <class T>
struct Vec {
  static constexpr int kWidth = PYMGAN_VECTOR_BYTES / sizeof(T);

  Raw<T> v;

  Vec() = default;
  PYMGAN_INLINE Vec(Raw<T> raw) : v(raw) {}                          // NOLINT
  PYMGAN_INLINE Vec(double x) : v(native_set(static_cast<T>(x))) {}  // NOLINT: the formulas convert constants
  PYMGAN_INLINE static Vec broadcast(const T* p) { return Vec(Raw<T>(native_set(*p))); }
  PYMGAN_INLINE static Vec load(const T* p) {
    Vec x;
    __builtin_memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  PYMGAN_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof v); }
  // The first lanes, from 1 to all of them; the others are zero, and nothing beyond is touched.
  PYMGAN_INLINE static Vec load_part(const T* p, int count) { return Vec(Raw<T>(native_load(p, count))); }
  PYMGAN_INLINE void store_part(T* p, int count) const { native_store(v, p, count); }

  PYMGAN_INLINE friend Vec operator+(Vec a, Vec b) { return Vec(Raw<T>(a.v + b.v)); }
  PYMGAN_INLINE friend Vec operator-(Vec a, Vec b) { return Vec(Raw<T>(a.v - b.v)); }
  PYMGAN_INLINE friend Vec operator*(Vec a, Vec b) { return Vec(Raw<T>(a.v * b.v)); }
  PYMGAN_INLINE friend Vec operator/(Vec a, Vec b) { return Vec(Raw<T>(a.v / b.v)); }
  PYMGAN_INLINE friend Vec operator-(Vec a) { return Vec(Raw<T>(-a.v)); }
};

// Vectors of a panel's row.
template <class T>
inline constexpr int kVectors = kLanes / Vec<T>::kWidth;

template <class T>
PYMGAN_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return Vec<T>(Raw<T>(native_fma(a.v, b.v, c.v)));
}
template <class T>
PYMGAN_INLINE Vec<T> sqrt(Vec<T> a) {
  return Vec<T>(Raw<T>(native_sqrt(a.v)));
}
// b > a ? b : a, so that NaN in a stays
template <class T>
PYMGAN_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  return Vec<T>(Raw<T>(native_max(a.v, b.v)));
}
template <class T>
PYMGAN_INLINE Vec<T> select(Mask<T> mask, Vec<T> a, Vec<T> b) {
  return Vec<T>(Raw<T>(mask ? a.v : b.v));
}
template <class T>
PYMGAN_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  return select<T>(b.v < a.v, b, a);  // NaN in a stays
}
template <class T>
PYMGAN_INLINE Vec<T> where_positive(Vec<T> c, Vec<T> a, Vec<T> b) {
  return select<T>(c.v > Raw<T>{}, a, b);
}

template <class T>
PYMGAN_INLINE Mask<T> bits(Vec<T> a) {
  Mask<T> m;
  __builtin_memcpy(&m, &a.v, sizeof m);
  return m;
}
template <class T>
PYMGAN_INLINE Vec<T> from_bits(Mask<T> m) {
  Vec<T> a;
  __builtin_memcpy(&a.v, &m, sizeof m);
  return a;
}
template <class T>
PYMGAN_INLINE Vec<T> abs(Vec<T> a) {
  using I = typename Integer<T>::Type;
  return from_bits<T>(bits(a) & static_cast<I>(~(uint64_t{1} << (8 * sizeof(T) - 1))));
}

// Sum of the lanes, always in the same order: halves are folded onto each other.
template <class T>
PYMGAN_INLINE T sum(Vec<T> a) {
  T lanes[Vec<T>::kWidth];
  a.store(lanes);
  for (int half = Vec<T>::kWidth / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0];
}

// out[i] = sum(a[i]) for four vectors at once, in a fixed order of its own.
#if defined(__SSE2__)
#if defined(__AVX512F__)
PYMGAN_INLINE __m128 fold_quarters(__m512 a) {
  const __m256 half = _mm512_castps512_ps256(a) + _mm512_castps512_ps256(_mm512_shuffle_f32x4(a, a, 0xee));
  return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
}
#define PYMGAN_SHUFFLE(what) _mm512_##what
using Wide = __m512;
#elif defined(__AVX2__)
PYMGAN_INLINE __m128 fold_quarters(__m256 a) { return _mm256_castps256_ps128(a) + _mm256_extractf128_ps(a, 1); }
#define PYMGAN_SHUFFLE(what) _mm256_##what
using Wide = __m256;
#else
PYMGAN_INLINE __m128 fold_quarters(__m128 a) { return a; }
#define PYMGAN_SHUFFLE(what) _mm_##what
using Wide = __m128;
#endif
PYMGAN_INLINE void sum_four(const Vec<float> (&a)[4], float* out) {
  auto pairs = [](Wide x, Wide y) { return PYMGAN_SHUFFLE(unpacklo_ps)(x, y) + PYMGAN_SHUFFLE(unpackhi_ps)(x, y); };
  const Wide ab = pairs(a[0].v, a[1].v),
             cd = pairs(a[2].v, a[3].v);  // lanes a b a b ... of both halves of each quarter
  const Wide low = PYMGAN_SHUFFLE(shuffle_ps)(ab, cd, 0x44), high = PYMGAN_SHUFFLE(shuffle_ps)(ab, cd, 0xee);
  _mm_storeu_ps(out, fold_quarters(low + high));
}
#undef PYMGAN_SHUFFLE
#endif
template <class T>
PYMGAN_INLINE void sum_four(const Vec<T> (&a)[4], T* out) {
  for (int i = 0; i < 4; ++i) out[i] = sum(a[i]);
}

// sums += x * y, in double.
PYMGAN_INLINE void widen(Vec<float> x, Vec<double> (&halves)[2]) {
#if defined(__SSE2__) && !defined(__AVX2__)  // GCC converts vectors of two one by one
  halves[0].v = _mm_cvtps_pd(x.v);
  halves[1].v = _mm_cvtps_pd(_mm_movehl_ps(x.v, x.v));
#else
  typedef float Half __attribute__((vector_size(PYMGAN_VECTOR_BYTES / 2)));
  Half parts[2];
  __builtin_memcpy(parts, &x.v, sizeof parts);
  for (int i = 0; i < 2; ++i) halves[i].v = __builtin_convertvector(parts[i], Raw<double>);
#endif
}
PYMGAN_INLINE void add_products(Vec<float> x, Vec<float> y, Vec<double> (&sums)[2]) {
  Vec<double> a[2], b[2];
  widen(x, a);
  widen(y, b);
  for (int i = 0; i < 2; ++i) sums[i] = fma(a[i], b[i], sums[i]);
}
PYMGAN_INLINE void add_products(Vec<double> x, Vec<double> y, Vec<double> (&sums)[2]) { sums[0] = fma(x, y, sums[0]); }

// sums[lane] += x[lane]
PYMGAN_INLINE void add_lanes(Vec<float> x, double* sums) {
  Vec<double> halves[2];
  widen(x, halves);
  for (int i = 0; i < 2; ++i, sums += Vec<double>::kWidth) (Vec<double>::load(sums) + halves[i]).store(sums);
}
PYMGAN_INLINE void add_lanes(Vec<double> x, double* sums) { (Vec<double>::load(sums) + x).store(sums); }

// Hides from the compiler how a value came about, and that it has not changed.
template <class P>
PYMGAN_INLINE void opaque(P& scalar) {
  asm("" : "+r"(scalar));
}
template <class T>
PYMGAN_INLINE void keep_in_register(Vec<T>& x) {
  asm("" : PYMGAN_IN_REGISTER(x.v));
}

// Calls body(Index<0>{}) ... body(Index<N-1>{}): loops over registers, unrolled by every compiler.
template <int i>
struct Index {
  static constexpr int value = i;
};
template <int... i>
struct Indices {};
template <int n, int... i>
struct MakeIndices : MakeIndices<n - 1, n - 1, i...> {};
template <int... i>
struct MakeIndices<0, i...> {
  using Type = Indices<i...>;
};
template <class Body, int... i>
PYMGAN_INLINE void unroll_over(Indices<i...>, const Body& body) {
  (body(Index<i>{}), ...);
}
template <int N, class Body>
PYMGAN_INLINE void unroll(const Body& body) {
  unroll_over(typename MakeIndices<N>::Type{}, body);
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
