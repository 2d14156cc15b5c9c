#include "layout.h"

namespace pymgan {
namespace {

std::vector<Stage> stages_of(const Network& net, Player player, std::vector<Tensor>& tensors) {
  std::vector<Stage> stages;
  bool open = false;  // the last stage is a product that can still take an activation
  for (const PlanRow& row : net.rows) {
    const int in = static_cast<int>(row.in_features()), out = static_cast<int>(row.out_features());
    switch (row.kind) {
      case LayerKind::reshape:
        break;
      case LayerKind::linear: {
        Tensor tensor{player, out, in, row.weight, row.bias};
        stages.push_back({static_cast<int>(tensors.size()), Activation::identity, {}, in, out});
        tensors.push_back(tensor);
        open = true;
        break;
      }
      case LayerKind::activation:
        if (row.activation == Activation::identity) break;
        if (!open) stages.push_back({-1, Activation::identity, {}, in, out});
        stages.back().activation = row.activation;
        stages.back().attributes = row.attributes;
        open = false;
        break;
    }
  }
  return stages;
}

}  // namespace

Layout::Layout(const Plan& plan, const Target& chosen) : target(chosen) {
  stages[0] = stages_of(plan.generator, Player::generator, tensors);
  stages[1] = stages_of(plan.discriminator, Player::discriminator, tensors);
  for (Tensor& t : tensors) {
    int64_t& at = size[index(t.player)];
    t.by_rows = target.packed && t.n <= target.narrow;
    t.packed_weight = at;
    at += t.by_rows ? t.n * target.pad(t.k) : target.pad(t.n) * t.k;
    if (t.bias >= 0) {
      t.packed_bias = at;
      at += target.pad(t.n);
    }
  }
  for (int64_t& s : size) s = target.pad(s);
  start = {0, size[0]};
  total = size[0] + size[1];
}

}  // namespace pymgan
