// What the interpreter asks of one instruction set. kernels.cpp is compiled once per set, with the vector
// length as a compile-time constant; dispatch.cpp chooses at run time. No kernel allocates or throws.
//
// Layouts. A row-shaped value of M samples and N features is [M][ld], ld = padded(N), M rows, row-major. A Linear's
// weight W [N][K] (out, in) is stored in one of two packed layouts, chosen by `narrow(N)`:
//   panels   [padded(N)/16][K][16]   element (n, k) at ((n/16)*K + k)*16 + n%16, the usual one
//   rows     [N][padded(K)]          for N <= kNarrow, outputs narrower than a vector
// followed by nothing; biases are packed apart as [padded(N)]. Padding of parameters, gradients and directions is
// zero and stays zero; padding of cotangents (gamma, delta and their tangents) is zero; padding of activations is
// finite. Every pointer that kernels receive is 64-byte aligned at element 0 of its buffer.
#pragma once

#include <cstdint>

#include "../fixed_map.h"
#include "../optimisers.h"
#include "../plan.h"
#include "../window.h"

namespace pymgan::cpu {

inline constexpr int kLanes = 16;  // panel width in elements, the same for every instruction set
inline constexpr int kNarrow = 4;  // widths up to this use the `rows` layout
inline constexpr int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
inline constexpr bool narrow(int64_t n) { return n <= kNarrow; }

// Memory that the next step will touch. Products fetch a few lines of it with every tile, so that its misses cost
// nothing: residuals and snapshots of many steps are far larger than the caches.
struct Ahead {
  const char *at = nullptr, *end = nullptr;
  double lines_per_flop = 0;
};

template <class T>
struct Epilogue {
  Apply apply = Apply::store;
  Activation activation = Activation::identity;
  T attributes[2] = {};
  int64_t ld = 0;  // of all five below: [M][ld]
  const T* ref = nullptr;
  const T* q = nullptr;
  const T* g = nullptr;
  // outputs
  T* out = nullptr;
  T* pre = nullptr;
};

// How one product's terms are read.
//   panels  B[p][n] = b[(n/16)*b_panel + p*b_row + n%16], contraction index p in [0, depth), broadcast A
//   dots    N <= kNarrow outputs: out[m][n] = sum_p A[m][p] B[n][p], with vectors along p:
//           B[n][p] = b[(p/16)*b_panel + n*b_row + p%16]; A rows contiguous (a_col == 1), depth is padded to 16 by the
//           layout (the products of padding are zero: weights' padding is zero)
enum class Access : uint8_t { panels, dots };

template <class T>
struct Term {
  const T* a = nullptr;  // [M][depth]: A[m][p] = a[m*a_row + p]; null: the term is absent
  int64_t a_row = 0;
  const T* b = nullptr;
  int64_t b_panel = 0, b_row = 0;
  int depth = 0;
  Access access = Access::panels;
};

// out[m][n] = epilogue(scale[m] * (A0 B0 + bias)[m][n] + (A1 B1)[m][n]),  m < M, n < padded(N)
// sum_l dot_out[m][l] += sum_n dot[m][n] * (A0 B0 + bias)[m][n]: the directional derivative of a score, picked up on
// the way, in lanes that `combine` sums. Term 0 may be absent (A0 B0 + bias is then zero and bias, dot must be null),
// and so may term 1.
template <class T>
struct Product {
  int rows = 0, columns = 0;  // M, N
  Term<T> term0, term1;
  const T* bias = nullptr;   // [padded(N)]
  const T* scale = nullptr;  // [M]; null: 1
  const T* dot = nullptr;    // [M][ld]
  T* dot_out = nullptr;      // [M][kLanes]
  Ahead* ahead = nullptr;    // moves on; may be null
  Epilogue<T> epilogue;      // out [M][ld], columns N..padded(N) written too (zero acc through the epilogue)
};

// The weight gradient's form, out[m][n] (+)= sum_p A0[p][m] B0[p][n] + sum_p A1[p][m] B1[p][n], contraction over the
// batch. For `panels` weights: A = h (m = k in [0, K)), B = delta (n over padded(N)); for `rows`: A = delta, B = h.
template <class T>
struct OuterTerm {
  const T* a = nullptr;  // [depth][a_ld]
  int64_t a_ld = 0;
  const T* b = nullptr;  // [depth][b_ld]
  int64_t b_ld = 0;
  int depth = 0;
};

// What fused updates leave behind of a player's gradient F.
template <class T>
struct GradientSums {
  double squares[kLanes] = {};  // their sum is that of F's squares
  T spoilt[kLanes] = {};        // not zero (NaN): some theta' is not finite
};

template <class T>
struct OuterProduct {
  int rows = 0, columns = 0;  // M (exact), N (all padded(N) columns are computed)
  OuterTerm<T> term0, term1;  // either may be absent (a null)
  bool accumulate = false;
  // With theta: out = theta - rate * scale * (the products).
  const T* theta = nullptr;  // as out, which it may be
  const T* scale = nullptr;  // as out, learned rates; null: 1
  T rate = 0;
  GradientSums<T>* sums = nullptr;
  Ahead* ahead = nullptr;  // moves on; may be null
  // outputs
  T* out = nullptr;  // out[m][n] at out[(n/16)*out_panel + m*out_row + n%16]
  int64_t out_panel = 0, out_row = 0;
};

// A Window of window.h as kernels see it.
struct WindowShape {
  int in_sites = 1, out_sites = 1, taps = 1;
  const int32_t* from = nullptr;        // [out_sites][taps]
  const WindowGroup* groups = nullptr;  // [group_count]
  int group_count = 0;
  const int32_t* numbers = nullptr;     // of the groups
  const int32_t* first_pair = nullptr;  // [taps + 1]
};

template <class T>
struct WindowTerm {
  const T* a = nullptr;  // [samples] by a_sample, [in_sites] by a_ld, [channels]; null: the term is absent
  int64_t a_sample = 0, a_ld = 0;
  const T* b = nullptr;  // the packed weight [columns][taps][channels]
};

// out[s][site][n] = epilogue(scale[s] * (A0 B0 + bias) + A1 B1), contraction over taps and channels; dots as in
// Product.
template <class T>
struct WindowProduct {
  WindowShape window;
  int samples = 0, columns = 0, channels = 0;  // columns: outputs of a site, channels: inputs of a site
  WindowTerm<T> term0, term1;
  const T* bias = nullptr;  // [padded(columns)], or with bias_site [out_sites][bias_site]
  int64_t bias_site = 0;
  const T* scale = nullptr;  // [samples]; null: 1
  const T* dot = nullptr;    // as out
  T* dot_out = nullptr;      // [samples][kLanes]
  T* scratch = nullptr;      // [2][kWindowTile + kNarrow][padded(most taps of a group * channels)]
  int64_t out_ld = 0;        // between sites; the epilogue's ld is between samples
  Epilogue<T> epilogue;
};

template <class T>
struct WindowOuterTerm {
  const T* a = nullptr;  // [samples] by a_sample, sites by a_ld; null: the term is absent
  const T* b = nullptr;
  int64_t a_sample = 0, a_ld = 0, b_sample = 0, b_ld = 0;
  const int32_t* a_site = nullptr;  // of every pair
  const int32_t* b_site = nullptr;
  int samples = 0;
};

// The weight's gradient: for every tap an outer product over its pairs. `update` says what becomes of it; its terms are
// not used.
template <class T>
struct WindowOuter {
  WindowShape window;
  WindowOuterTerm<T> term0, term1;
  OuterProduct<T> update;
  int64_t out_tap = 0;
  // With few rows, if not null: the window that b's sites have on a's, all of whose groups are uniform.
  const WindowShape* of_b = nullptr;
};

// out = epilogue(scale[m] * src[m][n] * times[m][n] + plus[m][n]) over [M][ld]
template <class T>
struct Elementwise {
  int rows = 0;
  const T* src = nullptr;    // [M][ld]
  const T* times = nullptr;  // [M][ld]; null: 1
  const T* plus = nullptr;   // [M][ld]; null: 0
  const T* scale = nullptr;  // [M]; null: 1
  int order = 0;             // with act: of the derivative
  Epilogue<T> epilogue;
};

// out[m] = A x[m], see FixedMap; padding becomes zero.
template <class T>
struct FixedProduct {
  int rows = 0;
  const FixedBlock* blocks = nullptr;  // [block_count]
  int block_count = 0;
  const T* x = nullptr;  // [rows][x_ld]
  int64_t x_ld = 0;
  T* out = nullptr;  // [rows][out_ld]
  int64_t out_ld = 0;
};

// out[m][n] = epilogue(scale[m] * (w0[of[n]] a0[m][n] + bias[of[n]]) + w1[of[n]] a1[m][n]); dots as in Product. Padding
// (of -1) has numbers of zero.
template <class T>
struct DiagonalProduct {
  int rows = 0, elements = 0;
  const int32_t* of = nullptr;  // [elements]
  const T* a0 = nullptr;        // [rows][ld]; null: the term is absent, and so are bias and dot
  const T* w0 = nullptr;
  const T* a1 = nullptr;  // [rows][ld]; null: the term is absent
  const T* w1 = nullptr;
  const T* bias = nullptr;
  const T* scale = nullptr;  // [rows]; null: 1
  const T* dot = nullptr;    // [rows][ld]
  T* dot_out = nullptr;      // [rows][kLanes]
  T* scratch = nullptr;      // [3][ld]
  Epilogue<T> epilogue;
};

// out[i] (+)= the sum over elements n of number i and over rows of b0 a0 + b1 a1, or with of_bias of b0.
template <class T>
struct DiagonalOuter {
  int rows0 = 0, rows1 = 0, count = 0, stored = 0;
  const int32_t* of = nullptr;  // [stored]
  const T* a0 = nullptr;        // [rows0][ld]
  const T* b0 = nullptr;
  const T* a1 = nullptr;  // [rows1][ld]
  const T* b1 = nullptr;
  int64_t ld = 0;
  bool of_bias = false, accumulate = false;
  T* elements = nullptr;   // [ld], scratch
  double* sums = nullptr;  // [count], scratch
  T* out = nullptr;        // [padded(count)]
};

// out[m] = softmax of x[m] over each group of elements; padding becomes zero.
template <class T>
struct Softmax {
  int rows = 0, elements = 0, groups = 0;
  const int32_t* of = nullptr;  // [elements]; -1: padding
  const T* x = nullptr;         // [rows][ld]
  T* out = nullptr;             // [rows][ld]
  int64_t ld = 0;
  T *most = nullptr, *sums = nullptr;  // [groups] each, scratch
};

// Losses and their derivatives with respect to the scores, means over the batch included (1/B).
//   L_G = mean_f l_G(s) + mean_r l_Gr(s);  L_D = mean_f l_Df(s) + mean_r l_Dr(s);   c = dL/ds, cc = d2L/ds2
// Of a relative loss s is R s here, c = R^T dL/d(R s), and cc is d2L/d(R s)2 (relative.h).
template <class T>
struct Head {
  Loss loss = Loss::nonsaturating;
  T smoothing = 0;           // one-sided label smoothing: the real target is 1 - smoothing
  int fakes = 0, reals = 0;  // the first `fakes` rows are G's samples
  const T* score = nullptr;  // [fakes+reals][16], column 0
  int64_t score_ld = kLanes;
  // outputs, each [fakes+reals] or null
  T* c_g = nullptr;
  T* c_d = nullptr;
  T* cc_g = nullptr;
  T* cc_d = nullptr;
  T* stats = nullptr;  // [6]: L_G, L_D, mean and deviation of s on fakes, then on reals
};

// A gradient penalty: of squared norms n [rows], weight times the mean of p(n).
template <class T>
struct PenaltyHead {
  PenaltyKind kind = PenaltyKind::none;
  T weight = 0;
  int rows = 0;
  const T* norm2 = nullptr;  // [rows]
  // outputs
  T* c = nullptr;  // [rows] 2 p'; may be null
  T* k = nullptr;  // [rows] 4 p''; may be null
  double value = 0;
};

// theta' = theta - rate * scale * d over n packed parameters of one player, d and the moments after it as in
// optimisers.h.
template <class T>
struct Update {
  int64_t n = 0;
  Optimiser kind = Optimiser::sgd;
  T rate = 0;
  formulas::Knobs<T> knobs{};          // norm and along are found here
  const T* gradient = nullptr;         // [n] F
  const T* moment[kMostMoments] = {};  // [n] each, those that the kind has; null: zero
  const T* scale = nullptr;            // [n] learned rates; null: 1
  const T* theta = nullptr;            // [n]
  // outputs
  T* theta_out = nullptr;            // [n], may be theta; null: only norm2 is wanted
  T* moment_out[kMostMoments] = {};  // [n] each, may be moment; may be null
  double* norm2 = nullptr;           // sum of squares of F, in a fixed order; may be null
};

// Its adjoint: w and v_moment as in optimisers.h with a = -rate * scale * v; d_rate -= sum scale * d * v,
// d_scale -= rate * d * v.
template <class T>
struct UpdateAdjoint {
  int64_t n = 0;
  Optimiser kind = Optimiser::sgd;
  T rate = 0;
  formulas::Knobs<T> knobs{};
  bool first = false;                  // the moments before it are zero, whatever comes in
  const T* gradient = nullptr;         // [n] F; null where neither the adjoint nor rates read it
  const T* moment[kMostMoments] = {};  // [n] each, before the update, read with F; null: zero
  const T* scale = nullptr;            // [n]; null: 1
  const T* v = nullptr;                // [n]
  T* v_moment[kMostMoments] = {};      // [n] each, those that the kind has, in place
  // outputs
  T* w = nullptr;            // [n] adjoint of F
  double* d_rate = nullptr;  // one number, accumulated; may be null
  T* d_scale = nullptr;      // [n], accumulated; may be null
};

// A packed weight [n][k], or [n][taps * k] of a window, as one matrix.
template <class T>
struct WeightMatrix {
  int n = 0, k = 0;
  bool by_rows = false;
  const T* at = nullptr;
};

// out (+)= of_a a + of_b b + of_uv u v^T, all packed likewise.
template <class T>
struct RankOne {
  int n = 0, k = 0;
  bool by_rows = false, accumulate = false;
  T of_a = 0, of_b = 0, of_uv = 0;
  const T* a = nullptr;
  const T* b = nullptr;  // null: absent
  const T* u = nullptr;  // [padded(n)]
  const T* v = nullptr;  // [padded(k)]
  T* out = nullptr;
};

// Standard normals from Philox4x32-10 and Box-Muller: sample i of (seed, task, step, stream) depends on nothing else.
// Counter block i/4 is (i/4, step low 32, step high 32 xor'd with stream << 16, task low 32); the key is the 64-bit
// seed with the task's high 32 bits added to its high word. Words (0,1) give normals 4b, 4b+1 as r cos, r sin; (2,3)
// the next two.
struct NoiseKey {
  uint64_t seed = 0, task = 0, step = 0;
  uint32_t stream = 0;
};

template <class T>
struct Kernels {
  const char* name;  // "v2", "avx2", "avx512", "portable"
  void (*product)(const Product<T>&);
  void (*outer)(const OuterProduct<T>&);
  void (*window_product)(const WindowProduct<T>&);
  void (*window_outer)(const WindowOuter<T>&);
  void (*window_outer_few)(const WindowOuter<T>&);  // columns need not be whole vectors
  void (*elementwise)(const Elementwise<T>&);
  void (*fixed_map)(const FixedProduct<T>&);
  void (*diagonal)(const DiagonalProduct<T>&);
  void (*diagonal_outer)(const DiagonalOuter<T>&);
  void (*softmax)(const Softmax<T>&);
  void (*head)(const Head<T>&);
  void (*penalty)(PenaltyHead<T>&);
  void (*update)(const Update<T>&);
  void (*update_adjoint)(const UpdateAdjoint<T>&);
  // out[m] (+)= sum_n x[m][n] y[m][n] over [rows][ld], all ld columns; y null: 1
  void (*row_dot)(const T* x, const T* y, int rows, int64_t ld, T* out, bool accumulate);
  // out[n] (+)= sum_m x[m][n] for n < ld
  void (*column_sum)(const T* x, int rows, int64_t ld, T* out, bool accumulate);
  // sum_i x[i] y[i] for i < n, a multiple of kLanes
  T (*dot)(const T* x, const T* y, int64_t n);
  void (*matrix_times)(const WeightMatrix<T>& w, const T* v, T* out);             // out [padded(n)] = W v
  void (*transposed_matrix_times)(const WeightMatrix<T>& w, const T* u, T* out);  // out [padded(k)] = W^T u
  void (*rank_one)(const RankOne<T>&);
  // panels of W [padded(N)/16][K][16] -> panels of W^T [padded(K)/16][N][16] (columns K..padded(K) zero)
  void (*transpose)(const T* w, int n, int k, T* out);
  // the packed weight [n][taps][k] of a window to [k][taps][n], packed likewise
  void (*window_transpose)(const T* w, int n, int taps, int k, T* out);
  // one weight between torch's [N][K] and its packed layout (panels, or rows if narrow(N)); padding is zeroed
  void (*pack)(const T* w, int n, int k, T* out);
  void (*unpack)(const T* packed, int n, int k, T* out);
  // out [rows][ld], normals i = row*columns + column in the first `columns`, zero in the rest
  void (*noise)(const NoiseKey& key, int rows, int columns, int64_t ld, T* out);
  // normals 4 block to 4 block + kNormals - 1 in double, whatever T is: where one too many ulp would be another choice
  void (*normals)(const NoiseKey& key, uint32_t block, double* out);
};
inline constexpr int kNormals = 64;

// Instruction sets built into this binary, best first, and whether this machine can execute them.
struct Isa {
  const char* name;
  bool (*supported)();
  const Kernels<float>& (*f32)();
  const Kernels<double>& (*f64)();
};
const Isa* isas(int* count);

// The set to use: PYMGAN_ISA if it is set (throws std::invalid_argument if unknown or not executable here), else the
// best that this machine executes.
const Isa& chosen_isa(const char* requested);

}  // namespace pymgan::cpu
