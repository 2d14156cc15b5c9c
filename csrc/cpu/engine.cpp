#include "engine.h"

#include <algorithm>
#include <utility>

#include "finite.h"
#include "interpreter.h"
#include "packing.h"
#include "task_sum.h"
#include "threads.h"

namespace pymgan::cpu {
namespace {

// A snapshot of one step: phi, then the moment if there is one.
int64_t snapshot(const Program& p) { return p.layout().total * (p.has_moment() ? 2 : 1); }

// Hands out consecutive parts of the caller's workspace.
template <class T>
class Carver {
 public:
  explicit Carver(T* at) : at_(at) {}
  T* take(int64_t elements) { return elements == 0 ? nullptr : std::exchange(at_, at_ + elements); }
  T* rest() const { return at_; }

 private:
  T* at_;
};

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

template <class T>
void set_step(Frame<T>& frame, const InnerSchedule<T>& s, int steps, int64_t task, int64_t k) {
  const int64_t at = (task * steps + k) * 2;
  frame.rate[0] = s.rate[at];
  frame.rate[1] = s.rate[at + 1];
  frame.active = kBoth;
  if (s.active) frame.active = (s.active[at] ? kGenerator : 0) | (s.active[at + 1] ? kDiscriminator : 0);
}

uint8_t bit(Player p) { return p == Player::generator ? kGenerator : kDiscriminator; }

template <class T>
void clear_other_half(const Layout& layout, uint8_t support, T* packed) {
  for (Player p : kPlayers)
    if (!(support & bit(p))) std::fill_n(packed + layout.start[index(p)], layout.size[index(p)], T{0});
}

// The procedures of each step: the first that is pulled knows which halves are zero, the last which are wanted.
std::vector<Halves> halves_at(const std::vector<Halves>& halves, int k, int steps) {
  std::vector<Halves> at(halves.size());
  for (size_t c = 0; c < halves.size(); ++c) {
    if (k == steps - 1) at[c].support = halves[c].support;
    if (k == 0) at[c].keep = halves[c].keep;
  }
  return at;
}

}  // namespace

int64_t saved_elements(const Program& p, const StorageSchedule& storage, int steps) {
  return storage.kept_slots * snapshot(p) + (p.game().keep_all ? steps * p.residual_elements() : 0);
}

int64_t adapt_workspace(const Program& p, int64_t threads) {
  // packed phi0 and rate_scale for all; per thread phi0, phi twice, the moment, a residual block and the arena
  return 2 * p.layout().total + threads * (2 * p.layout().total + snapshot(p) + p.residual_elements() + p.step().arena);
}

int64_t pull_workspace(Program& p, const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates,
                       bool scaled, int steps, int64_t threads) {
  int64_t arena = p.step().arena;
  for (int k : {0, steps / 2, steps - 1})
    arena = std::max(arena, p.pull(halves_at(halves, k, steps), rates, scaled).arena);
  const int64_t vectors = static_cast<int64_t>(halves.size()) * (1 + (p.has_moment() ? 1 : 0) + (rates ? 1 : 0));
  // packed rate_scale and sums for all; per thread v and its like, scratch snapshots and the arena
  return (1 + vectors) * p.layout().total +
         threads * (vectors * p.layout().total + storage.scratch_slots * snapshot(p) + arena);
}

int64_t gradients_workspace(Program& p, bool full, int64_t threads) {
  return threads * (3 * p.layout().total + p.gradients(full).arena);
}

int64_t generate_workspace(Program& p, int batch, bool vjp, int64_t threads) {
  return threads * (2 * p.layout().total + (vjp ? p.generate_vjp(batch) : p.generate(batch)).arena);
}

template <class T>
void adapt(const Kernels<T>& kernels, const Program& program, const StorageSchedule& storage,
           const AdaptCall<T>& call) {
  const Layout& layout = program.layout();
  const int64_t total = layout.total, parameters = program.plan().parameters;
  const bool moment = program.has_moment();
  const int64_t per_task = saved_elements(program, storage, call.steps);
  Carver<T> shared(call.workspace);
  T* shared_phi = shared.take(total);
  T* scale = shared.take(total);
  if (call.phi0_task == 0) pack(kernels, layout, call.phi0, shared_phi);
  if (call.schedule.scale) pack(kernels, layout, call.schedule.scale, scale);
  T* per_thread = shared.rest();
  const int64_t stride = 2 * total + snapshot(program) + program.residual_elements() + program.step().arena;

  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    Carver<T> carver(per_thread + thread * stride);
    T* phi0 = carver.take(total);
    T* carried[] = {carver.take(total), carver.take(total)};  // in turn, so that the last finite phi survives
    Frame<T> frame;
    frame.moment = moment ? carver.take(total) : nullptr;
    T* residual = carver.take(program.residual_elements());
    frame.arena = carver.take(program.step().arena);
    frame.rate_scale = call.schedule.scale ? scale : nullptr;
    T* saved = call.saved ? call.saved + t * per_task : nullptr;
    auto slot = [&](int k) -> T* {
      return saved && storage.slot_of_step[k] >= 0 ? saved + storage.slot_of_step[k] * snapshot(program) : nullptr;
    };

    if (call.phi0_task != 0) pack(kernels, layout, call.phi0 + t * call.phi0_task, phi0);
    const T* phi = call.phi0_task == 0 ? shared_phi : phi0;
    if (moment) {
      if (call.moment0)
        pack(kernels, layout, call.moment0 + t * parameters, frame.moment);
      else
        std::fill_n(frame.moment, total, T{0});
    }
    if (T* first = slot(0)) std::copy_n(phi, total, first);
    int k = 0;
    for (; k < call.steps; ++k) {
      if (T* at = slot(k); at && moment) std::copy_n(frame.moment, total, at + total);
      T* next = slot(k + 1);
      frame.phi = phi;
      frame.phi_next = next ? next : carried[k % 2];
      frame.residual = saved && program.game().keep_all
                           ? saved + storage.kept_slots * snapshot(program) + k * program.residual_elements()
                           : residual;
      frame.trace = call.trace + (t * call.steps + k) * kTrace;
      set_batch(frame, call.batches, t, k);
      set_step(frame, call.schedule, call.steps, t, k);
      execute(kernels, program, program.step(), frame);
      frame.valid = frame.valid && (!moment || finite(kernels, frame.phi_next, total));  // else its updates have looked
      if (!frame.valid) break;
      phi = frame.phi_next;
    }
    call.valid[t] = frame.valid;
    call.done[t] = k;
    unpack(kernels, layout, phi, call.phi + t * parameters);
    if (moment) unpack(kernels, layout, frame.moment, call.moment + t * parameters);
  });
}

