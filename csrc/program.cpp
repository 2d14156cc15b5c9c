#include "program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "game.h"

namespace pymgan {

const char* name(Op op) {
  static const char* const names[] = {"noise",   "load",        "input",     "fill",    "spread", "rate",    "product",
                                      "outer",   "elementwise", "row_dot",   "combine", "mix",    "draw",    "augment",
                                      "penalty", "head",        "transpose", "check",   "update", "adjoint", "output"};
  return names[static_cast<int>(op)];
}

const char* name(Slot slot) {
  static const char* const names[] = {"temp",       "residual",  "phi",      "phi_next", "moment",   "moment_next",
                                      "rate_scale", "cotangent", "v_moment", "d_scale",  "gradient", "statistics"};
  return names[static_cast<int>(slot)];
}

Program::Program(const Plan& plan, const Game& game, const Target& target)
    : plan_(plan), game_(game), layout_(plan, target) {
  plan_.validate();
  if (game.fakes < 1 || game.reals < 1)
    throw std::invalid_argument("program: expected at least one fake and one real sample a step, got " +
                                std::to_string(game.fakes) + " and " + std::to_string(game.reals));
  if (game.optimisers.empty()) throw std::invalid_argument("program: expected at least one optimiser, got none");
  for (double fraction : {game.momentum, game.betas[0], game.betas[1]})
    if (!(fraction >= 0 && fraction < 1))
      throw std::invalid_argument("program: expected momentum and betas in [0, 1), got " + std::to_string(fraction));
  if (!(game.eps > 0)) throw std::invalid_argument("program: expected eps > 0, got " + std::to_string(game.eps));
  if (!(game.smoothing >= 0 && game.smoothing < 1))
    throw std::invalid_argument("program: expected label smoothing in [0, 1)");
  if (!(game.penalty.weight >= 0) || !std::isfinite(game.penalty.weight) || game.penalty.every < 1)
    throw std::invalid_argument("program: expected a penalty with a finite weight from 0, every 1 or more steps");
  if (game.penalty.between() && game.fakes != game.reals)
    throw std::invalid_argument("program: expected as many fake as real samples with a penalty between them, got " +
                                std::to_string(game.fakes) + " and " + std::to_string(game.reals));
  if (game.augmentation.any() && layout_.sample.size() < 2)
    throw std::invalid_argument("program: expected samples with extents to augment, got " +
                                std::to_string(layout_.x.features()) + " numbers");
  if (!(game.instance_noise >= 0) || !std::isfinite(game.instance_noise))
    throw std::invalid_argument("program: expected instance noise of a finite deviation from 0, got " +
                                std::to_string(game.instance_noise));
  if (game_.keep_all) {
    // What the general pull-back reads is what a step keeps.
    Graph graph("pull", layout_, moments());
    graph.keep = Graph::Keep::read;
    const std::vector<Halves> everything{Halves{}};
    lower_pull(graph, game_, {everything, true, true, false, true});
    const Procedure general = graph.finish();
    const auto names = graph.residuals_read();
    for (const Value& v : general.values)
      if (names.contains(v.name)) {
        residuals_[v.name] = residual_elements_;
        residual_elements_ += (v.elements + 15) / 16 * 16;
      }
  }
  for (bool penalised : {false, true}) {
    if (penalised && !has_penalty()) continue;
    Graph graph("step", layout_, moments());
    graph.residuals = &residuals_;
    graph.keep = game_.keep_all ? Graph::Keep::write : Graph::Keep::none;
    lower_step(graph, game_, fused(), penalised);
    steps_[penalised] = std::make_unique<Procedure>(graph.finish());
  }
}

int Program::moments() const {
  int most = 0;
  for (Optimiser kind : game_.optimisers) most = std::max(most, moments_of(kind));
  return most;
}

bool Program::reads_gradient() const {
  return std::any_of(game_.optimisers.begin(), game_.optimisers.end(), adjoint_reads_gradient);
}

const Procedure& Program::pull(const std::vector<Halves>& cotangents, bool rates, bool scaled, bool penalised) {
  std::lock_guard lock(mutex_);
  penalised = penalised && has_penalty();
  const bool direct = !rates && !scaled && plain(), gradient = rates || reads_gradient();
  auto& made = pulls_[{cotangents, rates, direct, penalised}];
  if (!made) {
    Graph graph("pull", layout_, moments());
    graph.residuals = &residuals_;
    graph.keep = game_.keep_all ? Graph::Keep::read : Graph::Keep::none;
    lower_pull(graph, game_, {cotangents, rates, gradient, direct, penalised});
    made = std::make_unique<Procedure>(graph.finish());
  }
  return *made;
}

const Procedure& Program::gradients(bool full) {
  std::lock_guard lock(mutex_);
  auto& made = gradients_[full];
  if (!made) {
    Graph graph(full ? "gradients_full" : "gradients", layout_);
    lower_gradients(graph, game_, full);
    made = std::make_unique<Procedure>(graph.finish());
  }
  return *made;
}

const Procedure& Program::generator(int batch, bool vjp) {
  std::lock_guard lock(mutex_);
  auto& made = generators_[{vjp, batch}];
  if (!made) {
    Graph graph(vjp ? "generate_vjp" : "generate", layout_);
    lower_generator(graph, batch, vjp);
    made = std::make_unique<Procedure>(graph.finish());
  }
  return *made;
}

}  // namespace pymgan
