// The cpu engine's interpreter: executes one Procedure for one task on one core. It allocates nothing.
#pragma once

#include <cstdint>

#include "../program.h"
#include "kernels.h"

namespace pymgan::cpu {

inline Target cpu_target() { return {kLanes, kNarrow, true}; }

// What the slots of a Procedure's values mean for one task and one step. Parameter-shaped buffers are packed.
template <class T>
struct Frame {
  T* arena = nullptr;             // [procedure.arena]
  T* residual = nullptr;          // [program.residual_elements()]
  const T* phi = nullptr;         // [total]
  T* phi_next = nullptr;          // [total], may be phi
  const T* moment = nullptr;      // [moments][total]
  T* moment_next = nullptr;       // [moments][total], may be moment
  const T* spectral = nullptr;    // [layout.spectral_size]
  T* spectral_next = nullptr;     // likewise
  const T* rate_scale = nullptr;  // [total]; null: 1
  T* cotangent = nullptr;         // [C][total]
  T* v_moment = nullptr;          // [C][moments][total]
  T* d_scale = nullptr;           // [C][total]
  T* gradient = nullptr;          // [1 or 2][total]

  double rate[2] = {};  // of G and D
  uint8_t active = kBoth;
  Optimiser kind = Optimiser::sgd;
  int64_t number[2] = {1, 1};  // of each player's update, since its moments were zero
  NoiseKey key;
  const T* noise = nullptr;       // [fakes][latent]; null: drawn
  const T* real = nullptr;        // [reals][features], or the pool
  const int32_t* rows = nullptr;  // [reals] rows of the pool
  const T* input[2] = {};         // of generate and generate_vjp
  T* output = nullptr;
  double* d_rate = nullptr;   // [C][2], strided
  int64_t d_rate_stride = 0;  // between cotangents

  struct Range {
    const T* start = nullptr;
    int64_t elements = 0;
  } ahead;  // what the next step will touch

  // outputs
  T* trace = nullptr;  // [kTrace]
  bool valid = true;   // false: a loss or gradient was not finite; phi_next is then not written
};

// trace: loss_g, loss_d, norm_g, norm_d, fake mean and deviation, real mean and deviation
inline constexpr int kTrace = 8;

template <class T>
void execute(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame);

extern template void execute(const Kernels<float>&, const Program&, const Procedure&, Frame<float>&);
extern template void execute(const Kernels<double>&, const Program&, const Procedure&, Frame<double>&);

}  // namespace pymgan::cpu
