// Where parameters live: the stages of the two networks and the offsets of their tensors, in torch's flat phi and in an
// engine's own packed vector. A stage is a product (or none) followed by at most one activation: what one instruction
// computes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "plan.h"

namespace pymgan {

enum class Player : uint8_t { generator = 0, discriminator = 1 };
inline constexpr std::array kPlayers{Player::generator, Player::discriminator};
inline constexpr int index(Player p) { return static_cast<int>(p); }

// How an engine lays its buffers out.
struct Target {
  int lanes = 1;        // rows and packed columns are padded to a multiple of this
  int narrow = 0;       // weights with at most this many outputs are stored row by row
  bool packed = false;  // weights live in [N/lanes][K][lanes] panels; products with W (not W^T) need them transposed
  int64_t pad(int64_t n) const { return (n + lanes - 1) / lanes * lanes; }
};

// One Linear's weight [n][k] and bias [n].
struct Tensor {
  Player player;
  int n = 0, k = 0;
  int64_t weight = -1, bias = -1;                // in torch's flat phi; bias -1: none
  int64_t packed_weight = -1, packed_bias = -1;  // in the engine's vector, counted from the player's own start
  bool by_rows = false;                          // [n][pad(k)] rather than panels
};

struct Stage {
  int tensor = -1;  // index into Layout::tensors; -1: activation only
  Activation activation = Activation::identity;
  std::array<double, 2> attributes{};
  int in = 0, out = 0;  // features
};

struct Layout {
  Target target;
  std::vector<Tensor> tensors;
  std::array<std::vector<Stage>, 2> stages;
  std::array<int64_t, 2> size{};   // packed elements of each player
  std::array<int64_t, 2> start{};  // of each player in the packed vector of both
  int64_t total = 0;

  Layout(const Plan& plan, const Target& target);
};

}  // namespace pymgan
