// adapt, the objective at phi_K and the pull-back of one task, by one block. The objective is cpu::Objective: each
// player descends the energy distance plus its own loss on the query set.
#pragma once

#include <cmath>

#include "distances.h"
#include "inner_loop.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class MetaGradient : public InnerLoop {
 public:
  PYMGAN_DEVICE MetaGradient(Block& block, const Launch& launch, int64_t task, float* shared,
                             const cpu::MetaCall<float>& call)
      : InnerLoop(block, launch, task, shared), call(call), size(launch.cotangents * launch.tables.total) {}

  // v_0 stays in the workspace; mean_descent() adds it up.
  PYMGAN_DEVICE void run() {
    float *phi0 = at(l.places.carried[1]), *state0 = phi0 + t.total;
    pack(call.phi0 + number * call.phi0_task, phi0);
    clear(t.moments * t.total, state0);
    pack_spectral(call.spectral0 ? call.spectral0 + number * l.spectral : nullptr, state0 + t.moments * t.total);
    const float* scale = pack_scale(call.schedule.scale);
    float* saved = at(l.places.saved);
    const float *phi, *state;
    bool valid;
    InnerLoop::run(call.batches, call.schedule, scale, saved, call.trace + number * l.steps * kTrace, phi, state,
                   valid);
    double value = NAN;
    if (valid) value = evaluate(phi, state + t.moments * t.total);
    valid = valid && is_finite(value);
    float* v_out = at(l.places.v_out);
    if (valid && call.second_order) {
      float* v = at(l.places.v);
      copy(size, v_out, v);
      clear(t.moments * size, at(l.places.v_moment));
      if (call.rates) clear(size, at(l.places.d_scale));
      pull(call.batches, call.schedule, scale, saved, call.rates ? call.d_rate + number * l.steps * 2 : nullptr,
           call.tasks * l.steps * 2);
      copy(size, v, v_out);
    }
    for (int c = 0; c < l.cotangents; ++c)
      for (int p = 0; p < 2; ++p)
        if (l.halves[c].keep >> p & 1) valid = valid && all_finite(v_out + c * t.total + t.start[p], t.size[p]);
    block.each(1, [&](int) { call.value[number] = value, call.valid[number] = valid; });
  }

 private:
  // The objective, and in v_out [C][total] its cotangents.
  PYMGAN_DEVICE_CALL double evaluate(const float* phi, const float* norms) {
    const int64_t features = int64_t{t.x.channels} * t.x.sites;
    Task task;
    set(task, Slot::temp, at(l.places.arena));
    set(task, Slot::phi, const_cast<float*>(phi)), set(task, Slot::spectral, const_cast<float*>(norms));
    task.key = {call.batches.seed, static_cast<uint64_t>(call.batches.tasks[number]), 0, 0};
    task.trace = at(l.places.losses);
    const float* query = call.objective.query + number * call.objective.queries * features;
    const float* z = noise();
    double value = 0;
    if (l.parts > 0) value = losses(task, query, z);
    if (call.objective.samples > 0) value = energy(task, query, z);
    return value;
  }

  // [noise_rows][latent]
  PYMGAN_DEVICE const float* noise() {
    const int numbers = l.noise_rows * latent();
    if (call.objective.noise) return call.objective.noise + number * numbers;
    const NoiseKey key{call.batches.seed, static_cast<uint64_t>(call.batches.tasks[number]),
                       static_cast<uint64_t>(call.batches.count[number] + l.steps), call.objective.stream};
    float* z = at(l.places.z);
    block.each(numbers, [&](int i) { z[i] = normal<float>(key, i); });
    return z;
  }

  PYMGAN_DEVICE double losses(Task& task, const float* query, const float* z) {
    float *v = at(l.places.v_out), *part = at(l.places.part);
    const double* weights = call.objective.losses;
    double value = 0;
    for (int i = 0; i < l.parts; ++i) {
      float* gradient = i == 0 ? v : part;
      clear(size, gradient);
      set(task, Slot::gradient, gradient);
      task.real = query + i * l.reals * (int64_t{t.x.channels} * t.x.sites);
      task.noise = z + i * l.fakes * latent();
      execute(l.gradients, task);
      if (!task.valid) return NAN;
      for (int p = 0; p < 2; ++p)
        if (weights[p] != 0) value += weights[p] / l.parts * task.trace[p];
      if (i > 0) add(size, part, v);
    }
    for (int c = 0; c < l.cotangents; ++c)
      for (int p = 0; p < 2; ++p)
        scale(weights[l.cotangents == 2 ? c : p] / l.parts, t.size[p], v + c * t.total + t.start[p]);
    return value;
  }

  PYMGAN_DEVICE double energy(Task& task, const float* query, const float* z) {
    float *v = at(l.places.v_out), *part = at(l.places.part), *fakes = at(l.places.fakes);
    float* d_fakes = at(l.places.d_fakes);
    task.input[0] = z, task.output = fakes;
    execute(l.generate, task);
    const int features = t.x.channels * t.x.sites;
    const double value = energy_distance(block, fakes, call.objective.samples, query, call.objective.queries, features,
                                         cpu::kDistanceEpsilon, d_fakes);
    task.input[1] = d_fakes;
    float* gradient = l.parts > 0 ? part : v;
    clear(t.total, gradient);
    set(task, Slot::gradient, gradient);
    execute(l.generate_vjp, task);
    for (int c = 0; l.parts > 0 && c < l.cotangents; ++c)
      add(t.size[0], part + t.start[0], v + c * t.total + t.start[0]);
    return value;
  }

  PYMGAN_DEVICE void add(int n, const float* values, float* sums) const {
    block.each(n, [&](int i) { sums[i] += values[i]; });
  }
  PYMGAN_DEVICE void scale(double by, int n, float* values) const {
    // Zero whatever they are.
    if (by != 1) block.each(n, [&](int i) { values[i] = by == 0 ? 0.f : values[i] * static_cast<float>(by); });
  }
  PYMGAN_DEVICE int latent() const { return t.z.channels * t.z.sites; }

  const cpu::MetaCall<float>& call;
  const int size;  // of all cotangents
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
