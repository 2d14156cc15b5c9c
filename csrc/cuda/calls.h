// The contract's calls for one task and one block: the K inner steps and their pull-back, gradients and samples. The
// cpu engine's call records (cpu/engine.h) say what comes in; a Launch says what all blocks share.
#pragma once

#include "../cpu/engine.h"
#include "interpreter.h"

namespace pymgan::cuda {

struct Listing {
  int32_t first = 0, count = 0;  // in Launch::codes
};

// Where a task's buffers begin in its part of the workspace, in elements; -1: it has none.
struct Places {
  int64_t phi = -1, state = -1;                 // [total], [state_size]: before the first step
  int64_t carried[2] = {-1, -1};                // [snapshot], in turn, so that the last finite one survives
  int64_t residual = -1;                        // of a step that keeps nothing
  int64_t arena = -1;                           // of temps
  int64_t v = -1, v_moment = -1, d_scale = -1;  // [C] vectors each
  int64_t scratch = -1;                         // [scratch_slots][snapshot]
  int64_t scale = -1;                           // [total], learned rates
  int64_t each = 0;                             // of one task
};

struct Launch {
  Tables tables;
  const Code* codes = nullptr;
  Listing step[2][2];               // by StepForm: penalised, extra
  const Listing* pull = nullptr;    // [steps][2][2]
  Listing list;                     // gradients, generate, generate_vjp
  const Action* actions = nullptr;  // of the pull-back
  int32_t action_count = 0, kept_slots = 0;
  const int32_t* slot_of_step = nullptr;  // [steps + 1]
  const int32_t* flat = nullptr;          // [total], of every packed element its place in torch's phi; -1: padding
  const uint8_t* optimisers = nullptr;    // kinds of the game
  const Halves* halves = nullptr;         // [cotangents], of the pull-back
  int32_t cotangents = 0;
  int64_t parameters = 0, snapshot = 0, residual_elements = 0, saved_each = 0, spectral = 0;
  int32_t steps = 0, penalty_every = 0;  // 0: no penalty
  bool keep_all = false, fused = false, fast = false;
  Places places;
  int32_t arena = 0;          // elements of temps
  bool arena_shared = false;  // they live in the block's shared memory
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

class TaskCall {
 public:
  // shared: room for the temps, where the launch says so
  PYMGAN_DEVICE TaskCall(Block& block, const Launch& launch, int64_t task, float* shared = nullptr)
      : block(block),
        l(launch),
        t(launch.tables),
        number(task),
        room(launch.workspace + task * launch.places.each),
        arena(launch.arena_shared ? shared : at(launch.places.arena)) {}

  PYMGAN_DEVICE void adapt(const cpu::AdaptCall<float>& call) {
    float *phi0 = at(l.places.phi), *state0 = at(l.places.state);
    pack(call.phi0 + number * call.phi0_task, phi0);
    for (int m = 0; m < t.moments; ++m)
      if (call.moment0)
        pack(call.moment0 + (number * t.moments + m) * l.parameters, state0 + m * t.total);
      else
        clear(t.total, state0 + m * t.total);
    pack_spectral(call.spectral0 ? call.spectral0 + number * l.spectral : nullptr, state0 + t.moments * t.total);
    const float* scale = pack_scale(call.schedule.scale);
    const float *phi, *state;
    bool valid;
    const int done = run(call.batches, call.schedule, scale, call.saved ? call.saved + number * l.saved_each : nullptr,
                         call.trace + number * l.steps * kTrace, phi, state, valid);
    block.each(1, [&](int) { call.valid[number] = valid, call.done[number] = done; });
    unpack(phi, call.phi + number * l.parameters, kBoth);
    for (int m = 0; m < t.moments; ++m)
      unpack(state + m * t.total, call.moment + (number * t.moments + m) * l.parameters, kBoth);
    if (l.spectral > 0) unpack_spectral(state + t.moments * t.total, call.spectral + number * l.spectral);
  }

