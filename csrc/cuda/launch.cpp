#include "launch.h"

#include <algorithm>
#include <map>

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

// The halves that a step's pull-back has to do with: the last knows which can be nonzero, the first which are wanted.
std::vector<Halves> halves_at(const std::vector<Halves>& halves, int k, int steps) {
  std::vector<Halves> at(halves.size());
  for (size_t c = 0; c < halves.size(); ++c) {
    if (k == steps - 1) at[c].support = halves[c].support;
    if (k == 0) at[c].keep = halves[c].keep;
  }
  return at;
}

}  // namespace

// The lists of one launch, each encoded once.
class Launches::Lists {
 public:
  explicit Lists(const Layout& layout) : layout_(layout) {}

  Listing add(const Procedure& procedure) {
    auto [at, fresh] = known_.try_emplace(&procedure);
    if (fresh) {
      const std::vector<Code> code = encode(procedure, layout_);
      at->second = {static_cast<int32_t>(codes_.size()), static_cast<int32_t>(code.size())};
      codes_.insert(codes_.end(), code.begin(), code.end());
      arena_ = std::max(arena_, procedure.arena);
    }
    return at->second;
  }
  const std::vector<Code>& codes() const { return codes_; }
  int32_t arena() const { return static_cast<int32_t>(arena_); }  // of the largest

 private:
  const Layout& layout_;
  std::map<const Procedure*, Listing> known_;
  std::vector<Code> codes_;
  int64_t arena_ = 0;
};

Launches::Launches(const Plan& plan, const Game& game) : program_(plan, game, cuda_target()), encoding_(program_) {
  find_flat();
  for (Optimiser kind : game.optimisers) kinds_.push_back(static_cast<uint8_t>(kind));
}

void Launches::find_flat() {
  const Layout& layout = program_.layout();
  flat_.assign(layout.total, -1);
  for (const Tensor& t : layout.tensors) {
    const int64_t start = layout.start[index(t.player)], weight = start + t.packed_weight;
    const int64_t ld = t.diagonal() ? 1 : layout.target.pad(t.inputs());
    const bool plain = t.window < 0;  // as torch has it
    for (int n = 0; n < t.n; ++n)
      for (int tap = 0; tap < t.taps; ++tap)
        for (int k = 0; k < t.k; ++k)
          flat_[weight + n * ld + tap * t.k + k] = static_cast<int32_t>(
              t.weight + (plain ? int64_t{n} * t.k + k : n * t.weight_n + t.weight_tap[tap] + k * t.weight_k));
    for (int n = 0; t.bias >= 0 && n < t.n; ++n)
      for (int site = 0; site < t.bias_sites; ++site)
        flat_[start + t.packed_bias + int64_t{site} * t.bias_ld + n] =
            static_cast<int32_t>(t.bias + int64_t{n} * t.bias_sites + site);
  }
}

int64_t Launches::saved_elements(const StorageSchedule& storage, int steps) const {
  return storage.kept_slots * snapshot() + (program_.game().keep_all ? steps * program_.residual_elements() : 0);
}

Launch Launches::start(Image& image) const {
  Launch l;
  l.tables = encoding_.tables(image);
  l.flat = image.put(flat_);
  l.optimisers = image.put(kinds_);
  l.parameters = program_.plan().parameters;
  l.snapshot = snapshot();
  l.residual_elements = program_.residual_elements();
  l.spectral = program_.plan().spectral();
  l.penalty_every = program_.has_penalty() ? program_.game().penalty.every : 0;
  l.keep_all = program_.game().keep_all;
  l.fused = program_.fused();
  return l;
}

void Launches::add_steps(Launch& l, const StorageSchedule& storage, int steps, Lists& lists, Image& image) {
  for (bool penalised : {false, true})
    for (bool extra : {false, true}) l.step[penalised][extra] = lists.add(program_.step({penalised, extra}));
  l.steps = steps;
  l.slot_of_step = image.put(storage.slot_of_step);
  l.kept_slots = storage.kept_slots;
  l.saved_each = saved_elements(storage, steps);
}

Launch Launches::adapt(const StorageSchedule& storage, int steps, Image& image) {
  Launch l = start(image);
  Lists lists(program_.layout());
  add_steps(l, storage, steps, lists, image);
  l.codes = image.put(lists.codes());
  l.arena = lists.arena();
  Counter counter;
  const int64_t total = program_.layout().total;
  l.places.phi = counter.take(total);
  l.places.state = counter.take(snapshot() - total);
  for (int64_t& carried : l.places.carried) carried = counter.take(snapshot());
  l.places.residual = counter.take(program_.residual_elements());
  l.places.scale = counter.take(total);
  l.places.arena = counter.take(l.arena);
  l.places.each = counter.used();
  return l;
}

Launch Launches::pullback(const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates, bool scaled,
                          int steps, Image& image) {
  Launch l = start(image);
  Lists lists(program_.layout());
  add_steps(l, storage, steps, lists, image);
  std::vector<Listing> pulls;
  for (int k = 0; k < steps; ++k)
    for (bool penalised : {false, true})
      for (bool extra : {false, true})
        pulls.push_back(lists.add(program_.pull(halves_at(halves, k, steps), rates, scaled, {penalised, extra})));
  l.pull = image.put(pulls);
  l.halves = image.put(halves);
  l.cotangents = static_cast<int32_t>(halves.size());
  l.codes = image.put(lists.codes());
  l.actions = image.put(storage.pullback);
  l.action_count = static_cast<int32_t>(storage.pullback.size());
  l.arena = lists.arena();
  Counter counter;
  const int64_t total = program_.layout().total, cotangents = static_cast<int64_t>(halves.size());
  l.places.v = counter.take(cotangents * total);
  l.places.v_moment = counter.take(cotangents * program_.moments() * total);
  l.places.d_scale = counter.take(rates ? cotangents * total : 0);
  l.places.scratch = counter.take(storage.scratch_slots * snapshot());
  l.places.residual = counter.take(program_.residual_elements());
  l.places.scale = counter.take(total);
  l.places.arena = counter.take(l.arena);
  l.places.each = counter.used();
  return l;
}

Launch Launches::list(const Procedure& procedure, Image& image) {
  Launch l = start(image);
  Lists lists(program_.layout());
  l.list = lists.add(procedure);
  l.codes = image.put(lists.codes());
  l.arena = lists.arena();
  Counter counter;
  const int64_t total = program_.layout().total;
  l.places.phi = counter.take(total);
  l.places.state = counter.take(program_.layout().spectral_size);
  l.places.v = counter.take(2 * total);
  l.places.arena = counter.take(l.arena);
  l.places.each = counter.used();
  return l;
}

}  // namespace pymgan::cuda
