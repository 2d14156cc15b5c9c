#include "launch.h"

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>

#include "../placement.h"
#include "ring.h"

namespace pymgan::cuda {
namespace {

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

// The lists of one launch, each once.
class Launches::Lists {
 public:
  explicit Lists(const Layout& layout) : layout_(layout) {}

  Listing add(const Procedure& procedure) {
    auto [at, fresh] = known_.try_emplace(&procedure);
    if (fresh) {
      at->second = {count_, static_cast<int32_t>(procedure.code.size())};
      count_ += at->second.count;
      order_.push_back(&procedure);
      arena_ = std::max(arena_, procedure.arena);
      for (const Instr& i : procedure.code) streams_ = streams_ || (i.op == Op::product && i.window < 0);
    }
    return at->second;
  }
  bool streams() const { return streams_; }  // a ring is of use for weights in global memory
  int64_t arena() const { return arena_; }   // of the largest

  // The least slice of up to `most` elements with which a team has room for everyone's temps; 0: there is none.
  int64_t slice(int team, int64_t most) const {
    int64_t slice = (arena_ / team + 16) / 16 * 16;
    for (; slice <= most; slice += (slice / 8 + 15) / 16 * 16) {
      const bool all = std::all_of(order_.begin(), order_.end(), [&](const Procedure* procedure) {
        const Placement p = place(*procedure, slice);
        return p.fits && p.arena <= team * slice;
      });
      if (all) return slice;
    }
    return 0;
  }
  std::vector<Code> codes(int64_t slice) const {
    std::vector<Code> codes;
    for (const Procedure* procedure : order_) {
      const std::vector<Code> code = encode(*procedure, layout_, slice);
      codes.insert(codes.end(), code.begin(), code.end());
    }
    return codes;
  }

 private:
  const Layout& layout_;
  std::map<const Procedure*, Listing> known_;
  std::vector<const Procedure*> order_;
  int32_t count_ = 0;
  int64_t arena_ = 0;
  bool streams_ = false;
};

// Where a task's buffers lie: near ones in shared memory as long as there is room, in the order in which they ask.
// Without room for the temps in one block nothing else is shared, so that a team can work on the task.
class Launches::Plot {
 public:
  // Encodes the lists.
  Plot(Launch& l, const Lists& lists, SharedRoom room, Image& image) : places_(l.places), team_(l.team) {
    const int64_t arena = lists.arena();
    int64_t slice = 0;
    if (arena <= room.most) {
      ring_room_ = shared_ = arena <= room.wanted ? room.wanted : room.most;
    } else {
      l.team = room.team;
      if (room.team > 1) slice = lists.slice(room.team, room.most);
      ring_room_ = slice <= room.half ? room.half : room.most;
    }
    if (!room.rings || !lists.streams()) ring_room_ = 0;
    if (slice > 0) {
      buffers.push_back({"temps", slice * room.team, true});
      places_.arena = {0, true}, places_.shared = slice;
    } else {
      places_.arena = near("temps", arena);
    }
    l.codes = image.put(lists.codes(slice));
  }

  Place near(const std::string& name, int64_t elements) {
    const int64_t size = (elements + 3) / 4 * 4;
    if (places_.shared + size > shared_) return far(name, elements);
    buffers.push_back({name, elements, true});
    return {std::exchange(places_.shared, places_.shared + size), true};
  }
  Place far(const std::string& name, int64_t elements) {
    buffers.push_back({name, elements, false});
    return {std::exchange(places_.each, places_.each + (elements + 3) / 4 * 4), false};
  }
  // Where it only saves time.
  Place near_or_none(const std::string& name, int64_t elements) {
    return places_.shared + elements > shared_ ? Place{} : near(name, elements);
  }

  // The snapshots that the steps go between. The inner loop is over when v is needed, so they may share v's room.
  void steps(int64_t snapshot, int64_t v) {
    const int64_t size = (snapshot + 3) / 4 * 4;
    if (places_.v.shared && 2 * size <= v) {
      places_.carried[1] = places_.v, places_.carried[0] = {places_.v.at + size, true};
      return;
    }
    places_.carried[1] = near("before a step", snapshot);
    places_.carried[0] = near("after a step", snapshot);
  }

