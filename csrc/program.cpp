#include "program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "game.h"

namespace pymgan {

const char* name(Op op) {
  // clang-format off
  static const char* const names[] = {
      "noise", "load", "input", "fill", "add", "spread", "rate", "product", "diagonal", "fixed", "softmax",
      "outer", "elementwise", "row_dot", "combine", "mix", "draw", "augment", "penalty", "head", "transpose",
      "check", "update", "spectral_iterate", "spectral_weights", "spectral_tangent", "spectral_adjoint",
      "adjoint", "output"
  };
  // clang-format on
  return names[static_cast<int>(op)];
}

const char* name(Slot slot) {
  static const char* const names[] = {"temp",        "residual", "phi",           "phi_next",   "moment",
                                      "moment_next", "spectral", "spectral_next", "rate_scale", "cotangent",
                                      "v_moment",    "d_scale",  "gradient",      "statistics"};
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
  for (bool extra : {false, true})
    for (bool penalised : {false, true})
      if (const StepForm form{penalised, extra}; known(form) == form) forms_.push_back(form);
  if (game_.keep_all) place_residuals();
  for (const StepForm& form : forms_) {
    Graph graph("step", layout_, moments());
    graph.residuals = &residuals_;
    graph.keep = game_.keep_all ? Graph::Keep::write : Graph::Keep::none;
    lower_step(graph, game_, fused(), form);
    steps_[form] = std::make_unique<Procedure>(graph.finish());
  }
}

// What the general pull-backs read is what a step keeps.
void Program::place_residuals() {
  for (const StepForm& form : forms_) {
    if (form.penalised != has_penalty()) continue;
    Graph graph("pull", layout_, moments());
    graph.keep = Graph::Keep::read;
    const std::vector<Halves> everything{Halves{}};
    lower_pull(graph, game_, {everything, true, true, false, form});
    const Procedure general = graph.finish();
    const auto names = graph.residuals_read();
    for (const Value& v : general.values)
      if (names.contains(v.name) && residuals_.try_emplace(v.name, residual_elements_).second)
        residual_elements_ += (v.elements + 15) / 16 * 16;
  }
}

StepForm Program::known(StepForm form) const {
  const auto extra = std::count(game_.optimisers.begin(), game_.optimisers.end(), Optimiser::extragradient);
  const bool others = extra < static_cast<int64_t>(game_.optimisers.size());
  return {form.penalised && has_penalty(), extra > 0 && (form.extra || !others)};
}

int64_t Program::step_arena() const {
  int64_t most = 0;
  for (const auto& [form, procedure] : steps_) most = std::max(most, procedure->arena);
  return most;
}

int Program::moments() const {
  int most = 0;
  for (Optimiser kind : game_.optimisers) most = std::max(most, moments_of(kind));
  return most;
}

bool Program::reads_gradient() const {
  return std::any_of(game_.optimisers.begin(), game_.optimisers.end(), adjoint_reads_gradient);
}

const Procedure& Program::pull(const std::vector<Halves>& cotangents, bool rates, bool scaled, StepForm form) {
  std::lock_guard lock(mutex_);
  form = known(form);
  const bool direct = !rates && !scaled && plain() && !has_spectral(), gradient = rates || reads_gradient();
  auto& made = pulls_[{cotangents, rates, direct, form}];
  if (!made) {
    Graph graph("pull", layout_, moments());
    graph.residuals = &residuals_;
    graph.keep = game_.keep_all ? Graph::Keep::read : Graph::Keep::none;
    lower_pull(graph, game_, {cotangents, rates, gradient, direct, form});
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
