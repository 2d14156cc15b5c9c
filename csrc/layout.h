// Where parameters live: the stages of the two networks and the offsets of their tensors, in torch's flat phi and in an
// engine's own packed vector. A stage is a product (or none) followed by at most one activation: what one instruction
// computes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "fixed_map.h"
#include "plan.h"
#include "window.h"

namespace pymgan {

enum class Player : uint8_t { generator = 0, discriminator = 1 };
inline constexpr std::array kPlayers{Player::generator, Player::discriminator};
inline constexpr int index(Player p) { return static_cast<int>(p); }

// How an engine lays its buffers out.
struct Target {
  int lanes = 1;         // rows and packed columns are padded to a multiple of this
  int narrow = 0;        // weights with at most this many outputs are stored row by row
  bool packed = false;   // weights live in [N/lanes][K][lanes] panels; products with W (not W^T) need them transposed
  bool by_rows = false;  // all weights are stored row by row, rows padded
  int tile = 0;          // columns of a product that are made together: dots are summed up from tile to tile
  int64_t pad(int64_t n) const { return (n + lanes - 1) / lanes * lanes; }
};

// How one sample lies in memory. In a network of Linears it is flat, in torch's order. Beside convolutions an image has
// its sites one after the other, `ld` elements of which are `channels`: torch's has its channels one after the other.
struct Form {
  int channels = 1, sites = 1, ld = 1;
  int stored() const { return sites * ld; }
  int features() const { return sites * channels; }
  bool flat() const { return ld == channels && (sites == 1 || channels == 1); }
  bool lies_as(const Form& other) const { return *this == other || (flat() && other.flat()); }
  int element(int feature) const { return feature % sites * ld + feature / sites; }  // of a feature in torch's order
  auto operator<=>(const Form&) const = default;
};

// One layer's weight [n][taps][k] (outputs, taps, inputs) and bias [bias_sites][n]; or numbers w [n] and b [n] that a
// sample's elements are multiplied with and moved by.
struct Tensor {
  Player player;
  int n = 0, k = 0, taps = 1;
  int in = 0, out = 0;  // elements of a sample as stored
  int window = -1;      // index into Layout::windows; -1: a Linear between flat samples, one tap
  int bias_sites = 1;   // the output's sites, where each has a bias of its own
  int bias_ld = 0;      // packed: [bias_sites][bias_ld], then padding
  // In torch's flat phi: element (n, tap, k) at weight + n * weight_n + weight_tap[tap] + k * weight_k, bias (site, n)
  // at bias + n * bias_sites + site. bias -1: none.
  int64_t weight = -1, bias = -1;
  int64_t weight_n = 0, weight_k = 1;
  std::vector<int64_t> weight_tap{0};
  int64_t packed_weight = -1, packed_bias = -1;  // in the engine's vector, counted from the player's own start
  bool by_rows = false;                          // [n][pad(taps * k)] rather than panels of [taps][k][lanes]
  std::vector<int32_t> of;                       // [in] the number of every element, -1: padding. Empty: a product

  bool diagonal() const { return !of.empty(); }
  int inputs() const { return taps * k; }
};

// D's weight W, as a matrix [n][taps * k], under a spectral norm: layers use W / sigma, sigma = u^T W v (spectral.h).
struct SpectralNorm {
  int tensor;
  int64_t state;  // of u [n] in torch's state
  int64_t u, v;   // of u and v in the engine's; padded
  int iterations;
  double eps;
};

struct Stage {
  enum class Kind : uint8_t { product, prelu, normalise, softmax, fixed, add };  // product: or diagonal, or none
  Kind kind = Kind::product;
  int input = -1, other = -1;  // stages whose outputs it reads (other: add); -1: the network's input
  int tensor = -1;             // index into Layout::tensors; -1: activation only
  int map = -1;                // index into Layout::maps (fixed) or Layout::groups (normalise, softmax)
  Activation activation = Activation::identity;
  std::array<double, 2> attributes{};
  Form from, to;
  int in = 0, out = 0;  // elements of a sample as stored
  int window = -1;      // of its tensor
};

struct Windows {
  Window forward, back;
};

struct FixedMaps {
  FixedMap forward, back;
};

// Of a sample's features.
struct Groups {
  int count = 0;
  std::vector<int32_t> of;  // [in] the group of every element, -1: padding
  // indices into Layout::maps: from features to groups, and from a group to its features, as it is (whose transpose
  // sums over groups) and times -1
  int mean, spread, less;
};

struct Layout {
  Target target;
  std::vector<Tensor> tensors;
  std::array<std::vector<Stage>, 2> stages;
  std::vector<Windows> windows;
  std::vector<FixedMaps> maps;
  std::vector<Groups> groups;
  std::vector<SpectralNorm> spectral;
  int64_t spectral_size = 0;       // of the engine's state
  Form z, x;                       // of the generator's input and output
  std::vector<int64_t> sample;     // (channels, extents ...) of the latter, or (features)
  std::array<int64_t, 2> size{};   // packed elements of each player
  std::array<int64_t, 2> start{};  // of each player in the packed vector of both
  int64_t total = 0;

  Layout(const Plan& plan, const Target& target);
  Form form_of(const std::vector<int64_t>& shape) const;  // (channels, extents ...), or flat features
  // Elements between the sites of a sample: few channels, and those of a single site, lie without padding.
  int site_ld(int sites, int channels) const {
    return sites == 1 || channels <= target.narrow ? channels : static_cast<int>(target.pad(channels));
  }
  int64_t packed_weight_size(const Tensor& t) const;  // of a diagonal: [n], then padding
  int64_t packed_bias_size(const Tensor& t) const { return target.pad(t.bias_sites * t.bias_ld); }

 private:
  bool spatial_;  // samples with extents lie site by site
  void add_network(const Network& net, Player player);
  int add_stage(Player player, Stage stage, const Form& from, const Form& to);
  int lay_out_as(Player player, int stage, const Form& from, const Form& to);
  int add_map(FixedMap map);
  int add_groups(const PlanRow& row, const Form& form);
  Form form_after(const Network& net, size_t row) const;
  void add_diagonal(const PlanRow& row, Player player, const Form& form);
  void add_linear(const PlanRow& row, Player player, const Form& from, const Form& to);
  void add_convolution(const PlanRow& row, Player player, const Form& from, const Form& to);
  void add_spectral(const PlanRow& row);
};

}  // namespace pymgan