template <class T>
void pullback(const Kernels<T>& kernels, Program& program, const StorageSchedule& storage, const PullCall<T>& call) {
  const Layout& layout = program.layout();
  const int64_t total = layout.total, parameters = program.plan().parameters;
  const bool moment = program.has_moment();
  const int cotangents = static_cast<int>(call.halves.size());
  const int64_t per_task = saved_elements(program, storage, call.steps);

  // Procedures are made here, before threads share them.
  std::vector<const Procedure*> pulls(call.steps);
  int64_t arena = program.step().arena;
  for (int k = 0; k < call.steps; ++k) {
    pulls[k] = &program.pull(halves_at(call.halves, k, call.steps), call.rates, call.schedule.scale != nullptr);
    arena = std::max(arena, pulls[k]->arena);
  }
  const int64_t vectors = int64_t{cotangents} * (1 + (moment ? 1 : 0) + (call.rates ? 1 : 0));
  const int64_t stride = vectors * total + storage.scratch_slots * snapshot(program) + arena;
  if (call.schedule.scale) pack(kernels, layout, call.schedule.scale, call.workspace);

  // What a task leaves, v and then perhaps v_moment and d_scale, lies side by side, and so do the sums.
  T* sums = call.workspace + total;
  std::vector<uint8_t> kept(vectors, kBoth);
  for (int c = 0; c < cotangents; ++c) kept[c] = call.halves[c].keep;
  TaskSum<T> task_sum(layout, kept);
  if (call.weight) std::fill_n(sums, vectors * total, T{0});

  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    Carver<T> carver(sums + vectors * total + thread * stride);
    Frame<T> frame;
    frame.cotangent = carver.take(cotangents * total);
    frame.v_moment = moment ? carver.take(cotangents * total) : nullptr;
    frame.d_scale = call.rates ? carver.take(cotangents * total) : nullptr;
    T* scratch = carver.take(storage.scratch_slots * snapshot(program));
    frame.arena = carver.take(arena);
    frame.rate_scale = call.schedule.scale ? call.workspace : nullptr;
    T* saved = call.saved + t * per_task;
    auto slot = [&](int i) {
      return i < storage.kept_slots ? saved + i * snapshot(program)
                                    : scratch + (i - storage.kept_slots) * snapshot(program);
    };
    auto row = [&](auto* base, int c) { return base + (c * call.tasks + t) * parameters; };

    if (frame.d_scale) std::fill_n(frame.d_scale, cotangents * total, T{0});
    for (int c = 0; c < cotangents; ++c) {
      T* v = frame.cotangent + c * total;
      pack(kernels, layout, row(call.v, c), v);
      clear_other_half(layout, call.halves[c].support, v);
      if (!moment) continue;
      T* v_moment = frame.v_moment + c * total;
      if (call.v_moment) {
        pack(kernels, layout, row(call.v_moment, c), v_moment);
        clear_other_half(layout, call.halves[c].support, v_moment);
      } else {
        std::fill_n(v_moment, total, T{0});
      }
    }
    for (const Action& action : storage.pullback) {
      if (!call.valid[t]) break;
      T* from = slot(action.from);
      set_batch(frame, call.batches, t, action.k);
      set_step(frame, call.schedule, call.steps, t, action.k);
      frame.phi = from;
      if (action.kind == Action::Kind::step) {
        T* to = slot(action.to);
        if (moment && to != from) std::copy_n(from + total, total, to + total);
        frame.phi_next = to;
        frame.moment = to + total;
        execute(kernels, program, program.step(), frame);
        continue;
      }
      frame.moment = from + total;
      if (program.game().keep_all) {
        frame.phi_next = slot(storage.slot_of_step[action.k + 1]);
        frame.residual = saved + storage.kept_slots * snapshot(program) + action.k * program.residual_elements();
      }
      frame.ahead[0] = frame.ahead[1] = {};
      if (action.k > 0 && program.game().keep_all) {
        frame.ahead[0] = {frame.residual - program.residual_elements(), program.residual_elements()};
      }
      if (call.rates) {
        frame.d_rate = call.d_rate + (t * call.steps + action.k) * 2;
        frame.d_rate_stride = call.tasks * call.steps * 2;
      }
      execute(kernels, program, *pulls[action.k], frame);
    }
    if (call.weight) {
      for (int c = 0; c < cotangents && call.valid[t]; ++c)
        for (Player p : kPlayers)
          if (call.halves[c].keep & bit(p))
            call.valid[t] &=
                finite(kernels, frame.cotangent + c * total + layout.start[index(p)], layout.size[index(p)]);
      task_sum.add(t, call.valid[t] ? call.weight[t] : 0, frame.cotangent, sums);
      return;
    }
    for (int c = 0; c < cotangents; ++c) {
      const uint8_t keep = call.valid[t] ? call.halves[c].keep : 0;
      unpack(kernels, layout, frame.cotangent + c * total, row(call.v0, c), keep);
      const uint8_t all = call.valid[t] ? kBoth : 0;
      if (call.v_moment0) unpack(kernels, layout, frame.v_moment + c * total, row(call.v_moment0, c), all);
      if (call.d_scale) unpack(kernels, layout, frame.d_scale + c * total, row(call.d_scale, c), all);
    }
  });
  if (!call.weight) return;
  T* outputs[] = {call.v0, moment ? call.v_moment0 : nullptr, call.rates ? call.d_scale : nullptr};
  const bool present[] = {true, moment, call.rates};
  for (int kind = 0; kind < 3; ++kind) {
    if (!present[kind]) continue;
    for (int c = 0; c < cotangents; ++c, sums += total)
      if (outputs[kind])
        unpack(kernels, layout, sums, outputs[kind] + c * parameters, kind == 0 ? call.halves[c].keep : kBoth);
  }
}

