#include "host.h"

#include <algorithm>

namespace pymgan::cuda {
namespace {

// Counts places from the start of a task's workspace.
class Counter {
 public:
  int64_t take(int64_t elements) {
    const int64_t at = used_;
    used_ += (elements + 3) / 4 * 4;
    return at;
  }
  int64_t used() const { return used_; }

 private:
  int64_t used_ = 0;
};

// The halves that each step's pull-back has to do with: the last knows which can be nonzero, the first which are wanted.
std::vector<Halves> halves_at(const std::vector<Halves>& halves, int k, int steps) {
  std::vector<Halves> at(halves.size());
  for (size_t c = 0; c < halves.size(); ++c) {
    if (k == steps - 1) at[c].support = halves[c].support;
    if (k == 0) at[c].keep = halves[c].keep;
  }
  return at;
}

template <class F>
void for_tasks(int64_t tasks, F f) {
  for (int64_t t = 0; t < tasks; ++t) {
    Block block(static_cast<uint64_t>(t) + 1);
    f(block, t);
  }
}

}  // namespace

void HostEngine::find_flat() {
  const Layout& layout = program_.layout();
  flat_.assign(layout.total, -1);
  for (const Tensor& t : layout.tensors) {
    const int64_t start = layout.start[index(t.player)];
    if (t.diagonal()) {
      for (int n = 0; n < t.n; ++n) flat_[start + t.packed_weight + n] = static_cast<int32_t>(t.weight + n);
    } else {
      const int64_t ld = layout.target.pad(t.inputs());
      const bool plain = t.window < 0;
      for (int n = 0; n < t.n; ++n)
        for (int tap = 0; tap < t.taps; ++tap)
          for (int k = 0; k < t.k; ++k)
            flat_[start + t.packed_weight + n * ld + tap * t.k + k] = static_cast<int32_t>(
                plain ? t.weight + int64_t{n} * t.k + k
                      : t.weight + n * t.weight_n + t.weight_tap[tap] + k * t.weight_k);
    }
    for (int n = 0; t.bias >= 0 && n < t.n; ++n)
      for (int site = 0; site < t.bias_sites; ++site)
        flat_[start + t.packed_bias + int64_t{site} * t.bias_ld + n] =
            static_cast<int32_t>(t.bias + int64_t{n} * t.bias_sites + site);
  }
}

Listing HostEngine::encoded(const Procedure& procedure) {
  std::lock_guard lock(mutex_);
  auto [at, fresh] = codes_.try_emplace(&procedure);
  if (fresh) at->second = encode(procedure, program_.layout());
  return {at->second.data(), static_cast<int32_t>(at->second.size())};
}

Launch HostEngine::launch(int steps) {
  Launch l;
  l.tables = encoding_.tables();
  for (const StepForm& form : program_.forms()) l.step[form.penalised][form.extra] = encoded(program_.step(form));
  l.flat = flat_.data();
  l.optimisers = kinds_.data();
  l.parameters = program_.plan().parameters;
  l.snapshot = snapshot();
  l.residual_elements = program_.residual_elements();
  l.spectral = program_.plan().spectral();
  l.steps = steps;
  l.penalty_every = program_.has_penalty() ? program_.game().penalty.every : 0;
  l.keep_all = program_.game().keep_all;
  l.fused = program_.fused();
  // A game has steps of one form in two places, where the other form does not occur.
  for (int extra = 0; extra < 2; ++extra)
    for (int penalised = 0; penalised < 2; ++penalised)
      if (!l.step[penalised][extra].code) l.step[penalised][extra] = encoded(program_.step({penalised == 1, extra == 1}));
  return l;
}

int64_t HostEngine::saved_elements(const StorageSchedule& storage, int steps) const {
  return storage.kept_slots * snapshot() + (program_.game().keep_all ? steps * program_.residual_elements() : 0);
}

Places HostEngine::adapt_places() const {
  Counter counter;
  Places p;
  const int64_t total = program_.layout().total;
  p.phi = counter.take(total);
  p.state = counter.take(snapshot() - total);
  for (int64_t& carried : p.carried) carried = counter.take(snapshot());
  p.residual = counter.take(program_.residual_elements());
  p.scale = counter.take(total);
  p.arena = counter.take(program_.step_arena());
  p.each = counter.used();
  return p;
}

int64_t HostEngine::adapt_workspace(int64_t tasks) const { return tasks * adapt_places().each; }

int64_t HostEngine::pull_arena(const std::vector<Halves>& halves, bool rates, bool scaled, int steps) {
  int64_t arena = program_.step_arena();
  for (int k = 0; k < steps; ++k)
    for (const StepForm& form : program_.forms())
      arena = std::max(arena, program_.pull(halves_at(halves, k, steps), rates, scaled, form).arena);
  return arena;
}

Places HostEngine::pull_places(const StorageSchedule& storage, int64_t cotangents, bool rates, int64_t arena) const {
  Counter counter;
  Places p;
  const int64_t total = program_.layout().total;
  p.v = counter.take(cotangents * total);
  p.v_moment = counter.take(cotangents * program_.moments() * total);
  p.d_scale = counter.take(rates ? cotangents * total : 0);
  p.scratch = counter.take(storage.scratch_slots * snapshot());
  p.residual = counter.take(program_.residual_elements());
  p.scale = counter.take(total);
  p.arena = counter.take(arena);
  p.each = counter.used();
  return p;
}

int64_t HostEngine::pull_workspace(const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates,
                                   bool scaled, int steps, int64_t tasks) {
  const int64_t arena = pull_arena(halves, rates, scaled, steps);
  return tasks * pull_places(storage, static_cast<int64_t>(halves.size()), rates, arena).each;
}

Places HostEngine::list_places(const Procedure& procedure) const {
  Counter counter;
  Places p;
  const int64_t total = program_.layout().total;
  p.phi = counter.take(total);
  p.state = counter.take(program_.layout().spectral_size);
  p.v = counter.take(2 * total);
  p.arena = counter.take(procedure.arena);
  p.each = counter.used();
  return p;
}

int64_t HostEngine::gradients_workspace(bool full, int64_t tasks) {
  return tasks * list_places(program_.gradients(full)).each;
}
int64_t HostEngine::generate_workspace(int batch, bool vjp, int64_t tasks) {
  return tasks * list_places(vjp ? program_.generate_vjp(batch) : program_.generate(batch)).each;
}

void HostEngine::adapt(const StorageSchedule& storage, const cpu::AdaptCall<float>& call) {
  Launch l = launch(call.steps);
  l.places = adapt_places();
  l.workspace = call.workspace;
  l.slot_of_step = storage.slot_of_step.data();
  l.kept_slots = storage.kept_slots;
  l.saved_each = saved_elements(storage, call.steps);
  for_tasks(call.tasks, [&](Block& block, int64_t t) { TaskCall(block, l, t).adapt(call); });
}

void HostEngine::pullback(const StorageSchedule& storage, const cpu::PullCall<float>& call) {
  Launch l = launch(call.steps);
  const bool scaled = call.schedule.scale != nullptr;
  const auto cotangents = static_cast<int>(call.halves.size());
  std::vector<Listing> pulls(call.steps * 4);
  for (int k = 0; k < call.steps; ++k)
    for (int penalised = 0; penalised < 2; ++penalised)
      for (int extra = 0; extra < 2; ++extra)
        pulls[(k * 2 + penalised) * 2 + extra] = encoded(program_.pull(
            halves_at(call.halves, k, call.steps), call.rates, scaled, {penalised == 1, extra == 1}));
  l.pull = pulls.data();
  l.places = pull_places(storage, cotangents, call.rates, pull_arena(call.halves, call.rates, scaled, call.steps));
  l.workspace = call.workspace;
  l.slot_of_step = storage.slot_of_step.data();
  l.kept_slots = storage.kept_slots;
  l.actions = storage.pullback.data();
  l.action_count = static_cast<int32_t>(storage.pullback.size());
  l.saved_each = saved_elements(storage, call.steps);
  for_tasks(call.tasks,
            [&](Block& block, int64_t t) { TaskCall(block, l, t).pullback(call, call.halves.data(), cotangents); });
  if (!call.weight) return;
  const int64_t total = program_.layout().total, start = program_.layout().start[1];
  auto hand_out = [&](int64_t place, float* output, int64_t each, bool kept) {
    for (int64_t i = 0; output && i < cotangents * each; ++i) {
      const uint8_t halves = kept ? call.halves[i].keep : kBoth;
      for (int64_t n = 0; n < total; ++n) {
        if (flat_[n] < 0) continue;
        const bool wanted = halves & (n < start ? kGenerator : kDiscriminator);
        output[i * l.parameters + flat_[n]] =
            wanted ? weighted_sum(call.workspace + place + i * total + n, l.places.each, call.tasks, call.valid, call.weight)
                   : 0.f;
      }
    }
  };
  hand_out(l.places.v, call.v0, 1, true);
  hand_out(l.places.v_moment, call.v_moment0, program_.moments(), false);
  if (call.rates) hand_out(l.places.d_scale, call.d_scale, 1, false);
}

void HostEngine::gradients(const cpu::GradientsCall<float>& call) {
  Launch l = launch(1);
  const Procedure& procedure = program_.gradients(call.full);
  l.list = encoded(procedure);
  l.places = list_places(procedure);
  l.workspace = call.workspace;
  for_tasks(call.tasks, [&](Block& block, int64_t t) { TaskCall(block, l, t).gradients(call); });
}

void HostEngine::generate(const cpu::GenerateCall<float>& call) {
  Launch l = launch(1);
  const Procedure& procedure =
      call.cotangent ? program_.generate_vjp(call.batch) : program_.generate(call.batch);
  l.list = encoded(procedure);
  l.places = list_places(procedure);
  l.workspace = call.workspace;
  for_tasks(call.tasks, [&](Block& block, int64_t t) { TaskCall(block, l, t).generate(call); });
}

}  // namespace pymgan::cuda
