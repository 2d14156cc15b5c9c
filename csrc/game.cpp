// The game's procedures: one inner step, its pull-back, gradients and samples.
#include "game.h"

#include "players.h"

namespace pymgan {
namespace {

using namespace lowering;

void lower_simultaneous_step(GameLowering& l, const Game& game) {
  Graph& graph = l.graph;
  l.looks = true;
  Scored s = l.score("d", l.play(l.phi, game.reals), l.phi, game.reals, game.fakes, kBoth);
  l.back_through_generator(s);
  const Ref next = graph.external(Slot::phi_next, "phi_next");
  for (Player p : kPlayers) {
    Tag tag(graph, bit(p));
    l.descend(p, s, next);
  }
}

// D at (G_k, D_k), then G at (G_k, D_{k+1}); both see the same samples of G.
void lower_alternating_step(GameLowering& l, const Game& game) {
  Graph& graph = l.graph;
  const Ref next = graph.external(Slot::phi_next, "phi_next");
  l.looks = true;
  const Batch batch = l.play(l.phi, game.reals);
  {
    Tag tag(graph, kDiscriminator);
    Scored s = l.score("d", batch, l.phi, game.reals, 0, kDiscriminator);
    l.descend(D, s, next);
  }
  Tag tag(graph, kGenerator);
  Scored s = l.score("d'", batch, next, game.relative() ? game.reals : 0, game.fakes, kGenerator);
  l.back_through_generator(s);
  l.descend(G, s, next);
}

void lower_simultaneous_pull(GameLowering& l, const Game& game, const Pull& pull) {
  Scored s = l.score("d", l.play(l.phi, game.reals), l.phi, game.reals, game.fakes, kBoth);
  l.back_through_generator(s);
  Ref f[2];
  if (pull.gradient)
    for (Player p : kPlayers) {
      Tag tag(l.graph, bit(p));
      f[index(p)] = l.gradient(p, s);
    }
  const GameLowering::Factors factors = l.factors(s, kBoth, pull.direct);
  for (int c = 0; c < static_cast<int>(pull.cotangents.size()); ++c) {
    const auto [support, keep] = pull.cotangents[c];
    const std::string suffix = "#" + std::to_string(c);
    const Ref v = l.direction(c, suffix);
    Ref w[2];
    for (Player p : kPlayers)
      if (support & bit(p)) w[index(p)] = pull.direct ? v : l.adjoint(p, c, v, f[index(p)], pull.rates, suffix);
    l.product(s, factors, v, w[0], w[1], keep, suffix);
  }
}

void lower_alternating_pull(GameLowering& l, const Game& game, const Pull& pull) {
  Graph& graph = l.graph;
  const Batch batch = l.play(l.phi, game.reals);
  Scored first, second;
  Ref f[2], next;
  {
    Tag tag(graph, kDiscriminator);
    first = l.score("d", batch, l.phi, game.reals, game.fakes, kDiscriminator);
    const bool again = graph.keep != Graph::Keep::read;  // D_{k+1}: made again, or read back
    const Ref gradient = pull.gradient || again ? l.gradient(D, first) : Ref{};
    if (pull.gradient) f[index(D)] = gradient;
    next = again ? graph.parameters("D_{k+1}", D) : graph.external(Slot::phi_next, "phi_next");
    if (again) l.update(D, gradient, next, {});
  }
  {
    Tag tag(graph, kGenerator);
    second = l.score("d'", batch, next, game.relative() ? game.reals : 0, game.fakes, kGenerator);
    l.back_through_generator(second);
    if (pull.gradient) f[index(G)] = l.gradient(G, second);
  }
  const GameLowering::Factors of_second = l.factors(second, kGenerator, pull.direct),
                              of_first = l.factors(first, kDiscriminator, pull.direct);
  for (int c = 0; c < static_cast<int>(pull.cotangents.size()); ++c) {
    auto [support, keep] = pull.cotangents[c];
    const std::string suffix = "#" + std::to_string(c);
    const Ref v = l.direction(c, suffix);
    if (support & kGenerator) {
      Tag tag(graph, kGenerator);
      Ref w = pull.direct ? v : l.adjoint(G, c, v, f[index(G)], pull.rates, suffix);
      // D's half is wanted even where it is not kept: D's own update comes next.
      l.product(second, of_second, v, w, {}, keep | kDiscriminator, suffix + "a");
    }
    Tag tag(graph, kDiscriminator);
    Ref w = pull.direct ? v : l.adjoint(D, c, v, f[index(D)], pull.rates, suffix);
    l.product(first, of_first, v, {}, w, keep, suffix + "b");
  }
}

// (dL_G/dtheta_G, dL_D/dtheta_D); full: the whole gradient of L_G, then that of L_D.
void lower_gradients_of(GameLowering& l, const Game& game, bool full) {
  Graph& graph = l.graph;
  l.looks = true;
  Scored s = l.score("d", l.play(l.phi, game.reals), l.phi, game.reals, game.fakes, kBoth);
  const Ref out = graph.external(Slot::gradient, "gradient");
  l.back_through_generator(s);
  l.write(s, l.gradient_parts(G, s), out, false);
  if (!full) return l.write(s, l.gradient_parts(D, s), out, false);
  const auto of_d = contributions(graph, s.d.tape, s.d.cotangents, s.d.parameters);
  l.write(s, scaled(graph, of_d, s.c_g, game.relative() ? s.rows() : game.fakes, ".c_g"), out, false);
  const Ref other = graph.external(Slot::gradient, "gradient_D", 1);
  NodeId seed = graph.scale("g_of_d.seed", s.e(), s.c_d);
  if (l.penalised) seed = graph.add("g_of_d.seed", seed, l.penalty_by_fakes(s));
  const Jets cotangents = pull_back(graph, s.g.tape, {{s.g.output, seed}}, {{s.g.input, 0}}, l.phi, "d");
  l.write(s, contributions(graph, s.g.tape, cotangents, l.phi), other, false);
  l.write(s, l.gradient_parts(D, s), other, false);
}

}  // namespace

void lower_step(Graph& graph, const Game& game, bool fused, StepForm form) {
  if (form.extra) return lower_extragradient_step(graph, game, form.penalised);
  GameLowering l(graph, game, true, fused, form.penalised);
  (game.alternating ? lower_alternating_step : lower_simultaneous_step)(l, game);
}

void lower_pull(Graph& graph, const Game& game, const Pull& pull) {
  if (pull.form.extra) return lower_extragradient_pull(graph, game, pull);
  GameLowering l(graph, game, false, false, pull.form.penalised);
  (game.alternating ? lower_alternating_pull : lower_simultaneous_pull)(l, game, pull);
}

void lower_gradients(Graph& graph, const Game& game, bool full) {
  GameLowering l(graph, game, false, false, true);
  lower_gradients_of(l, game, full);
}

void lower_generator(Graph& graph, int batch, bool vjp) {
  const Layout& layout = graph.layout;
  const auto& stages = layout.stages[index(G)];
  const Ref phi = graph.external(Slot::phi, "phi");
  auto caller = [&](const char* name, int number, int columns) {
    Instr in;
    in.op = Op::input;
    in.index = number;
    in.rows = batch;
    in.columns = columns;
    in.out = graph.rows(name, batch, columns);
    graph.emit(in);
    return graph.leaf(in.out, batch, columns);
  };
  const Pass g = forward(graph, G, "g", phi, caller("z", 0, stages.front().in));
  if (vjp) {
    const NodeId cotangent = caller("dx", 1, stages.back().out);
    const Jets cotangents = pull_back(graph, g.tape, {{g.output, cotangent}}, {{g.input, 0}}, phi, "");
    write_gradient(graph, contributions(graph, g.tape, cotangents, phi), graph.external(Slot::gradient, "gradient"),
                   false);
    return;
  }
  Instr out;
  out.op = Op::output;
  out.rows = batch;
  out.columns = stages.back().out;
  out.a0 = graph.ref(g.output);
  graph.emit(out);
}

}  // namespace pymgan
