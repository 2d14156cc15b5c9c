// The K inner steps of one task and their pull-back, by one block, and the ways to and from packed vectors.
#pragma once

#include "interpreter.h"
#include "records.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

class InnerLoop {
 public:
  // shared: [places.shared]
  PYMGAN_DEVICE InnerLoop(Block& block, const Launch& launch, int64_t task, float* shared)
      : block(block),
        l(launch),
        t(launch.tables),
        number(task),
        room(launch.workspace + task * launch.places.each),
        shared(shared),
        rings(block, shared + launch.places.rings, launch.places.ring_blocks) {}

 protected:
  // ---- the inner loop ----

  // From places.carried[1]; returns the steps done. phi, state: of the last one that was finite.
  PYMGAN_DEVICE_CALL int run(const cpu::Batches<float>& batches, const cpu::InnerSchedule<float>& schedule,
                             const float* scale, float* saved, float* trace, const float*& phi, const float*& state,
                             bool& valid) {
    phi = at(l.places.carried[1]), state = phi + t.total;
    auto keep = [&](int k, const float* snapshot) {
      if (saved && l.slot_of_step[k] >= 0)
        copy(static_cast<int>(l.snapshot), snapshot, saved + l.slot_of_step[k] * l.snapshot);
    };
    keep(0, phi);
    valid = true;
    for (int k = 0; k < l.steps; ++k) {
      float* next = at(l.places.carried[k % 2]);
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
      keep(k + 1, next);
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
      if (float* before = at(l.places.before)) {
        block.fetch(static_cast<int>(l.snapshot), from, before);
        from = before;
      }
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
    Interpreter(block, t, task, rings, l.precision).run(l.codes + list.first, list.count);
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
    set(task, Slot::temp, at(l.places.arena));
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
  PYMGAN_DEVICE float* at(const Place& place) const {
    return place.at < 0 ? nullptr : (place.shared ? shared : room) + place.at;
  }

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
  float* const shared;
  Rings rings;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
