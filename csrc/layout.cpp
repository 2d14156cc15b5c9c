#include "layout.h"

#include <numeric>
#include <utility>

namespace pymgan {
namespace {

Form flat_form(int64_t features) {
  const int n = static_cast<int>(features);
  return {n, 1, n};
}

// Every site of the input is a tap of every output.
Window all_sites(int sites) {
  std::vector<int32_t> from(sites);
  std::iota(from.begin(), from.end(), 0);
  return {sites, 1, sites, std::move(from)};
}

// From each input, `in` sites, to each of `out` sites by taps of its own.
Window own_taps(int in, int out) {
  const int taps = in * out;
  std::vector<int32_t> from(static_cast<size_t>(out) * taps, -1);
  for (int o = 0; o < out; ++o)
    for (int i = 0; i < in; ++i) from[static_cast<size_t>(o) * taps + o * in + i] = i;
  return {in, out, taps, std::move(from)};
}

}  // namespace

Layout::Layout(const Plan& plan, const Target& chosen)
    : target(chosen), spatial_(plan.generator.convolves() || plan.discriminator.convolves()) {
  z = form_of(plan.generator.in_shape);
  x = form_of(plan.discriminator.in_shape);
  sample = plan.discriminator.in_shape;
  add_network(plan.generator, Player::generator);
  add_network(plan.discriminator, Player::discriminator);
  for (Tensor& t : tensors) {
    int64_t& at = size[index(t.player)];
    t.by_rows = (target.by_rows || (target.packed && t.n <= target.narrow)) && !t.diagonal();
    t.packed_weight = at;
    at += packed_weight_size(t);
    if (t.bias >= 0) {
      t.packed_bias = at;
      at += packed_bias_size(t);
    }
  }
  for (SpectralNorm& s : spectral) {
    const Tensor& t = tensors[s.tensor];
    s.u = spectral_size;
    s.v = s.u + target.pad(t.n);
    spectral_size = s.v + target.pad(t.inputs());
  }
  for (int64_t& s : size) s = target.pad(s);
  start = {0, size[0]};
  total = size[0] + size[1];
}

int64_t Layout::packed_weight_size(const Tensor& t) const {
  return t.by_rows ? t.n * target.pad(t.inputs()) : target.pad(t.n) * t.inputs();  // of a diagonal: one input
}

Form Layout::form_of(const std::vector<int64_t>& shape) const {
  if (!spatial_ || shape.size() < 2) return flat_form(numel(shape));
  const int channels = static_cast<int>(shape[0]), sites = static_cast<int>(numel(shape) / channels);
  return {channels, sites, site_ld(sites, channels)};
}

// How the output of a Linear lies: as the shape that it is unflattened to, if it is.
Form Layout::form_after(const Network& net, size_t row) const {
  for (size_t i = row + 1; i < net.rows.size(); ++i) {
    if (net.rows[i].kind != LayerKind::activation && net.rows[i].kind != LayerKind::reshape) break;
    if (net.rows[i].out_shape.size() > 1) return form_of(net.rows[i].out_shape);
  }
  return flat_form(net.rows[row].out_features());
}

int Layout::add_stage(Player player, Stage stage, const Form& from, const Form& to) {
  stage.from = from, stage.to = to;
  stage.in = from.stored(), stage.out = to.stored();
  if (stage.tensor >= 0) stage.window = tensors[stage.tensor].window;
  auto& own = stages[index(player)];
  own.push_back(stage);
  return static_cast<int>(own.size()) - 1;
}

int Layout::add_map(FixedMap map) {
  FixedMap back = map.transposed();
  maps.push_back({std::move(map), std::move(back)});
  return static_cast<int>(maps.size()) - 1;
}

// The stage's output, or a copy of it in another order.
int Layout::lay_out_as(Player player, int stage, const Form& from, const Form& to) {
  if (from.lies_as(to)) return stage;
  std::vector<FixedMap::Link> links;
  for (int f = 0; f < from.features(); ++f) links.push_back({to.element(f), from.element(f), 1.0});
  Stage copy;
  copy.kind = Stage::Kind::fixed;
  copy.input = stage;
  copy.map = add_map(FixedMap(from.stored(), to.stored(), std::move(links)));
  return add_stage(player, copy, from, to);
}

int Layout::add_groups(const PlanRow& row, const Form& form) {
  Groups g;
  g.count = static_cast<int>(row.kinds());
  g.of.assign(form.stored(), -1);
  std::vector<int> size(g.count);
  for (int32_t of : row.of) ++size[of];
  std::vector<FixedMap::Link> mean, spread, less;
  for (int f = 0; f < form.features(); ++f) {
    const int32_t of = row.of[f], at = form.element(f);
    g.of[at] = of;
    mean.push_back({of, at, 1.0 / size[of]});
    spread.push_back({at, of, 1.0});
    less.push_back({at, of, -1.0});
  }
  const int in = form.stored();
  g.spread = add_map(FixedMap(g.count, in, std::move(spread)));
  g.mean = add_map(FixedMap(in, g.count, std::move(mean)));
  g.less = add_map(FixedMap(g.count, in, std::move(less)));
  groups.push_back(std::move(g));
  return static_cast<int>(groups.size()) - 1;
}

void Layout::add_network(const Network& net, Player player) {
  // Of every row, and in front of them of the input.
  std::vector<int> stage_of{-1}, origin{0}, readers(net.rows.size() + 1);  // origin: the row whose value it passes on
  std::vector<Form> form_of_row{form_of(net.in_shape)};
  for (const PlanRow& row : net.rows) {
    const bool passes =
        row.kind == LayerKind::reshape || (row.kind == LayerKind::activation && row.activation == Activation::identity);
    const int before = origin[row.input + 1];
    origin.push_back(passes ? before : static_cast<int>(origin.size()));
    if (passes) continue;
    ++readers[before];
    if (row.kind == LayerKind::add) ++readers[origin[row.other + 1]];
  }
  for (size_t i = 0; i < net.rows.size(); ++i) {
    const PlanRow& row = net.rows[i];
    Stage stage;
    stage.input = stage_of[row.input + 1];
    Form from = form_of_row[row.input + 1], to = from;
    int made = -1;
    switch (row.kind) {
      case LayerKind::reshape:
        // A sample that is flattened stays as it lies; the layer after it knows.
        if (row.out_shape.size() > 1) to = form_of(row.out_shape);
        made = lay_out_as(player, stage.input, from, to);
        break;
      case LayerKind::convolution:
        to = form_of(row.in_shape);
        stage.input = lay_out_as(player, stage.input, from, to);
        from = std::exchange(to, form_of(row.out_shape));
        add_convolution(row, player, from, to);
        add_spectral(row);
        stage.tensor = static_cast<int>(tensors.size()) - 1;
        break;
      case LayerKind::linear:
        // Where sites have taps of their own a weight is not one matrix.
        to = row.u < 0 ? form_after(net, i) : flat_form(row.out_features());
        add_linear(row, player, from, to);
        add_spectral(row);
        stage.tensor = static_cast<int>(tensors.size()) - 1;
        break;
      case LayerKind::diagonal:
      case LayerKind::prelu:
        if (row.kind == LayerKind::prelu) stage.kind = Stage::Kind::prelu;
        add_diagonal(row, player, from);
        stage.tensor = static_cast<int>(tensors.size()) - 1;
        break;
      case LayerKind::activation: {
        made = stage.input;
        if (row.activation == Activation::identity) break;
        auto& own = stages[index(player)];
        const bool open = made >= 0 && made + 1 == static_cast<int>(own.size()) &&
                          readers[origin[row.input + 1]] == 1 && own[made].kind == Stage::Kind::product &&
                          own[made].activation == Activation::identity;
        if (!open) made = add_stage(player, stage, from, to);
        own[made].activation = row.activation;
        own[made].attributes = row.attributes;
        break;
      }
      case LayerKind::normalise:
      case LayerKind::softmax:
        stage.kind = row.kind == LayerKind::softmax ? Stage::Kind::softmax : Stage::Kind::normalise;
        stage.map = add_groups(row, from);
        stage.attributes = row.attributes;
        break;
      case LayerKind::fixed: {
        to = form_of(row.out_shape);
        std::vector<FixedMap::Link> links;
        for (int f = 0; f < to.features(); ++f)
          for (int32_t at = row.starts[f]; at < row.starts[f + 1]; ++at)
            links.push_back({to.element(f), from.element(row.sources[at]), row.factors[at]});
        stage.kind = Stage::Kind::fixed;
        stage.map = add_map(FixedMap(from.stored(), to.stored(), std::move(links)));
        break;
      }
      case LayerKind::add:
        stage.kind = Stage::Kind::add;
        stage.other = lay_out_as(player, stage_of[row.other + 1], form_of_row[row.other + 1], to);
        break;
    }
    const bool stays = row.kind == LayerKind::reshape || row.kind == LayerKind::activation;
    stage_of.push_back(stays ? made : add_stage(player, stage, from, to));
    form_of_row.push_back(to);
  }
  // G's samples are D's input; D's score is one number.
  if (player == Player::generator) lay_out_as(player, stage_of.back(), form_of_row.back(), x);
}

void Layout::add_diagonal(const PlanRow& row, Player player, const Form& form) {
  Tensor t;
  t.player = player;
  t.in = t.out = form.stored();
  t.n = static_cast<int>(row.kinds());
  t.k = 1;
  t.weight = row.weight;
  t.bias = row.bias;
  t.bias_ld = t.n;
  t.of.assign(form.stored(), -1);
  for (int f = 0; f < form.features(); ++f) t.of[form.element(f)] = row.of[f];
  tensors.push_back(std::move(t));
}

void Layout::add_linear(const PlanRow& row, Player player, const Form& from, const Form& to) {
  Tensor t;
  t.player = player;
  t.in = from.stored();
  t.out = to.stored();
  t.weight = row.weight;
  t.bias = row.bias;
  if (from.flat() && to.flat()) {
    t.n = to.features(), t.k = from.features();
    t.weight_n = t.k;
    t.bias_ld = t.n;
  } else {
    const int inputs = from.features();
    const bool one = to.flat();
    t.n = one ? to.features() : to.channels;
    t.k = from.channels;
    const int out_sites = one ? 1 : to.sites;
    Window window = out_sites == 1 ? all_sites(from.sites) : own_taps(from.sites, out_sites);
    t.taps = window.taps;
    t.weight_n = int64_t{out_sites} * inputs;
    t.weight_k = from.sites;
    t.weight_tap.clear();
    for (int o = 0; o < out_sites; ++o)
      for (int i = 0; i < from.sites; ++i) t.weight_tap.push_back(int64_t{o} * inputs + i);
    t.bias_sites = out_sites;
    t.bias_ld = one ? t.n : to.ld;
    t.window = static_cast<int>(windows.size());
    windows.push_back({window, window.seen_from_input()});
  }
  tensors.push_back(std::move(t));
}

void Layout::add_convolution(const PlanRow& row, Player player, const Form& from, const Form& to) {
  Tensor t;
  t.player = player;
  t.in = from.stored();
  t.out = to.stored();
  t.weight = row.weight;
  t.bias = row.bias;
  t.n = to.channels;
  t.k = from.channels;
  t.taps = static_cast<int>(numel(row.kernel));
  t.weight_n = row.transposed ? t.taps : int64_t{t.k} * t.taps;
  t.weight_k = row.transposed ? int64_t{t.n} * t.taps : t.taps;
  t.weight_tap.resize(t.taps);
  std::iota(t.weight_tap.begin(), t.weight_tap.end(), 0);
  t.bias_ld = t.n;
  t.window = static_cast<int>(windows.size());
  Window window = convolution(row);
  Window back = window.seen_from_input();
  windows.push_back({std::move(window), std::move(back)});
  tensors.push_back(std::move(t));
}

// Of the tensor that was added last.
void Layout::add_spectral(const PlanRow& row) {
  if (row.u >= 0)
    spectral.push_back({static_cast<int>(tensors.size()) - 1, row.u, -1, -1, row.iterations, row.attributes[0]});
}

}  // namespace pymgan