  // Last: what is left may be rings, if parameters or v are in global memory.
  void rings() {
    const Places& p = places_;
    const Place weights[] = {p.phi, p.v, p.before, p.carried[0], p.carried[1]};
    const bool far =
        std::any_of(std::begin(weights), std::end(weights), [](Place w) { return w.at >= 0 && !w.shared; });
    for (int blocks = kMostSlots; far && blocks >= 2; --blocks) {
      const int64_t at = (places_.shared + 3) / 4 * 4, size = int64_t{kWarps} * ring_size(blocks);
      if (at + size > ring_room_) continue;
      places_.rings = at, places_.ring_blocks = blocks, places_.shared = at + size;
      buffers.push_back({"rings", size * team_, true});
      return;
    }
  }

  std::vector<BufferNote> buffers;

 private:
  Places& places_;
  int32_t& team_;
  int64_t shared_ = 0, ring_room_ = 0;
};

Launches::Launches(const Plan& plan, const Game& game, Precision precision)
    : program_(plan, game, cuda_target()), encoding_(program_), precision_(precision) {
  // Offsets are 32-bit numbers.
  const int64_t most = std::max(3 * snapshot(), program_.residual_elements());
  if (most > std::numeric_limits<int32_t>::max())
    throw std::invalid_argument("[cuda] expected buffers of at most 8 GiB a task, got one of " +
                                std::to_string(4 * most) + " bytes; engine 'triton' has no such limit");
  find_flat();
  for (Optimiser kind : game.optimisers) kinds_.push_back(static_cast<uint8_t>(kind));
}

void Launches::find_flat() {
  const Layout& layout = program_.layout();
  flat_.assign(layout.total, -1);
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const Tensor& t = layout.tensors[i];
    const int64_t start = layout.start[index(t.player)], weight = start + t.packed_weight;
    const bool plain = t.window < 0;  // as torch has it
    for (int n = 0; n < t.n; ++n)
      for (int tap = 0; tap < t.taps; ++tap)
        for (int k = 0; k < t.k; ++k)
          flat_[weight + (t.diagonal() ? n : weight_at(encoding_.tensors()[i], n, tap * t.k + k))] =
              static_cast<int32_t>(
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
  l.precision = precision_;
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

Prepared Launches::adapt(const StorageSchedule& storage, int steps, SharedRoom room) {
  return Prepared([this, storage, steps, room](Image& image) {
    Launch l = start(image);
    Lists lists(program_.layout());
    add_steps(l, storage, steps, lists, image);
    Plot plot(l, lists, room, image);
    plot.steps(snapshot(), 0);
    l.places.residual = plot.far("residuals", program_.residual_elements());
    l.places.scale = plot.far("rates", program_.layout().total);
    plot.rings();
    return Plotted{l, plot.buffers};
  });
}

void Launches::add_pulls(Launch& l, const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates,
                         bool scaled, Lists& lists, Image& image) {
  std::vector<Listing> pulls;
  for (int k = 0; k < l.steps; ++k)
    for (bool penalised : {false, true})
      for (bool extra : {false, true})
        pulls.push_back(lists.add(program_.pull(halves_at(halves, k, l.steps), rates, scaled, {penalised, extra})));
  l.pull = image.put(pulls);
  l.actions = image.put(storage.pullback);
  l.action_count = static_cast<int32_t>(storage.pullback.size());
}

void Launches::place_pull(Launch& l, const StorageSchedule& storage, bool rates, Plot& plot) const {
  const int64_t total = program_.layout().total, vectors = l.cotangents * total;
  l.places.before = plot.near_or_none("before the step", snapshot());
  l.places.v = plot.near("v", vectors);
  l.places.v_out = l.places.v.shared ? plot.far("v_0", vectors) : l.places.v;
  l.places.v_moment = plot.far("v of the moments", program_.moments() * vectors);
  l.places.d_scale = plot.far("d_scale", rates ? vectors : 0);
  l.places.scratch = plot.far("snapshots", storage.scratch_slots * snapshot());
  l.places.residual = plot.far("residuals", program_.residual_elements());
  l.places.scale = plot.far("rates", total);
}

Prepared Launches::pullback(const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates, bool scaled,
                            int steps, SharedRoom room) {
  return Prepared([this, storage, halves, rates, scaled, steps, room](Image& image) {
    Launch l = start(image);
    Lists lists(program_.layout());
    add_steps(l, storage, steps, lists, image);
    add_pulls(l, storage, halves, rates, scaled, lists, image);
    l.halves = image.put(halves);
    l.cotangents = static_cast<int32_t>(halves.size());
    Plot plot(l, lists, room, image);
    place_pull(l, storage, rates, plot);
    plot.rings();
    return Plotted{l, plot.buffers};
  });
}

Prepared Launches::meta_gradient(const StorageSchedule& storage, const MetaShape& shape, SharedRoom room) {
  return Prepared([this, storage, shape, room](Image& image) {
    const Game& game = program_.game();
    const Layout& layout = program_.layout();
    const bool plays = shape.losses[0] != 0 || shape.losses[1] != 0;
    // Exact: each player's own descent needs a cotangent of its own. At first order the two share one.
    std::vector<Halves> halves{{kBoth, kBoth}};
    if (shape.second_order && plays)
      halves = {{shape.losses[0] != 0 ? kBoth : kGenerator, kGenerator}, {kBoth, kDiscriminator}};
    else if (shape.second_order)
      halves = {{kGenerator, kBoth}};
    Launch l = start(image);
    l.cotangents = static_cast<int32_t>(halves.size());
    l.halves = image.put(halves);
    l.parts = plays ? shape.queries / game.reals : 0;
    l.fakes = game.fakes, l.reals = game.reals;
    l.noise_rows = std::max(shape.samples, l.parts * game.fakes);
    Lists lists(layout);
    add_steps(l, storage, shape.steps, lists, image);
    if (shape.second_order) add_pulls(l, storage, halves, shape.rates, shape.scaled, lists, image);
    if (l.parts > 0) l.gradients = lists.add(program_.gradients(shape.second_order));
    if (shape.samples > 0) {
      l.generate = lists.add(program_.generate(shape.samples));
      l.generate_vjp = lists.add(program_.generate_vjp(shape.samples));
    }
    Plot plot(l, lists, room, image);
    const int64_t vectors = l.cotangents * layout.total;
    if (shape.second_order) {
      place_pull(l, storage, shape.rates, plot);
      l.places.saved = plot.far("kept of the steps", l.saved_each);
    } else {
      l.places.v_out = plot.far("v_0", vectors);
      l.places.residual = plot.far("residuals", program_.residual_elements());
      l.places.scale = plot.far("rates", layout.total);
    }
    plot.steps(snapshot(), vectors);
    l.places.part = plot.far("part of v", vectors);
    l.places.z = plot.far("z", l.noise_rows * layout.z.features());
    l.places.fakes = plot.far("samples", shape.samples * layout.x.features());
    l.places.d_fakes = plot.far("d samples", shape.samples * layout.x.features());
    l.places.losses = plot.far("losses", kTrace);
    plot.rings();
    return Plotted{l, plot.buffers};
  });
}

Prepared Launches::list(Listing Launch::* which, const Procedure& procedure, SharedRoom room) {
  return Prepared([this, which, &procedure, room](Image& image) {
    Launch l = start(image);
    Lists lists(program_.layout());
    l.*which = lists.add(procedure);
    Plot plot(l, lists, room, image);
    l.places.phi = plot.near("phi", program_.layout().total);
    l.places.spectral = plot.far("(u, v)", program_.layout().spectral_size);
    l.places.gradient = plot.far("gradient", 2 * program_.layout().total);
    plot.rings();
    return Plotted{l, plot.buffers};
  });
}

}  // namespace pymgan::cuda
