#include <algorithm>

#include "../placement.h"
#include "code.h"
#include "fragments.h"

namespace pymgan::cuda {
namespace {

FormRecord record(const Form& form) { return {form.channels, form.sites, form.ld}; }

Operand operand(const Ref& r, const Procedure& procedure, const Layout& layout, const Placement& placement,
                int64_t slice) {
  Operand o;
  if (!r) return o;
  Value v = procedure.values[r.value];
  if (v.slot == Slot::temp && slice > 0) {
    o.rank = static_cast<int8_t>(placement.offset[r.value] / slice);
    v.offset = placement.offset[r.value] % slice;
  }
  o.slot = static_cast<int16_t>(v.slot);
  o.offset = static_cast<int32_t>(v.offset + r.offset);
  o.ld = static_cast<int32_t>(layout.target.pad(v.columns));
  o.player = static_cast<int8_t>(v.player);
  if (r.bias_offset >= 0) o.bias = static_cast<int32_t>(v.offset + r.bias_offset);
  return o;
}

}  // namespace

Target cuda_target() {
  Target target;
  target.lanes = 4;
  target.by_rows = true;
  target.tile = kTileColumns;
  return target;
}

int32_t Encoding::put(const std::vector<int32_t>& numbers) {
  const auto at = static_cast<int32_t>(numbers_.size());
  numbers_.insert(numbers_.end(), numbers.begin(), numbers.end());
  return at;
}

int32_t Encoding::put_members(const std::vector<int32_t>& of, int count) {
  std::vector<int32_t> start(count + 1, 0), members;
  for (int i = 0; i < count; ++i) {
    for (size_t n = 0; n < of.size(); ++n)
      if (of[n] == i) members.push_back(static_cast<int32_t>(n));
    start[i + 1] = static_cast<int32_t>(members.size());
  }
  const int32_t at = put(start);
  put(members);
  return at;
}

void Encoding::add_window(const Window& w) {
  WindowRecord r;
  r.in_sites = w.in_sites, r.out_sites = w.out_sites, r.taps = w.taps;
  r.from = put(w.from);
  const int32_t numbers = put(w.numbers);
  r.first_group = static_cast<int32_t>(groups_.size());
  r.groups = static_cast<int32_t>(w.groups.size());
  for (const WindowGroup& g : w.groups)
    groups_.push_back({g.taps, numbers + g.first_tap, g.sites, numbers + g.first_site});
  r.first_pair = put(w.first_pair);
  r.pair_in = put(w.pair_in), r.pair_out = put(w.pair_out);
  windows_.push_back(r);
}

void Encoding::add_map(const FixedMap& map) {
  MapRecord r;
  r.out = map.out;
  std::vector<std::vector<FixedMap::Link>> of(map.out);
  for (const FixedMap::Link& link : map.links()) of[link.to].push_back(link);
  std::vector<int32_t> start{0}, source;
  r.factor = static_cast<int32_t>(factors_.size());
  for (const auto& links : of) {
    for (const FixedMap::Link& link : links)
      source.push_back(link.from), factors_.push_back(static_cast<float>(link.factor));
    start.push_back(static_cast<int32_t>(source.size()));
  }
  r.start = put(start), r.source = put(source);
  maps_.push_back(r);
}

Encoding::Encoding(const Program& program) {
  const Layout& layout = program.layout();
  const Game& game = program.game();
  for (const Tensor& t : layout.tensors) {
    TensorRecord r;
    r.n = t.n, r.k = t.k, r.taps = t.taps;
    r.ld = static_cast<int32_t>(t.diagonal() ? 1 : layout.target.pad(t.inputs()));
    r.window = t.window;
    r.bias_sites = t.bias_sites, r.bias_ld = t.bias_ld;
    r.bias_size = t.bias >= 0 ? static_cast<int32_t>(layout.packed_bias_size(t)) : 0;
    r.offset = static_cast<int32_t>(t.packed_weight);
    if (t.diagonal()) {
      r.elements = t.in;
      r.of = put(t.of);
      r.start = put_members(t.of, t.n);
      r.members = r.start + t.n + 1;
    }
    tensors_.push_back(r);
  }
  for (const Windows& w : layout.windows) add_window(w.forward), add_window(w.back);
  for (const FixedMaps& m : layout.maps) add_map(m.forward), add_map(m.back);
  for (const Groups& g : layout.groups) {
    const int32_t start = put_members(g.of, g.count);
    softmaxes_.push_back({g.count, start, start + g.count + 1});
  }
  for (const SpectralNorm& s : layout.spectral)
    spectral_.push_back(
        {s.tensor, static_cast<int32_t>(s.u), static_cast<int32_t>(s.v), s.iterations, static_cast<float>(s.eps)});
  Tables& t = tables_;
  t.spectral_count = static_cast<int32_t>(spectral_.size());
  t.spectral_size = static_cast<int32_t>(layout.spectral_size);
  t.moments = program.moments();
  for (int p = 0; p < 2; ++p) {
    t.size[p] = static_cast<int32_t>(layout.size[p]);
    t.start[p] = static_cast<int32_t>(layout.start[p]);
  }
  t.total = static_cast<int32_t>(layout.total);
  t.z = record(layout.z), t.x = record(layout.x);
  t.channels = static_cast<int32_t>(layout.sample[0]);
  t.extents = static_cast<int32_t>(layout.sample.size()) - 1;
  for (int d = 0; d < std::min(t.extents, 3); ++d) t.extent[d] = static_cast<int32_t>(layout.sample[d + 1]);
  t.loss = game.loss, t.relative = game.relative();
  t.smoothing = static_cast<float>(game.smoothing);
  t.penalty = game.penalty.kind;
  t.penalty_weight = static_cast<float>(game.penalty.weight * game.penalty.every);
  t.momentum = static_cast<float>(game.momentum), t.eps = static_cast<float>(game.eps);
  for (int i = 0; i < 2; ++i) t.betas[i] = static_cast<float>(t.exact_betas[i] = game.betas[i]);
  t.brightness = game.augmentation.brightness, t.translation = game.augmentation.translation;
  t.cutout = game.augmentation.cutout;
  t.instance_noise = static_cast<float>(game.instance_noise);
}

Tables Encoding::tables(Image& image) const {
  Tables t = tables_;
  t.tensors = image.put(tensors_), t.windows = image.put(windows_), t.groups = image.put(groups_);
  t.maps = image.put(maps_), t.softmaxes = image.put(softmaxes_), t.spectral = image.put(spectral_);
  t.numbers = image.put(numbers_), t.factors = image.put(factors_);
  return t;
}

std::vector<Code> encode(const Procedure& procedure, const Layout& layout, int64_t slice) {
  const Placement placement = slice > 0 ? place(procedure, slice) : Placement{};
  std::vector<Code> all;
  for (const Instr& i : procedure.code) {
    Code c;
    c.op = i.op, c.players = i.players, c.player = i.player, c.apply = i.apply, c.activation = i.activation;
    c.adjoint = i.adjoint, c.accumulate = i.accumulate, c.traced = i.traced;
    c.order = i.order, c.index = i.index;
    c.rows = i.rows, c.columns = i.columns, c.depth = i.depth, c.rows0 = i.rows0, c.rows1 = i.rows1;
    c.fakes = i.fakes, c.reals = i.reals;
    c.window = i.window, c.map = i.map;
    for (const Ref* r : {&i.b0, &i.b1, &i.out})
      if (*r && r->tensor >= 0 && c.tensor < 0) c.tensor = r->tensor;
    if (i.out) c.elements = static_cast<int32_t>(procedure.values[i.out.value].elements);
    for (int n = 0; n < 2; ++n) c.attributes[n] = static_cast<float>(i.attributes[n]);
    const std::pair<const Ref*, Operand*> operands[] = {{&i.a0, &c.a0},
                                                        {&i.b0, &c.b0},
                                                        {&i.a1, &c.a1},
                                                        {&i.b1, &c.b1},
                                                        {&i.bias, &c.bias},
                                                        {&i.scale, &c.scale},
                                                        {&i.dot, &c.dot},
                                                        {&i.ref, &c.ref},
                                                        {&i.q, &c.q},
                                                        {&i.g, &c.g},
                                                        {&i.theta, &c.theta},
                                                        {&i.moment, &c.moment},
                                                        {&i.out, &c.out},
                                                        {&i.rate_scale, &c.rate_scale},
                                                        {&i.pre, &c.pre},
                                                        {&i.moment_next, &c.moment_next},
                                                        {&i.dot_out, &c.dot_out},
                                                        {&i.c_g, &c.c_g},
                                                        {&i.c_d, &c.c_d},
                                                        {&i.cc_g, &c.cc_g},
                                                        {&i.cc_d, &c.cc_d},
                                                        {&i.stats, &c.stats},
                                                        {&i.v, &c.v},
                                                        {&i.v_moment, &c.v_moment},
                                                        {&i.d_scale, &c.d_scale},
                                                        {&i.scratch, &c.scratch}};
    for (auto [from, to] : operands) *to = operand(*from, procedure, layout, placement, slice);
    all.push_back(c);
  }
  return all;
}

}  // namespace pymgan::cuda
