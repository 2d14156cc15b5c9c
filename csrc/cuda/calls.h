// The contract's calls for one task and one block.
#pragma once

#include "distances.h"
#include "inner_loop.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class TaskCall : public InnerLoop {
 public:
  using InnerLoop::InnerLoop;

  PYMGAN_DEVICE void adapt(const cpu::AdaptCall<float>& call) {
    float *phi0 = at(l.places.carried[1]), *state0 = phi0 + t.total;
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
      copy(cotangents * t.total, v, at(l.places.v_out));
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
    float *phi = at(l.places.phi), *norms = at(l.places.spectral), *gradient = at(l.places.gradient);
    pack(call.phi + number * call.phi_task, phi);
    pack_spectral(l.spectral > 0 ? call.spectral + number * l.spectral : nullptr, norms);
    clear(2 * t.total, gradient);
    Task task;
    set_batch(task, call.batches, 0);
    set(task, Slot::temp, at(l.places.arena));
    set(task, Slot::phi, phi), set(task, Slot::spectral, norms), set(task, Slot::gradient, gradient);
    task.trace = call.trace + number * kTrace;
    execute(l.gradients, task);
    for (int i = 0; i < (call.full ? 2 : 1); ++i)
      unpack(gradient + i * t.total, call.gradient + (i * call.tasks + number) * l.parameters, kBoth);
  }

  PYMGAN_DEVICE void noise(const NoiseCall& call) {
    const NoiseKey key{call.seed, static_cast<uint64_t>(call.task[number]), static_cast<uint64_t>(call.step),
                       call.stream};
    float* out = call.out + number * call.numbers;
    block.each(call.numbers, [&](int i) { out[i] = normal<float>(key, i); });
  }

  PYMGAN_DEVICE void distance(const cpu::DistanceCall<float>& call) {
    const int64_t a_size = int64_t{call.a_count} * call.features, b_size = int64_t{call.b_count} * call.features;
    const double value = energy_distance(block, call.a + number * a_size, call.a_count, call.b + number * b_size,
                                         call.b_count, call.features, call.epsilon, call.cotangent + number * a_size);
    block.each(1, [&](int) { call.value[number] = value; });
  }

  PYMGAN_DEVICE void generate(const cpu::GenerateCall<float>& call) {
    float *phi = at(l.places.phi), *gradient = at(l.places.gradient);
    const int64_t latent = int64_t{t.z.channels} * t.z.sites, features = int64_t{t.x.channels} * t.x.sites;
    pack(call.phi + number * call.phi_task, phi);
    Task task;
    set(task, Slot::temp, at(l.places.arena));
    set(task, Slot::phi, phi), set(task, Slot::gradient, gradient);
    task.input[0] = call.z + number * call.batch * latent;
    if (call.cotangent)
      task.input[1] = call.cotangent + number * call.batch * features, clear(t.total, gradient);
    else
      task.output = call.out + number * call.batch * features;
    execute(call.cotangent ? l.generate_vjp : l.generate, task);
    if (call.cotangent) unpack(gradient, call.out + number * l.parameters, kBoth);
  }
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
