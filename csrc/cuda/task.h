// One task while a block works on it: where its slots begin, the step's schedule, and what is found on the way.
#pragma once

#include "../cpu/kernels.h"  // NoiseKey
#include "block.h"
#include "code.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

using cpu::NoiseKey;

struct Task {
  float* base[kSlots] = {};  // of every slot; read-only ones too
  float rate[2] = {};        // of G and D
  uint8_t active = kBoth;
  Optimiser kind = Optimiser::sgd;
  int64_t number[2] = {1, 1};  // of each player's update, since its moments were zero
  NoiseKey key;
  const float* noise = nullptr;   // [fakes][latent]; null: drawn
  const float* real = nullptr;    // [reals][features], or the pool
  const int32_t* rows = nullptr;  // [reals] rows of the pool
  const float* input[2] = {};     // of generate and generate_vjp
  float* output = nullptr;
  double* d_rate = nullptr;  // [C][2], strided
  int64_t d_rate_stride = 0;
  float* trace = nullptr;  // [kTrace]
  bool valid = true;

  double squares[2] = {};  // of fused updates' gradients
  double spoilt[2] = {};   // how many of their parameters are not finite
};

// What the operands of an instruction mean.
class Operands {
 public:
  PYMGAN_DEVICE Operands(Block& block, const Tables& tables, Task& task) : block(block), t(tables), task(task) {}

  PYMGAN_DEVICE float* at(const Operand& o) const { return o.slot < 0 ? nullptr : from(o, o.offset); }
  PYMGAN_DEVICE float* bias_at(const Operand& o) const { return o.slot < 0 || o.bias < 0 ? nullptr : from(o, o.bias); }
  // A player's part of a parameter-shaped value, and the moment `number` of it.
  PYMGAN_DEVICE float* part(const Operand& o, int player, int number = 0) const {
    float* start = at(o);
    return start ? start + (o.player < 0 ? t.start[player] : 0) + number * t.total : nullptr;
  }
  PYMGAN_DEVICE bool active(int player) const { return task.active >> player & 1; }

  Block& block;
  const Tables& t;
  Task& task;

 private:
  PYMGAN_DEVICE float* from(const Operand& o, int offset) const {
    float* start = task.base[o.slot];
    if (!start) return nullptr;
    return o.rank < 0 ? start + offset : block.of_rank(start + offset, o.rank);
  }
};

PYMGAN_DEVICE int index_of(Player p) { return static_cast<int>(p); }
PYMGAN_DEVICE int padded(int n) { return (n + 3) / 4 * 4; }
PYMGAN_DEVICE int site_ld(int sites, int channels) { return sites == 1 ? channels : padded(channels); }
PYMGAN_DEVICE bool is_finite(double x) { return x - x == 0; }

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