template <class T>
void gradients(const Kernels<T>& kernels, Program& program, const GradientsCall<T>& call) {
  const Layout& layout = program.layout();
  const Procedure& procedure = program.gradients(call.full);
  const int64_t total = layout.total, parameters = program.plan().parameters;
  const int64_t stride = 3 * total + procedure.arena;
  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    Carver<T> carver(call.workspace + thread * stride);
    T* phi = carver.take(total);
    Frame<T> frame;
    frame.gradient = carver.take(2 * total);
    frame.arena = carver.take(procedure.arena);
    frame.phi = phi;
    frame.trace = call.trace + t * kTrace;
    set_batch(frame, call.batches, t, 0);
    pack(kernels, layout, call.phi + t * call.phi_task, phi);
    std::fill_n(frame.gradient, 2 * total, T{0});
    execute(kernels, program, procedure, frame);
    for (int i = 0; i < (call.full ? 2 : 1); ++i)
      unpack(kernels, layout, frame.gradient + i * total, call.gradient + (i * call.tasks + t) * parameters);
  });
}

template <class T>
void generate(const Kernels<T>& kernels, Program& program, const GenerateCall<T>& call) {
  const Layout& layout = program.layout();
  const bool vjp = call.cotangent != nullptr;
  const Procedure& procedure = vjp ? program.generate_vjp(call.batch) : program.generate(call.batch);
  const int64_t total = layout.total, parameters = program.plan().parameters;
  const int64_t latent = layout.stages[0].front().in, features = layout.stages[0].back().out;
  const int64_t stride = 2 * total + procedure.arena;
  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    Carver<T> carver(call.workspace + thread * stride);
    T* phi = carver.take(total);
    Frame<T> frame;
    frame.gradient = carver.take(total);
    frame.arena = carver.take(procedure.arena);
    frame.phi = phi;
    frame.input[0] = call.z + t * call.batch * latent;
    if (vjp) frame.input[1] = call.cotangent + t * call.batch * features;
    if (!vjp) frame.output = call.out + t * call.batch * features;
    pack(kernels, layout, call.phi + t * call.phi_task, phi);
    if (vjp) std::fill_n(frame.gradient, total, T{0});
    execute(kernels, program, procedure, frame);
    if (vjp) unpack(kernels, layout, frame.gradient, call.out + t * parameters);
  });
}

#define PYMGAN_INSTANTIATE(T)                                                                          \
  template void adapt(const Kernels<T>&, const Program&, const StorageSchedule&, const AdaptCall<T>&); \
  template void pullback(const Kernels<T>&, Program&, const StorageSchedule&, const PullCall<T>&);     \
  template void gradients(const Kernels<T>&, Program&, const GradientsCall<T>&);                       \
  template void generate(const Kernels<T>&, Program&, const GenerateCall<T>&);
PYMGAN_INSTANTIATE(float)
PYMGAN_INSTANTIATE(double)

}  // namespace pymgan::cpu
