#include <algorithm>
#include <cmath>
#include <limits>

#include "distance.h"
#include "engine.h"
#include "inner_loop.h"
#include "noise.h"
#include "packing.h"
#include "task_sum.h"
#include "threads.h"

namespace pymgan::cpu {
namespace {

// What does not depend on the element type: procedures and sizes, made before threads share them.
struct MetaPlan {
  Program& program;
  const StorageSchedule& storage;
  int steps;
  bool second_order, rates, drawn;  // drawn: no explicit noise
  int samples, parts;               // parts of the query that a loss is the mean of; 0: no loss counts
  std::vector<Halves> halves;       // of the rows of v
  Pulls pulls;
  const Procedure *game = nullptr, *generate = nullptr, *generate_vjp = nullptr;

  template <class T>
  MetaPlan(Program& program, const StorageSchedule& storage, const MetaCall<T>& call)
      : program(program),
        storage(storage),
        steps(call.steps),
        second_order(call.second_order),
        rates(call.rates),
        drawn(!call.objective.noise),
        samples(call.objective.samples),
        parts(call.objective.plays() ? call.objective.queries / program.game().reals : 0),
        halves(halves_of(call)),
        pulls(program, halves, rates, call.schedule.scale != nullptr, second_order ? steps : 0) {
    if (parts > 0) game = &program.gradients(second_order);
    if (samples > 0) generate = &program.generate(samples), generate_vjp = &program.generate_vjp(samples);
  }

  // Exact: each player's own descent needs a cotangent of its own. At first order the two share a row.
  template <class T>
  static std::vector<Halves> halves_of(const MetaCall<T>& call) {
    if (!call.second_order) return {{kBoth, kBoth}};
    if (!call.objective.plays()) return {{kGenerator, kBoth}};
    return {{call.objective.losses[0] != 0 ? kBoth : kGenerator, kGenerator}, {kBoth, kDiscriminator}};
  }

  int rows() const { return static_cast<int>(halves.size()); }
  int64_t noise_rows() const { return std::max(samples, parts * program.game().fakes); }
  int64_t latent() const { return program.layout().z.features(); }
  int64_t features() const { return program.layout().x.features(); }
  int64_t arena() const {
    int64_t most = pulls.arena();
    for (const Procedure* p : {game, generate, generate_vjp})
      if (p) most = std::max(most, p->arena);
    return most;
  }
};

template <class T>
struct MetaBuffers {
  PullBuffers<T> pull;
  StepBuffers<T> step;
  T* saved;    // [saved_elements], at second order
  T* phi0;     // [total]: the first snapshot of `saved`, or its own
  T* part;     // [rows][total]: a term of v
  T* padded;   // [noise_rows][padded latent]
  T* z;        // [noise_rows][latent]
  T* fakes;    // [samples][features]
  T* d_fakes;  // [samples][features]

  MetaBuffers(Carver<T>& carver, const MetaPlan& p)
      : pull(carver, p.program, p.storage, p.rows(), p.rates, p.arena()),
        step(carver, p.program, 0),
        saved(carver.take(p.second_order ? saved_elements(p.program, p.storage, p.steps) : 0)),
        phi0(carver.take(p.second_order ? 0 : p.program.layout().total)),
        part(carver.take(p.parts > 1 || (p.parts > 0 && p.samples > 0) ? p.rows() * p.program.layout().total : 0)),
        padded(carver.take(p.drawn ? p.noise_rows() * cpu::padded(p.latent()) : 0)),
        z(carver.take(p.drawn ? p.noise_rows() * p.latent() : 0)),
        fakes(carver.take(p.samples * p.features())),
        d_fakes(carver.take(p.samples * p.features())) {
    step.arena = pull.arena;
    if (p.second_order) phi0 = saved;
  }
};

template <class T>
class Descent {
 public:
  Descent(const Kernels<T>& kernels, const MetaPlan& plan, const MetaCall<T>& call)
      : kernels(kernels), plan(plan), call(call), objective(call.objective), layout(plan.program.layout()) {}