  // Sums over tasks are the caller's business: v stays in the workspace.
  PYMGAN_DEVICE void pullback(const PullArguments& call) {
    const Halves* halves = l.halves;
    const int cotangents = l.cotangents;
    auto row = [&](auto* base, int c) { return base + (c * call.tasks + number) * l.parameters; };
    auto moment_row = [&](auto* base, int c, int m) {
      return base + ((c * call.tasks + number) * t.moments + m) * l.parameters;
    };
    float *v = at(l.places.v), *v_moment = at(l.places.v_moment), *d_scale = at(l.places.d_scale);
    for (int c = 0; c < cotangents; ++c) {
      pack(row(call.v, c), v + c * t.total);
      clear_other_half(halves[c].support, v + c * t.total);
      for (int m = 0; m < t.moments; ++m) {
        float* own = v_moment + (c * t.moments + m) * t.total;
        if (call.v_moment) {
          pack(moment_row(call.v_moment, c, m), own);
          clear_other_half(halves[c].support, own);
        } else {
          clear(t.total, own);
        }
      }
      if (call.rates) clear(t.total, d_scale + c * t.total);
    }
    const float* scale = pack_scale(call.schedule.scale);
    const bool valid = call.valid[number];
    if (valid)
      pull(call.batches, call.schedule, scale, call.saved + number * l.saved_each,
           call.rates ? call.d_rate + number * l.steps * 2 : nullptr, call.tasks * l.steps * 2);
    if (call.weight) {
      bool kept = valid;
      for (int c = 0; c < cotangents; ++c)
        for (int p = 0; p < 2; ++p)
          if (halves[c].keep >> p & 1) kept = kept && all_finite(v + c * t.total + t.start[p], t.size[p]);
      block.each(1, [&](int) { call.valid[number] = kept; });
      return;
    }
    const uint8_t all = valid ? kBoth : 0;
    for (int c = 0; c < cotangents; ++c) {
      unpack(v + c * t.total, row(call.v0, c), valid ? halves[c].keep : 0);
      for (int m = 0; call.v_moment0 && m < t.moments; ++m)
        unpack(v_moment + (c * t.moments + m) * t.total, moment_row(call.v_moment0, c, m), all);
      if (call.d_scale) unpack(d_scale + c * t.total, row(call.d_scale, c), all);
    }
  }

  PYMGAN_DEVICE void gradients(const cpu::GradientsCall<float>& call) {
    float *phi = at(l.places.phi), *norms = at(l.places.state), *gradient = at(l.places.v);
    pack(call.phi + number * call.phi_task, phi);
    pack_spectral(l.spectral > 0 ? call.spectral + number * l.spectral : nullptr, norms);
    clear(2 * t.total, gradient);
    Task task;
    set_batch(task, call.batches, 0);
    set(task, Slot::temp, arena);
    set(task, Slot::phi, phi), set(task, Slot::spectral, norms), set(task, Slot::gradient, gradient);
    task.trace = call.trace + number * kTrace;
    execute(l.list, task);
    for (int i = 0; i < (call.full ? 2 : 1); ++i)
      unpack(gradient + i * t.total, call.gradient + (i * call.tasks + number) * l.parameters, kBoth);
  }

  PYMGAN_DEVICE void noise(const NoiseCall& call) {
    const NoiseKey key{call.seed, static_cast<uint64_t>(call.task[number]), static_cast<uint64_t>(call.step),
                       call.stream};
    float* out = call.out + number * call.numbers;
    block.each(call.numbers, [&](int i) { out[i] = normal<float>(key, i); });
  }

  PYMGAN_DEVICE void generate(const cpu::GenerateCall<float>& call) {
    float *phi = at(l.places.phi), *gradient = at(l.places.v);
    const int64_t latent = int64_t{t.z.channels} * t.z.sites, features = int64_t{t.x.channels} * t.x.sites;
    pack(call.phi + number * call.phi_task, phi);
    Task task;
    set(task, Slot::temp, arena);
    set(task, Slot::phi, phi), set(task, Slot::gradient, gradient);
    task.input[0] = call.z + number * call.batch * latent;
    if (call.cotangent)
      task.input[1] = call.cotangent + number * call.batch * features, clear(t.total, gradient);
    else
      task.output = call.out + number * call.batch * features;
    execute(l.list, task);
    if (call.cotangent) unpack(gradient, call.out + number * l.parameters, kBoth);
  }

 private:
  // ---- the inner loop ----

  // From places.phi and places.state; returns the steps done. phi, state: of the last one that was finite.
  PYMGAN_DEVICE_CALL int run(const cpu::Batches<float>& batches, const cpu::InnerSchedule<float>& schedule,
                             const float* scale, float* saved, float* trace, const float*& phi, const float*& state,
                             bool& valid) {
    phi = at(l.places.phi), state = at(l.places.state);
    auto slot = [&](int k) -> float* {
      return saved && l.slot_of_step[k] >= 0 ? saved + l.slot_of_step[k] * l.snapshot : nullptr;
    };
    if (float* first = slot(0)) {
      copy(t.total, phi, first);
      copy(static_cast<int>(l.snapshot) - t.total, state, first + t.total);
    }
    valid = true;
    for (int k = 0; k < l.steps; ++k) {
      float* next = slot(k + 1);
      if (!next) next = at(l.places.carried[k % 2]);
      Task task;
      set_step(task, batches, schedule, scale, k);
      set_before(task, phi, state), set_after(task, next);
      set(task, Slot::residual, saved && l.keep_all ? residual(saved, k) : at(l.places.residual));
      task.trace = trace + k * kTrace;
      execute(step_of(task, batches, k), task);
      // Fused updates have looked.
      valid = task.valid && (l.fused || all_finite(next, static_cast<int>(l.snapshot)));
      if (!valid) return k;
      phi = next, state = next + t.total;
    }
    return l.steps;
  }

