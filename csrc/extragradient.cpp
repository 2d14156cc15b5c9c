// Extragradient (Korpelevich 1976; for GANs Gidel et al. 2019, arXiv 1802.10551): a step looks ahead and moves by what
// it sees there,
//   phi_half = phi - rate scale F(phi),   phi' = phi - rate scale F(phi_half),
// on one batch. In alternating play each player does so in its turn: D against G, then G against the new D.
//
// Pull-back: with w' = -rate scale v, a = J_F(phi_half)^T w' is the cotangent of phi_half, and with w = -rate scale a
//   v_k = v + a + J_F(phi)^T w.
#include "players.h"

namespace pymgan {
namespace {

using namespace lowering;

class ExtragradientLowering {
 public:
  ExtragradientLowering(Graph& graph, const Game& game, bool step, bool penalised)
      : graph(graph), game(game), l(graph, game, step, false, penalised) {}

  void step() {
    l.looks = true;
    const Ref next = graph.external(Slot::phi_next, "phi_next");
    auto move = [&](Player p) {
      l.update(p, second[index(p)].f, next, graph.moments(Slot::moment_next, "moment_next"));
    };
    if (!game.alternating) {
      evaluate_together();
      for (Player p : kPlayers) move(p);
      return;
    }
    evaluate_discriminator();
    move(D);
    evaluate_generator(next);
    move(G);
  }

  void pull(const Pull& pull) {
    if (!game.alternating) {
      evaluate_together();
    } else {
      evaluate_discriminator();
      const bool again = graph.keep != Graph::Keep::read;  // D_{k+1}: made again, or read back
      const Ref next = again ? graph.parameters("D_{k+1}", D) : graph.external(Slot::phi_next, "phi_next");
      if (again) l.update(D, second[index(D)].f, next, {});
      evaluate_generator(next);
    }
    for (int c = 0; c < static_cast<int>(pull.cotangents.size()); ++c) {
      const auto [support, keep] = pull.cotangents[c];
      const std::string suffix = "#" + std::to_string(c);
      if (!game.alternating) {
        pull_of(kBoth, {support, keep}, c, pull.rates, suffix);
        continue;
      }
      // D's half is wanted even where it is not kept: D's own update comes next.
      if (support & kGenerator)
        pull_of(kGenerator, {kGenerator, uint8_t(keep | kDiscriminator)}, c, pull.rates, suffix);
      pull_of(kDiscriminator, {kDiscriminator, keep}, c, pull.rates, suffix);
    }
  }

 private:
  // Of one player's gradient.
  struct Evaluation {
    Scored s;
    Ref f;
  };

  void evaluate_together() {
    auto at = [&](Ref g, Ref d, Evaluation* evaluations) {
      Scored s = l.score("d", l.play(g, game.reals), d, game.reals, game.fakes, kBoth);
      l.back_through_generator(s);
      for (Player p : kPlayers) evaluations[index(p)] = differentiate(p, s);
    };
    at(l.phi, l.phi, first);
    Ref half[2];
    for (Player p : kPlayers) half[index(p)] = half_step(p);
    at(half[index(G)], half[index(D)], second);
  }

  void evaluate_discriminator() {
    batch = l.play(l.phi, game.reals);
    Tag tag(graph, kDiscriminator);
    auto at = [&](Ref d) { return differentiate(D, l.score("d", batch, d, game.reals, 0, kDiscriminator)); };
    first[index(D)] = at(l.phi);
    second[index(D)] = at(half_step(D));
    l.prefix.clear();
  }

  // Against D's parameters after its step.
  void evaluate_generator(Ref d) {
    Tag tag(graph, kGenerator);
    const int reals = game.relative() ? game.reals : 0;
    auto at = [&](const Batch& batch) {
      Scored s = l.score("d'", batch, d, reals, game.fakes, kGenerator);
      l.back_through_generator(s);
      return differentiate(G, s);
    };
    first[index(G)] = at(batch);
    second[index(G)] = at(l.play(half_step(G), reals));
    l.prefix.clear();
  }

  Evaluation differentiate(Player p, const Scored& s) {
    Tag tag(graph, bit(p));
    const Ref f = l.gradient(p, s);
    if (l.looks) l.check(p, f);
    return {s, f};
  }

  // The player's parameters at the half point, where the second evaluation begins.
  Ref half_step(Player p) {
    Primal primal(graph);
    Tag tag(graph, bit(p));
    l.prefix = "half.";
    const Ref half = graph.kept(graph.parameters(l.prefix + (p == G ? "G" : "D"), p));
    l.update(p, first[index(p)].f, half, {});
    if (l.looks) l.check(p, half);
    return half;
  }

  // v of the parameters after the step of `players` becomes that of those before it.
  void pull_of(uint8_t players, Halves halves, int c, bool rates, const std::string& suffix) {
    Tag tag(graph, players);
    const Ref v = l.direction(c, suffix);
    auto back = [&](const Evaluation* evaluations, Ref from, Ref to, uint8_t support, uint8_t keep,
                    const std::string& suffix) {
      Ref w[2];
      for (Player p : kPlayers)
        if (support & bit(p))
          w[index(p)] = l.adjoint(p, c, from, rates ? evaluations[index(p)].f : Ref{}, rates, suffix);
      const Scored& s = evaluations[players & kGenerator ? index(G) : index(D)].s;
      l.product(s, l.factors(s, players, false), to, w[index(G)], w[index(D)], keep, suffix);
    };
    const Ref a = graph.parameters("a" + suffix);
    Instr instr;
    instr.op = Op::fill;
    instr.out = a;
    graph.emit(instr);
    back(second, v, a, halves.support, halves.keep | players, suffix + ".half");
    instr.op = Op::add;
    instr.a0 = a;
    instr.out = v;
    instr.accumulate = true;
    graph.emit(instr);
    back(first, a, v, players, halves.keep, suffix);
  }

  Graph& graph;
  const Game& game;
  GameLowering l;
  Batch batch;                     // of alternating play: D's, and G's first
  Evaluation first[2], second[2];  // by player; where both play at once, theirs are the same
};

}  // namespace

void lower_extragradient_step(Graph& graph, const Game& game, bool penalised) {
  ExtragradientLowering(graph, game, true, penalised).step();
}

void lower_extragradient_pull(Graph& graph, const Game& game, const Pull& pull) {
  ExtragradientLowering(graph, game, false, pull.form.penalised).pull(pull);
}

}  // namespace pymgan