  // The objective of one task at phi [total] and state [state_size]; at.pull.v [rows][total] becomes its cotangents.
  double evaluate(int64_t task, const T* phi, const T* state, const MetaBuffers<T>& at) const {
    Frame<T> frame;
    frame.phi = phi;
    frame.spectral = state + plan.program.moments() * layout.total;
    frame.arena = at.pull.arena;
    frame.key = {call.batches.seed, static_cast<uint64_t>(call.batches.tasks[task]), 0, 0};
    const T* query = objective.query + task * objective.queries * plan.features();
    const T* z = noise(task, at);
    double value = 0;
    if (plan.parts > 0) value = losses(frame, query, z, at);
    if (plan.samples > 0) value = energy(frame, query, z, at);
    return value;
  }

 private:
  const T* noise(int64_t task, const MetaBuffers<T>& at) const {
    if (objective.noise) return objective.noise + task * plan.noise_rows() * plan.latent();
    const NoiseKey key{call.batches.seed, static_cast<uint64_t>(call.batches.tasks[task]),
                       static_cast<uint64_t>(call.batches.count[task] + call.steps), objective.stream};
    dense_noise(kernels, key, static_cast<int>(plan.noise_rows()), static_cast<int>(plan.latent()), at.padded, at.z);
    return at.z;
  }

  double losses(Frame<T>& frame, const T* query, const T* z, const MetaBuffers<T>& at) const {
    const Game& game = plan.program.game();
    const int64_t size = plan.rows() * layout.total;
    T trace[kTrace];
    double value = 0;
    frame.trace = trace;
    for (int i = 0; i < plan.parts; ++i) {
      frame.gradient = i == 0 ? at.pull.v : at.part;
      frame.real = query + i * game.reals * plan.features();
      frame.noise = z + i * game.fakes * plan.latent();
      std::fill_n(frame.gradient, size, T{0});
      execute(kernels, plan.program, *plan.game, frame);
      for (Player p : kPlayers)
        if (const double weight = objective.losses[index(p)]; weight != 0)
          value += weight / plan.parts * trace[index(p)];
      if (i > 0) add(at.part, size, at.pull.v);
    }
    for (int row = 0; row < plan.rows(); ++row)
      for (Player p : kPlayers) {
        const double weight = objective.losses[plan.rows() == 2 ? row : index(p)] / plan.parts;
        scale(weight, layout.size[index(p)], at.pull.v + row * layout.total + layout.start[index(p)]);
      }
    return value;
  }

  double energy(Frame<T>& frame, const T* query, const T* z, const MetaBuffers<T>& at) const {
    frame.input[0] = z;
    frame.output = at.fakes;
    execute(kernels, plan.program, *plan.generate, frame);
    const double value = energy_distance(at.fakes, plan.samples, query, objective.queries,
                                         static_cast<int>(plan.features()), kDistanceEpsilon, at.d_fakes);
    frame.input[1] = at.d_fakes;
    frame.gradient = plan.parts > 0 ? at.part : at.pull.v;
    std::fill_n(frame.gradient, layout.total, T{0});
    execute(kernels, plan.program, *plan.generate_vjp, frame);
    const int64_t start = layout.start[index(Player::generator)], size = layout.size[index(Player::generator)];
    for (int row = 0; plan.parts > 0 && row < plan.rows(); ++row)
      add(at.part + start, size, at.pull.v + row * layout.total + start);
    return value;
  }

  static void add(const T* values, int64_t n, T* sums) {
    for (int64_t i = 0; i < n; ++i) sums[i] += values[i];
  }
  static void scale(double by, int64_t n, T* values) {
    if (by == 0) std::fill_n(values, n, T{0});  // whatever they are
    for (int64_t i = 0; by != 0 && by != 1 && i < n; ++i) values[i] *= static_cast<T>(by);
  }

