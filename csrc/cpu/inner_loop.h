// The K inner steps of one task on one thread, and their pull-back: what `adapt`, `pullback` and `meta_gradient` share.
#pragma once

#include <algorithm>
#include <vector>

#include "carver.h"
#include "engine.h"
#include "finite.h"
#include "interpreter.h"

namespace pymgan::cpu {

// A snapshot of one step: phi, then the moments, then (u, v) of D's spectral norms.
inline int64_t snapshot(const Program& p) { return p.layout().total * (1 + p.moments()) + p.layout().spectral_size; }
// What of it follows phi.
inline int64_t state_size(const Program& p) { return snapshot(p) - p.layout().total; }

inline uint8_t bit(Player p) { return p == Player::generator ? kGenerator : kDiscriminator; }

template <class T>
void set_batch(Frame<T>& frame, const Batches<T>& b, int64_t task, int64_t k) {
  frame.key = {b.seed, static_cast<uint64_t>(b.tasks[task]), static_cast<uint64_t>(b.count[task] + k), 0};
  frame.noise = b.noise ? b.noise + task * b.noise_task + k * b.noise_step : nullptr;
  if (b.indices) {
    frame.real = b.real;
    frame.rows = b.indices + task * b.index_task + k * b.index_step;
  } else {
    frame.real = b.real + task * b.real_task + k * b.real_step;
    frame.rows = nullptr;
  }
}

// Whether the wanted halves of v [C][total] are finite.
template <class T>
bool halves_finite(const Kernels<T>& kernels, const Layout& layout, const std::vector<Halves>& halves, const T* v) {
  for (size_t c = 0; c < halves.size(); ++c)
    for (Player p : kPlayers)
      if (halves[c].keep & bit(p) &&
          !finite(kernels, v + c * layout.total + layout.start[index(p)], layout.size[index(p)]))
        return false;
  return true;
}

// What the steps of one task work in.
template <class T>
struct StepBuffers {
  T* carried[2];  // [snapshot], in turn, so that the last finite one survives
  T* state0;      // [state_size], before the first step
  T* residual;    // [residual_elements], of a step that keeps nothing
  T* arena;

  StepBuffers(Carver<T>& carver, const Program& p, int64_t arena_elements)
      : carried{carver.take(snapshot(p)), carver.take(snapshot(p))},
        state0(carver.take(state_size(p))),
        residual(carver.take(p.residual_elements())),
        arena(carver.take(arena_elements)) {}
};

// The procedures of a pull-back through all steps, made before threads share them.
class Pulls {
 public:
  // The last step knows which halves of v can be nonzero, the first which are wanted.
  Pulls(Program& program, const std::vector<Halves>& halves, bool rates, bool scaled, int steps)
      : arena_(program.step_arena()) {
    for (int k = 0; k < steps; ++k) {
      std::vector<Halves> at(halves.size());
      for (size_t c = 0; c < halves.size(); ++c) {
        if (k == steps - 1) at[c].support = halves[c].support;
        if (k == 0) at[c].keep = halves[c].keep;
      }
      for (const StepForm& form : program.forms()) {
        const Procedure& pull = program.pull(at, rates, scaled, form);
        at_[form.penalised][form.extra].push_back(&pull);
        arena_ = std::max(arena_, pull.arena);
      }
    }
  }
  const Procedure& at(int k, StepForm form) const { return *at_[form.penalised][form.extra][k]; }
  int64_t arena() const { return arena_; }  // of the steps that are repeated too

 private:
  std::vector<const Procedure*> at_[2][2];  // penalised, extra
  int64_t arena_;
};

// v and its like for C cotangents, side by side, and what a pull-back works in.
template <class T>
struct PullBuffers {
  T* v;         // [C][total]
  T* v_moment;  // [C][moments][total]
  T* d_scale;   // [C][total], with rates
  T* scratch;   // [scratch_slots][snapshot]
  T* arena;

  PullBuffers(Carver<T>& carver, const Program& p, const StorageSchedule& storage, int64_t cotangents, bool rates,
              int64_t arena_elements)
      : v(carver.take(cotangents * p.layout().total)),
        v_moment(carver.take(cotangents * p.moments() * p.layout().total)),
        d_scale(carver.take(rates ? cotangents * p.layout().total : 0)),
        scratch(carver.take(storage.scratch_slots * snapshot(p))),
        arena(carver.take(arena_elements)) {}
};

template <class T>
struct InnerLoop {
  const Kernels<T>& kernels;
  const Program& program;
  const StorageSchedule& storage;
  const Batches<T>& batches;
  const InnerSchedule<T>& schedule;
  int steps;
  const T* rate_scale;  // [total], packed; null: 1

  struct Ending {
    const T* phi;    // [total], of the last step that was finite
    const T* state;  // [state_size], likewise
    int done;
    bool valid;
  };

