// The plan: what the compiler makes of two torch.nn.Sequential. C++ owns the record, Python fills it
// (pymgan/plan.py), validate() checks every shape and offset before a pointer is touched.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace pymgan {

enum class LayerKind : uint8_t {
  linear,
  convolution,
  activation,
  reshape,
  diagonal,   // w x + b, with parameters that features share
  prelu,      // x > 0 ? x : w x, likewise
  normalise,  // (x - mean) / sqrt(variance + eps), over groups of a sample's features
  softmax,    // over groups
  fixed,      // a linear map without parameters
  add,        // of two rows' outputs
};

// Activations of layers; formulas.h holds f, f', f''. `identity` also means "no activation".
// negative_part is min(x, 0) and inverse_root 1 / sqrt(x + eps): parts of PReLU and of normalisations.
enum class Activation : uint8_t {
  identity,
  leaky_relu,
  relu,
  elu,
  silu,
  softplus,
  tanh,
  sigmoid,
  gelu,
  gelu_tanh,
  negative_part,
  inverse_root
};

enum class Loss : uint8_t { nonsaturating, saturating, hinge, least_squares, wasserstein, relativistic };

// Whether it is a function of scores less the mean score of the other kind.
inline bool relative(Loss loss) { return loss == Loss::relativistic; }

enum class PenaltyKind : uint8_t { none, r1, r2, wgan_gp, zero_centred };

// What happens to an accumulated element `acc` before it is stored.
//   store     out = acc
//   act       out = f(acc);           pre = acc    (pre: where f' needs the pre-activation)
//   chain     out = f'(ref) acc;      pre = acc    (tangent forward, cotangent backward)
//   chain2    out = f'(ref) acc + f''(ref) q g     (tangent of the cotangent)
// ref is the activation's output or its pre-activation, see formulas.h (from_output). pre, q and g may be null
// (q or g null in chain2: f'' is identically zero).
enum class Apply : uint8_t { store, act, chain, chain2 };

// One layer. A row names its input: -1 is the network's own input, i is the output of row i.
struct PlanRow {
  LayerKind kind = LayerKind::reshape;
  std::string name;  // as the user knows it: "3: Linear(64, 64)"
  int input = -1;
  int other = -1;                            // add: the second row
  std::vector<int64_t> in_shape, out_shape;  // one sample
  int64_t weight = -1, bias = -1;            // offsets into the flat phi; -1: none
  Activation activation = Activation::identity;
  // slope (leaky_relu), alpha (elu), beta and threshold (softplus), eps (inverse_root, normalise)
  std::array<double, 2> attributes{};
  // convolution: one number a spatial dimension; shapes are (channels, extents ...)
  std::vector<int64_t> kernel, stride, padding, dilation;
  bool transposed = false;
  // D's linear and convolution under a spectral norm (spectral.h): where its u [outputs] begins among those of a
  // state, -1: none; attributes: eps of its norms
  int64_t u = -1;
  int iterations = 1;
  std::vector<int32_t> of;  // of every feature its parameter (diagonal, prelu) or its group (normalise, softmax)
  // fixed: output i is the sum of factors[j] input[sources[j]] over j from starts[i] to starts[i + 1]
  std::vector<int32_t> starts, sources;
  std::vector<double> factors;

  int64_t in_features() const;
  int64_t out_features() const;
  int64_t kinds() const;  // of parameters or groups in `of`
};

struct Network {
  std::vector<int64_t> in_shape;
  std::vector<PlanRow> rows;

  const std::vector<int64_t>& out_shape() const;
  bool convolves() const;
};

// phi = parameters_to_vector(G) ++ parameters_to_vector(D): generator parameters come first.
struct Plan {
  Network generator, discriminator;
  int64_t generator_parameters = 0, parameters = 0;

  int64_t spectral() const;  // U: numbers in a state, u of all of D's spectral norms

  // Throws std::invalid_argument: shapes that do not chain, parameters that overlap or leave gaps.
  void validate() const;
};

int64_t numel(const std::vector<int64_t>& shape);

}  // namespace pymgan