  const Kernels<T>& kernels;
  const MetaPlan& plan;
  const MetaCall<T>& call;
  const Objective<T>& objective;
  const Layout& layout;
};

}  // namespace

template <class T>
int64_t meta_workspace(Program& program, const StorageSchedule& storage, const MetaCall<T>& call) {
  const MetaPlan plan(program, storage, call);
  // packed rate_scale and sums for all
  return (1 + plan.rows()) * program.layout().total + call.threads * elements_of<MetaBuffers<T>, T>(plan);
}

template <class T>
void meta_gradient(const Kernels<T>& kernels, Program& program, const StorageSchedule& storage,
                   const MetaCall<T>& call) {
  const Layout& layout = program.layout();
  const int64_t total = layout.total;
  const MetaPlan plan(program, storage, call);
  Carver<T> carver(call.workspace);
  T* scale = carver.take(total);
  T* sums = carver.take(plan.rows() * total);
  std::vector<MetaBuffers<T>> of_thread;
  for (int i = 0; i < call.threads; ++i) {
    of_thread.emplace_back(carver, plan);
    if (call.phi0_task == 0) pack(kernels, layout, call.phi0, of_thread.back().phi0);
  }
  if (call.schedule.scale) pack(kernels, layout, call.schedule.scale, scale);
  std::fill_n(sums, plan.rows() * total, T{0});
  std::vector<uint8_t> kept;
  for (const Halves& h : plan.halves) kept.push_back(h.keep);
  TaskSum<T> task_sum(layout, kept);
  const Descent<T> descent(kernels, plan, call);
  const InnerLoop<T> loop{
      kernels, program, storage, call.batches, call.schedule, call.steps, call.schedule.scale ? scale : nullptr};

  parallel_for(call.tasks, call.threads, [&](int64_t t, int thread) {
    const MetaBuffers<T>& at = of_thread[thread];
    if (call.phi0_task != 0) pack(kernels, layout, call.phi0 + t * call.phi0_task, at.phi0);
    std::fill_n(at.step.state0, program.moments() * total, T{0});
    if (layout.spectral_size > 0)
      pack_spectral(layout, call.spectral0 + t * program.plan().spectral(), at.step.state0 + program.moments() * total);
    const auto end = loop.run(t, at.phi0, at.step, at.saved, call.trace + t * call.steps * kTrace);
    call.value[t] = end.valid ? descent.evaluate(t, end.phi, end.state, at) : std::numeric_limits<double>::quiet_NaN();
    bool valid = std::isfinite(call.value[t]);
    if (valid && plan.second_order) {
      if (at.pull.v_moment) std::fill_n(at.pull.v_moment, plan.rows() * program.moments() * total, T{0});
      if (at.pull.d_scale) std::fill_n(at.pull.d_scale, plan.rows() * total, T{0});
      loop.pull(t, plan.pulls, at.saved, at.pull, call.rates ? call.d_rate + t * call.steps * 2 : nullptr,
                call.tasks * call.steps * 2);
    }
    valid = valid && halves_finite(kernels, layout, plan.halves, at.pull.v);
    call.valid[t] = valid;
    task_sum.add(t, valid ? 1 : 0, at.pull.v, sums);
  });
  if (plan.rows() == 2) {
    const int64_t start = layout.start[index(Player::discriminator)];
    std::copy_n(sums + total + start, layout.size[index(Player::discriminator)], sums + start);
  }
  const int64_t valid = std::count(call.valid, call.valid + call.tasks, 1);
  for (int64_t i = 0; valid > 0 && i < total; ++i) sums[i] /= static_cast<T>(valid);
  unpack(kernels, layout, sums, call.gradient);
}

#define PYMGAN_INSTANTIATE(T)                                                                 \
  template int64_t meta_workspace(Program&, const StorageSchedule&, const MetaCall<T>& call); \
  template void meta_gradient(const Kernels<T>&, Program&, const StorageSchedule&, const MetaCall<T>&);
PYMGAN_INSTANTIATE(float)
PYMGAN_INSTANTIATE(double)

}  // namespace pymgan::cpu