  PYMGAN_DEVICE_CALL void pull(const cpu::Batches<float>& batches, const cpu::InnerSchedule<float>& schedule,
                               const float* scale, float* saved, double* d_rate, int64_t d_rate_stride) {
    auto slot = [&](int i) {
      return i < l.kept_slots ? saved + i * l.snapshot : at(l.places.scratch) + (i - l.kept_slots) * l.snapshot;
    };
    for (int i = 0; i < l.action_count; ++i) {
      const Action& action = l.actions[i];
      float* from = slot(action.from);
      Task task;
      set_step(task, batches, schedule, scale, action.k);
      set_before(task, from, from + t.total);
      set(task, Slot::cotangent, at(l.places.v)), set(task, Slot::v_moment, at(l.places.v_moment));
      set(task, Slot::d_scale, at(l.places.d_scale));
      if (action.kind == Action::Kind::step) {
        set_after(task, slot(action.to));
        set(task, Slot::residual, at(l.places.residual));
        execute(step_of(task, batches, action.k), task);
        continue;
      }
      if (l.keep_all) {
        set_after(task, slot(l.slot_of_step[action.k + 1]));
        set(task, Slot::residual, residual(saved, action.k));
      }
      if (d_rate) task.d_rate = d_rate + action.k * 2, task.d_rate_stride = d_rate_stride;
      const int penalised = is_penalised(batches, action.k), extra = task.kind == Optimiser::extragradient;
      execute(l.pull[(action.k * 2 + penalised) * 2 + extra], task);
    }
  }

  PYMGAN_DEVICE_CALL void execute(const Listing& list, Task& task) {
    Interpreter(block, t, task, l.fast).run(l.codes + list.first, list.count);
  }
  PYMGAN_DEVICE const Listing& step_of(const Task& task, const cpu::Batches<float>& batches, int k) const {
    return l.step[is_penalised(batches, k)][task.kind == Optimiser::extragradient];
  }
  PYMGAN_DEVICE bool is_penalised(const cpu::Batches<float>& batches, int k) const {
    return l.penalty_every > 0 && (batches.count[number] + k) % l.penalty_every == 0;
  }

  // ---- what a step sees ----

  PYMGAN_DEVICE void set_batch(Task& task, const cpu::Batches<float>& b, int k) const {
    task.key = {b.seed, static_cast<uint64_t>(b.tasks[number]), static_cast<uint64_t>(b.count[number] + k), 0};
    task.noise = b.noise ? b.noise + number * b.noise_task + k * b.noise_step : nullptr;
    task.real = b.indices ? b.real : b.real + number * b.real_task + k * b.real_step;
    task.rows = b.indices ? b.indices + number * b.index_task + k * b.index_step : nullptr;
  }
  PYMGAN_DEVICE void set_step(Task& task, const cpu::Batches<float>& b, const cpu::InnerSchedule<float>& s,
                              const float* scale, int k) const {
    set_batch(task, b, k);
    const int64_t step = number * l.steps + k, first = step * 2;
    task.kind = static_cast<Optimiser>(l.optimisers[s.kind ? s.kind[step] : 0]);
    for (int p = 0; p < 2; ++p) {
      task.rate[p] = static_cast<float>(s.rate[first + p]);
      if (s.number) task.number[p] = s.number[first + p];
    }
    if (s.active) task.active = (s.active[first] ? kGenerator : 0) | (s.active[first + 1] ? kDiscriminator : 0);
    set(task, Slot::temp, arena);
    set(task, Slot::rate_scale, const_cast<float*>(scale));
  }
  static PYMGAN_DEVICE void set(Task& task, Slot slot, float* start) { task.base[static_cast<int>(slot)] = start; }
  PYMGAN_DEVICE void set_before(Task& task, const float* phi, const float* state) const {
    set(task, Slot::phi, const_cast<float*>(phi));
    set(task, Slot::moment, const_cast<float*>(state));
    set(task, Slot::spectral, const_cast<float*>(state) + t.moments * t.total);
  }
  PYMGAN_DEVICE void set_after(Task& task, float* snapshot) const {
    set(task, Slot::phi_next, snapshot);
    set(task, Slot::moment_next, snapshot + t.total);
    set(task, Slot::spectral_next, snapshot + t.total * (1 + t.moments));
  }
  PYMGAN_DEVICE float* residual(float* saved, int64_t k) const {
    return saved + l.kept_slots * l.snapshot + k * l.residual_elements;
  }
  PYMGAN_DEVICE float* at(int64_t place) const { return place < 0 ? nullptr : room + place; }

