#include "layout.h"

#include <numeric>
#include <stdexcept>
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
  if (stages[0].back().to != x && !(stages[0].back().to.flat() && x.flat()))
    throw std::invalid_argument("plan: expected the generator's output to lie as the discriminator's input");
  add_network(plan.discriminator, Player::discriminator);
  for (Tensor& t : tensors) {
    int64_t& at = size[index(t.player)];
    t.by_rows = target.packed && t.n <= target.narrow;
    t.packed_weight = at;
    at += packed_weight_size(t);
    if (t.bias >= 0) {
      t.packed_bias = at;
      at += packed_bias_size(t);
    }
  }
  for (int64_t& s : size) s = target.pad(s);
  start = {0, size[0]};
  total = size[0] + size[1];
}

int64_t Layout::packed_weight_size(const Tensor& t) const {
  return t.by_rows ? t.n * target.pad(t.inputs()) : target.pad(t.n) * t.inputs();
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

void Layout::add_network(const Network& net, Player player) {
  auto& own = stages[index(player)];
  Form form = form_of(net.in_shape);
  bool open = false;  // the last stage is a product that can still take an activation
  for (size_t i = 0; i < net.rows.size(); ++i) {
    const PlanRow& row = net.rows[i];
    switch (row.kind) {
      case LayerKind::reshape:
        // A sample that is flattened stays as it lies; the Linear after it knows.
        if (const Form wanted = form_of(row.out_shape);
            row.out_shape.size() > 1 && wanted != form && !(wanted.flat() && form.flat()))
          throw std::invalid_argument("plan: layer " + row.name +
                                      ": expected a Linear before a sample is unflattened, got another layer");
        break;
      case LayerKind::linear:
      case LayerKind::convolution: {
        const bool linear = row.kind == LayerKind::linear;
        const Form to = linear ? form_after(net, i) : form_of(row.out_shape);
        if (linear)
          add_linear(row, player, form, to);
        else
          add_convolution(row, player, form, to);
        const int tensor = static_cast<int>(tensors.size()) - 1;
        own.push_back({tensor, Activation::identity, {}, form, to, form.stored(), to.stored(), tensors[tensor].window});
        form = to;
        open = true;
        break;
      }
      case LayerKind::activation:
        if (row.activation == Activation::identity) break;
        if (!open) own.push_back({-1, Activation::identity, {}, form, form, form.stored(), form.stored(), -1});
        own.back().activation = row.activation;
        own.back().attributes = row.attributes;
        open = false;
        break;
    }
  }
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
  if (from != form_of(row.in_shape))
    throw std::invalid_argument("plan: layer " + row.name + ": expected its input to lie as an image");
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

}  // namespace pymgan