  // From phi0 [total] and at.state0. trace [K][kTrace]. saved: null, or as saved_elements says; phi0 is then its
  // snapshot 0 or is copied there.
  Ending run(int64_t task, const T* phi0, const StepBuffers<T>& at, T* saved, T* trace) const {
    const int64_t total = program.layout().total;
    Frame<T> frame;
    frame.arena = at.arena;
    frame.rate_scale = rate_scale;
    auto slot = [&](int k) -> T* {
      return saved && storage.slot_of_step[k] >= 0 ? saved + storage.slot_of_step[k] * snapshot(program) : nullptr;
    };
    if (T* first = slot(0)) {
      if (first != phi0) std::copy_n(phi0, total, first);
      std::copy_n(at.state0, state_size(program), first + total);
    }
    const T *phi = phi0, *state = at.state0;
    int k = 0;
    for (; k < steps; ++k) {
      T* next = slot(k + 1);
      if (!next) next = at.carried[k % 2];
      set_before(frame, phi, state);
      set_after(frame, next);
      frame.residual = saved && program.game().keep_all ? residual(saved, k) : at.residual;
      frame.trace = trace + k * kTrace;
      set_batch(frame, batches, task, k);
      set_updates(frame, task, k);
      execute(kernels, program, program.step(form(frame, task, k)), frame);
      // Fused updates have looked.
      frame.valid = frame.valid && (program.fused() || finite(kernels, next, snapshot(program)));
      if (!frame.valid) break;
      phi = next, state = next + total;
    }
    return {phi, state, k, frame.valid};
  }

  // at.v of phi_K becomes that of phi_0, and so does at.v_moment; at.d_scale is added to.
  // d_rate [C] strided [K,2], with rates.
  void pull(int64_t task, const Pulls& pulls, T* saved, const PullBuffers<T>& at, double* d_rate,
            int64_t d_rate_stride) const {
    const int64_t total = program.layout().total;
    Frame<T> frame;
    frame.cotangent = at.v;
    frame.v_moment = at.v_moment;
    frame.d_scale = at.d_scale;
    frame.arena = at.arena;
    frame.rate_scale = rate_scale;
    auto slot = [&](int i) {
      return i < storage.kept_slots ? saved + i * snapshot(program)
                                    : at.scratch + (i - storage.kept_slots) * snapshot(program);
    };
    for (const Action& action : storage.pullback) {
      T* from = slot(action.from);
      set_batch(frame, batches, task, action.k);
      set_updates(frame, task, action.k);
      set_before(frame, from, from + total);
      if (action.kind == Action::Kind::step) {
        set_after(frame, slot(action.to));
        execute(kernels, program, program.step(form(frame, task, action.k)), frame);
        continue;
      }
      frame.ahead = {};
      if (program.game().keep_all) {
        set_after(frame, slot(storage.slot_of_step[action.k + 1]));
        frame.residual = residual(saved, action.k);
        if (action.k > 0) frame.ahead = {residual(saved, action.k - 1), program.residual_elements()};
      }
      if (d_rate) {
        frame.d_rate = d_rate + action.k * 2;
        frame.d_rate_stride = d_rate_stride;
      }
      execute(kernels, program, pulls.at(action.k, form(frame, task, action.k)), frame);
    }
  }

 private:
  void set_before(Frame<T>& frame, const T* phi, const T* state) const {
    frame.phi = phi;
    frame.moment = state;
    frame.spectral = state + program.moments() * program.layout().total;
  }
  void set_after(Frame<T>& frame, T* snapshot) const {
    frame.phi_next = snapshot;
    frame.moment_next = snapshot + program.layout().total;
    frame.spectral_next = frame.moment_next + program.moments() * program.layout().total;
  }
  StepForm form(const Frame<T>& frame, int64_t task, int64_t k) const {
    return {program.game().penalty.in_step(batches.count[task] + k), frame.kind == Optimiser::extragradient};
  }
  T* residual(T* saved, int64_t k) const {
    return saved + storage.kept_slots * snapshot(program) + k * program.residual_elements();
  }
  void set_updates(Frame<T>& frame, int64_t task, int64_t k) const {
    const int64_t step = task * steps + k, at = step * 2;
    frame.kind = program.game().optimisers[schedule.kind ? schedule.kind[step] : 0];
    for (int p = 0; p < 2; ++p) {
      frame.rate[p] = schedule.rate[at + p];
      if (schedule.number) frame.number[p] = schedule.number[at + p];
    }
    frame.active = kBoth;
    if (schedule.active)
      frame.active = (schedule.active[at] ? kGenerator : 0) | (schedule.active[at + 1] ? kDiscriminator : 0);
  }
};

}  // namespace pymgan::cpu