  // ---- vectors ----

  // flat [P] -> packed [total]; padding becomes zero.
  PYMGAN_DEVICE_CALL void pack(const float* flat, float* packed) const {
    block.each(t.total, [&](int i) { packed[i] = l.flat[i] < 0 ? 0.f : flat[l.flat[i]]; });
  }
  // And back; halves that are not in `halves` become zero.
  PYMGAN_DEVICE_CALL void unpack(const float* packed, float* flat, uint8_t halves) const {
    block.each(t.total, [&](int i) {
      const bool wanted = halves & (i < t.start[1] ? kGenerator : kDiscriminator);
      if (l.flat[i] >= 0) flat[l.flat[i]] = wanted ? packed[i] : 0.f;
    });
  }
  PYMGAN_DEVICE void pack_spectral(const float* u, float* packed) const {
    if (l.spectral == 0) return;
    clear(t.spectral_size, packed);
    int first = 0;
    for (int layer = 0; layer < t.spectral_count; ++layer) {
      const SpectralRecord& s = t.spectral[layer];
      const int n = t.tensors[s.tensor].n;
      block.each(n, [&](int i) { packed[s.u + i] = u[first + i]; });
      first += n;
    }
  }
  PYMGAN_DEVICE void unpack_spectral(const float* packed, float* u) const {
    int first = 0;
    for (int layer = 0; layer < t.spectral_count; ++layer) {
      const SpectralRecord& s = t.spectral[layer];
      const int n = t.tensors[s.tensor].n;
      block.each(n, [&](int i) { u[first + i] = packed[s.u + i]; });
      first += n;
    }
  }
  PYMGAN_DEVICE const float* pack_scale(const float* scale) const {
    if (!scale) return nullptr;
    pack(scale, at(l.places.scale));
    return at(l.places.scale);
  }
  PYMGAN_DEVICE_CALL void clear(int n, float* x) const {
    block.each(n, [&](int i) { x[i] = 0; });
  }
  PYMGAN_DEVICE_CALL void copy(int n, const float* from, float* to) const {
    if (from != to) block.each(n, [&](int i) { to[i] = from[i]; });
  }
  PYMGAN_DEVICE void clear_other_half(uint8_t support, float* packed) const {
    for (int p = 0; p < 2; ++p)
      if (!(support >> p & 1)) clear(t.size[p], packed + t.start[p]);
  }
  PYMGAN_DEVICE_CALL bool all_finite(const float* x, int n) const {
    return block.sum(n, [&](int i) { return is_finite(x[i]) ? 0.0 : 1.0; }) == 0;
  }

  Block& block;
  const Launch& l;
  const Tables& t;
  const int64_t number;
  float* const room;
  float* const arena;
};

// What a pull-back with weights sums over tasks: v0 [C], then v_moment0 [C][moments], then with rates d_scale [C].
PYMGAN_DEVICE int64_t weighted_vectors(const Launch& l, const PullArguments& call) {
  return int64_t{l.cotangents} * (1 + l.tables.moments + (call.rates ? 1 : 0));
}

// Element i of those vectors, each packed [total], once all tasks are pulled back: added in the order of the tasks.
PYMGAN_DEVICE void weighted_sum(const Launch& l, const PullArguments& call, int64_t i) {
  const int64_t total = l.tables.total, vector = i / total, element = i % total;
  if (l.flat[element] < 0) return;
  const int64_t moments = int64_t{l.cotangents} * l.tables.moments;
  uint8_t halves = kBoth;
  int64_t place = l.places.v, number = vector;
  float* output = call.v0;
  if (vector < l.cotangents) {
    halves = l.halves[vector].keep;
  } else if (vector < l.cotangents + moments) {
    place = l.places.v_moment, number = vector - l.cotangents, output = call.v_moment0;
  } else {
    place = l.places.d_scale, number = vector - l.cotangents - moments, output = call.d_scale;
  }
  if (!output) return;
  float sum = 0;
  const bool wanted = halves & (element < l.tables.start[1] ? kGenerator : kDiscriminator);
  for (int64_t task = 0; wanted && task < call.tasks; ++task)
    if (call.valid[task] && call.weight[task] != 0)
      sum +=
          static_cast<float>(call.weight[task]) * l.workspace[task * l.places.each + place + number * total + element];
  output[number * l.parameters + l.flat[element]] = sum;
}

}  // namespace pymgan::cuda
