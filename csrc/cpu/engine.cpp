#include "engine.h"

#include <algorithm>

#include "inner_loop.h"
#include "packing.h"
#include "task_sum.h"
#include "threads.h"

namespace pymgan::cpu {
namespace {

template <class T>
void clear_other_half(const Layout& layout, uint8_t support, T* packed) {
  for (Player p : kPlayers)
    if (!(support & bit(p))) std::fill_n(packed + layout.start[index(p)], layout.size[index(p)], T{0});
}

// One thread's part of the workspace of each call; what all threads share precedes it.
template <class T>
struct AdaptBuffers {
  T* phi0;  // [total]
  StepBuffers<T> step;

  AdaptBuffers(Carver<T>& carver, const Program& p)
      : phi0(carver.take(p.layout().total)), step(carver, p, p.step_arena()) {}
};

int64_t vectors_of(const Program& p, int64_t cotangents, bool rates) {
  return cotangents * (1 + p.moments() + (rates ? 1 : 0));
}

}  // namespace

int64_t saved_elements(const Program& p, const StorageSchedule& storage, int steps) {
  return storage.kept_slots * snapshot(p) + (p.game().keep_all ? steps * p.residual_elements() : 0);
}

int64_t adapt_workspace(const Program& p, int64_t threads) {
  // packed phi0 and rate_scale for all
  return 2 * p.layout().total + threads * elements_of<AdaptBuffers<float>, float>(p);
}

int64_t pull_workspace(Program& p, const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates,
                       bool scaled, int steps, int64_t threads) {
  const int64_t cotangents = static_cast<int64_t>(halves.size());
  const Pulls pulls(p, halves, rates, scaled, steps);
  // packed rate_scale and sums for all
  return (1 + vectors_of(p, cotangents, rates)) * p.layout().total +
         threads * elements_of<PullBuffers<float>, float>(p, storage, cotangents, rates, pulls.arena());
}

int64_t gradients_workspace(Program& p, bool full, int64_t threads) {
  return threads * (3 * p.layout().total + p.layout().spectral_size + p.gradients(full).arena);
}

int64_t generate_workspace(Program& p, int batch, bool vjp, int64_t threads) {
  return threads * (2 * p.layout().total + (vjp ? p.generate_vjp(batch) : p.generate(batch)).arena);
}

template <class T>
void adapt(const Kernels<T>& kernels, const Program& program, const StorageSchedule& storage,
           const AdaptCall<T>& call) {
  const Layout& layout = program.layout();
  const int64_t total = layout.total, parameters = program.plan().parameters, moments = program.moments();
  const int64_t spectral = program.plan().spectral();
  const int64_t per_task = saved_elements(program, storage, call.steps);
  Carver<T> carver(call.workspace);
  T* shared_phi = carver.take(total);
  T* scale = carver.take(total);
  if (call.phi0_task == 0) pack(kernels, layout, call.phi0, shared_phi);
  if (call.schedule.scale) pack(kernels, layout, call.schedule.scale, scale);
  std::vector<AdaptBuffers<T>> of_thread;
  for (int i = 0; i < call.threads; ++i) of_thread.emplace_back(carver, program);
  const InnerLoop<T> loop{
      kernels, program, storage, call.batches, call.schedule, call.steps, call.schedule.scale ? scale : nullptr};

  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    const AdaptBuffers<T>& at = of_thread[thread];
    if (call.phi0_task != 0) pack(kernels, layout, call.phi0 + t * call.phi0_task, at.phi0);
    for (int64_t m = 0; m < moments; ++m)
      if (call.moment0)
        pack(kernels, layout, call.moment0 + (t * moments + m) * parameters, at.step.state0 + m * total);
      else
        std::fill_n(at.step.state0 + m * total, total, T{0});
    T* norms = at.step.state0 + moments * total;
    if (spectral > 0) pack_spectral(layout, call.spectral0 + t * spectral, norms);
    const auto [phi, state, done, valid] =
        loop.run(t, call.phi0_task == 0 ? shared_phi : at.phi0, at.step,
                 call.saved ? call.saved + t * per_task : nullptr, call.trace + t * call.steps * kTrace);
    call.valid[t] = valid;
    call.done[t] = done;
    unpack(kernels, layout, phi, call.phi + t * parameters);
    for (int64_t m = 0; m < moments; ++m)
      unpack(kernels, layout, state + m * total, call.moment + (t * moments + m) * parameters);
    if (spectral > 0) unpack_spectral(layout, state + moments * total, call.spectral + t * spectral);
  });
}

