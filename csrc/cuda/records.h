// What a launch consists of: the lists, tables and places that all of its blocks share, and the calls' arguments. The
// cpu engine's call records (cpu/engine.h) say what comes in.
#pragma once

#include "../cpu/engine.h"
#include "code.h"

namespace pymgan::cuda {

struct Listing {
  int32_t first = 0, count = 0;  // in Launch::codes
};

// Where a buffer begins, in elements: in the task's part of the workspace, or in the shared memory of its block.
struct Place {
  int64_t at = -1;  // -1: there is none
  bool shared = false;
};

// A task's buffers.
struct Places {
  Place carried[2];            // [snapshot], before and after a step, in turn, so that the last finite one survives
  Place before;                // [snapshot] of the step that is pulled back; none: it is read where it is kept
  Place residual;              // of a step that keeps nothing
  Place arena;                 // of temps
  Place v, v_moment, d_scale;  // [C] vectors each
  Place v_out;                 // [C][total]: v once it is pulled back, for sums over tasks
  Place scratch;               // [scratch_slots][snapshot]
  Place scale;                 // [total], learned rates
  Place saved;                 // [saved_each], of the meta-gradient
  Place part;                  // [C][total]: a term of its v
  Place z, fakes, d_fakes, losses;  // of its objective: [noise_rows][latent], [samples][features] twice, [kTrace]
  Place phi, spectral, gradient;    // of the calls with one list: [total], [spectral_size], [2][total]
  int64_t rings = 0;                // in shared memory, of a block's warps (ring.h)
  int32_t ring_blocks = 0;          // of each; 0: there are none
  int64_t each = 0;                 // elements of the workspace, of one task
  int64_t shared = 0;               // elements of shared memory, of one block
};

struct Launch {
  int32_t team = 1;  // blocks that work on a task
  Tables tables;
  const Code* codes = nullptr;
  Listing step[2][2];             // by StepForm: penalised, extra
  const Listing* pull = nullptr;  // [steps][2][2]
  Listing gradients, generate, generate_vjp;
  const Action* actions = nullptr;  // of the pull-back
  int32_t action_count = 0, kept_slots = 0;
  const int32_t* slot_of_step = nullptr;  // [steps + 1]
  const int32_t* flat = nullptr;          // [total], of every packed element its place in torch's phi; -1: padding
  const uint8_t* optimisers = nullptr;    // kinds of the game
  const Halves* halves = nullptr;         // [cotangents], of the pull-back
  int32_t cotangents = 0;
  int32_t parts = 0, noise_rows = 0;  // of the meta-gradient: of the query that a loss is the mean of; of z
  int32_t fakes = 0, reals = 0;       // of a batch
  int64_t parameters = 0, snapshot = 0, residual_elements = 0, saved_each = 0, spectral = 0;
  int32_t steps = 0, penalty_every = 0;  // 0: no penalty
  bool keep_all = false, fused = false;
  Precision precision = Precision::float32;
  Places places;
  float* workspace = nullptr;
};

// cpu::PullCall, as a kernel takes it.
struct PullArguments {
  int64_t tasks = 0;
  cpu::Batches<float> batches;
  cpu::InnerSchedule<float> schedule;
  bool rates = false;
  const double* weight = nullptr;
  uint8_t* valid = nullptr;
  float* saved = nullptr;
  const float *v = nullptr, *v_moment = nullptr;
  float *v0 = nullptr, *v_moment0 = nullptr;
  double* d_rate = nullptr;
  float* d_scale = nullptr;
};

// Standard normals of (seed, task, step, stream).
struct NoiseCall {
  int64_t tasks = 0;
  int32_t numbers = 0;  // of a task
  uint64_t seed = 0;
  uint32_t stream = 0;
  const int64_t* task = nullptr;  // [tasks] global numbers
  int64_t step = 0;
  float* out = nullptr;  // [tasks][numbers]
};

}  // namespace pymgan::cuda