template <class T>
void pullback(const Kernels<T>& kernels, Program& program, const StorageSchedule& storage, const PullCall<T>& call) {
  const Layout& layout = program.layout();
  const int64_t total = layout.total, parameters = program.plan().parameters, moments = program.moments();
  const int cotangents = static_cast<int>(call.halves.size());
  const int64_t per_task = saved_elements(program, storage, call.steps);
  const Pulls pulls(program, call.halves, call.rates, call.schedule.scale != nullptr, call.steps);

  // What a task leaves, v and then perhaps v_moment and d_scale, lies side by side, and so do the sums.
  const int64_t vectors = vectors_of(program, cotangents, call.rates);
  Carver<T> carver(call.workspace);
  T* scale = carver.take(total);
  T* sums = carver.take(vectors * total);
  if (call.schedule.scale) pack(kernels, layout, call.schedule.scale, scale);
  std::vector<PullBuffers<T>> of_thread;
  for (int i = 0; i < call.threads; ++i)
    of_thread.emplace_back(carver, program, storage, int64_t{cotangents}, call.rates, pulls.arena());
  std::vector<uint8_t> kept(vectors, kBoth);
  for (int c = 0; c < cotangents; ++c) kept[c] = call.halves[c].keep;
  TaskSum<T> task_sum(layout, kept);
  if (call.weight) std::fill_n(sums, vectors * total, T{0});
  const InnerLoop<T> loop{
      kernels, program, storage, call.batches, call.schedule, call.steps, call.schedule.scale ? scale : nullptr};

  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    const PullBuffers<T>& at = of_thread[thread];
    auto row = [&](auto* base, int c) { return base + (c * call.tasks + t) * parameters; };
    auto moment_row = [&](auto* base, int c, int64_t m) {
      return base + ((c * call.tasks + t) * moments + m) * parameters;
    };
    if (at.d_scale) std::fill_n(at.d_scale, cotangents * total, T{0});
    for (int c = 0; c < cotangents; ++c) {
      T* v = at.v + c * total;
      pack(kernels, layout, row(call.v, c), v);
      clear_other_half(layout, call.halves[c].support, v);
      for (int64_t m = 0; m < moments; ++m) {
        T* v_moment = at.v_moment + (c * moments + m) * total;
        if (call.v_moment) {
          pack(kernels, layout, moment_row(call.v_moment, c, m), v_moment);
          clear_other_half(layout, call.halves[c].support, v_moment);
        } else {
          std::fill_n(v_moment, total, T{0});
        }
      }
    }
    if (call.valid[t])
      loop.pull(t, pulls, call.saved + t * per_task, at, call.rates ? call.d_rate + t * call.steps * 2 : nullptr,
                call.tasks * call.steps * 2);
    if (call.weight) {
      call.valid[t] = call.valid[t] && halves_finite(kernels, layout, call.halves, at.v);
      task_sum.add(t, call.valid[t] ? call.weight[t] : 0, at.v, sums);
      return;
    }
    for (int c = 0; c < cotangents; ++c) {
      const uint8_t keep = call.valid[t] ? call.halves[c].keep : 0;
      unpack(kernels, layout, at.v + c * total, row(call.v0, c), keep);
      const uint8_t all = call.valid[t] ? kBoth : 0;
      for (int64_t m = 0; call.v_moment0 && m < moments; ++m)
        unpack(kernels, layout, at.v_moment + (c * moments + m) * total, moment_row(call.v_moment0, c, m), all);
      if (call.d_scale) unpack(kernels, layout, at.d_scale + c * total, row(call.d_scale, c), all);
    }
  });
  if (!call.weight) return;
  auto hand_out = [&](T* output, int64_t each, bool kept) {
    for (int64_t i = 0; i < cotangents * each; ++i, sums += total)
      if (output) unpack(kernels, layout, sums, output + i * parameters, kept ? call.halves[i].keep : uint8_t{kBoth});
  };
  hand_out(call.v0, 1, true);
  hand_out(call.v_moment0, moments, false);
  if (call.rates) hand_out(call.d_scale, 1, false);
}

template <class T>
void gradients(const Kernels<T>& kernels, Program& program, const GradientsCall<T>& call) {
  const Layout& layout = program.layout();
  const Procedure& procedure = program.gradients(call.full);
  const int64_t total = layout.total, parameters = program.plan().parameters;
  const int64_t stride = 3 * total + layout.spectral_size + procedure.arena;
  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    Carver<T> carver(call.workspace + thread * stride);
    T* phi = carver.take(total);
    Frame<T> frame;
    frame.gradient = carver.take(2 * total);
    frame.arena = carver.take(procedure.arena);
    T* norms = carver.take(layout.spectral_size);
    if (layout.spectral_size > 0) pack_spectral(layout, call.spectral + t * program.plan().spectral(), norms);
    frame.spectral = norms;
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
  const int64_t latent = layout.z.features(), features = layout.x.features();
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
