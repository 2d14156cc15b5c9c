// The two players: one inner step and its exact pull-back, as instructions.
//
// F(phi) = (grad_G L_G, grad_D L_D). The pull-back of one step needs, for w = the adjoint of F,
//   J_F^T w = Hess(L_G) (w_G, 0) + Hess(L_D) (0, w_D):
// direction A moves G's parameters (and differentiates grad L_G), direction B moves D's (grad L_D). D gives one score a
// sample, so one backward pass with unit seed, gamma = ds/d(pre-activation), serves both losses: delta = c gamma with c
// = dL/ds.
//
// Merged inside D. With y = c_G dx_A + c_D dx_B, both Hessian terms need one tangent sweep:
//   q_l = c_D (U h + u) + W y,    dW_l = d_l^T h + gamma_l^T y,    d_l = f' (c_D U^T gamma + W^T d) + f'' q g
// and the seed of d is dc = c_G' ds_A + c_D' ds_B. The scores' own tangents are picked up on the way, without a
// second stream and without dividing by c: ds_A = <e, dx_A> with e = ds/dx, and ds_B = sum_l <gamma_l, U h + u> (the
// `dot` of the product). So the merge is exact for every loss, also where c or c' is zero.
#include "game.h"

#include "derivatives.h"
#include "disturbance.h"

namespace pymgan {
namespace {

uint8_t bit(Player p) { return p == Player::generator ? kGenerator : kDiscriminator; }

constexpr Player G = Player::generator, D = Player::discriminator;

// Tags the instructions recorded in its lifetime.
class Tag {
 public:
  Tag(Graph& graph, uint8_t players) : graph_(graph), was_(graph.players) { graph.players = players; }
  ~Tag() { graph_.players = was_; }

 private:
  Graph& graph_;
  uint8_t was_;
};

class Primal {
 public:
  explicit Primal(Graph& graph) : graph_(graph), was_(graph.primal) { graph.primal = true; }
  ~Primal() { graph_.primal = was_; }

 private:
  Graph& graph_;
  bool was_;
};

// D's scores on a batch, their losses' derivatives and the unit-seed backward pass.
struct Scored {
  Pass d;     // from x, through what D is given of it
  Tape way;   // there
  Ref given;  // to D
  int fakes = 0, reals = 0;
  Ref c_g, c_d, cc_g, cc_d;
  NodeId one = kZero;                                     // the seed
  NodeId e() const { return at(d.cotangents, d.input); }  // ds/dx of the fakes
  int rows() const { return fakes + reals; }
};

// D's gradient penalty. With e = ds/dx and n = |e|^2, dP = c <e, de>: its gradient is one more backward pass, through
// the forward and the backward pass that made e.
struct Penalised {
  NodeId reals = kZero, fakes = kZero;  // the batches, where it looks at them
  NodeId e = kZero;
  Tape tape;
  Ref c, k;  // 2 p'(n) and 4 p''(n), of the mean
};

class GameLowering {
 public:
  GameLowering(Graph& graph, const Game& game, bool fused, bool penalised)
      : graph(graph),
        game(game),
        fused(fused),
        penalised(penalised && game.penalty.kind != PenaltyKind::none),
        disturbance(graph, game) {
    phi = graph.external(Slot::phi, "phi");
    x_columns = graph.layout.stages[index(D)].front().in;
  }

  // x [fakes + reals][features]: G's samples, then the real batch.
  void play() {
    Primal primal(graph);
    const int z_columns = graph.layout.stages[index(G)].front().in;
    const Ref z = graph.kept(graph.rows("z", game.fakes, z_columns));
    emit_rows(Op::noise, z, game.fakes, z_columns);
    x = graph.kept(graph.rows("x", game.fakes + game.reals, x_columns));
    g = forward(graph, G, "g", phi, graph.leaf(z, game.fakes, z_columns), x);
    disturbance.draw();
    const bool for_g = !game.alternating || game.relative();
    Tag tag(graph, for_g ? kBoth : kDiscriminator);
    emit_rows(Op::load, from_row(x, game.fakes, graph.layout, x_columns), game.reals, x_columns);
  }

  // Of how many samples the cotangent is wanted.
  static std::map<NodeId, int> limits(const Scored& s, int rows) {
    std::map<NodeId, int> all{{s.d.input, rows}};
    for (NodeId n : s.way) all[n] = rows;
    return all;
  }

  // e of the first `input_rows` samples. `reports`: the players whose losses the head writes to the trace.
  Scored score(const std::string& name, Ref parameters, int reals, int input_rows, uint8_t reports) {
    Primal primal(graph);
    Scored s;
    s.fakes = game.fakes;
    s.reals = reals;
    const NodeId samples = graph.leaf(x, s.rows(), x_columns), given = disturbance.apply(name, samples, s.way);
    s.given = graph.ref(given);
    s.d = forward(graph, D, name, parameters, given);
    s.d.input = samples;
    s.d.tape = joined(s.way, s.d.tape);
    Instr head;
    head.op = Op::head;
    head.rows = s.rows();
    head.columns = 1;
    head.fakes = s.fakes;
    head.reals = reals;
    head.a0 = graph.ref(s.d.output);
    auto vec = [&](const char* what) { return graph.kept(graph.vector(name + what, s.rows())); };
    if (reports & kGenerator) head.c_g = s.c_g = vec(".c_g"), head.cc_g = s.cc_g = vec(".cc_g");
    if (reports & kDiscriminator) head.c_d = s.c_d = vec(".c_d"), head.cc_d = s.cc_d = vec(".cc_d");
    head.index = reports;
    if (traced) head.stats = graph.statistics(name + ".stats");
    if (game.relative()) head.scratch = graph.scratch(name + ".relative", s.rows());
    graph.emit(head);
    s.one = spread(name + ".one", {}, s.rows());
    s.d.cotangents = pull_back(graph, s.d.tape, {{s.d.output, s.one}}, limits(s, input_rows), parameters, "");
    if (penalised && reports & kDiscriminator) penalise(s);
    return s;
  }

  void penalise(const Scored& s) {
    const int rows = game.penalty.kind == PenaltyKind::r1 ? game.reals : game.fakes;
    p = {};
    if (game.penalty.kind != PenaltyKind::r2)
      p.reals = graph.leaf(from_row(s.given, game.fakes, graph.layout, x_columns), rows, x_columns);
    if (game.penalty.kind != PenaltyKind::r1) p.fakes = graph.leaf(x, rows, x_columns);
    const NodeId fakes = p.fakes != kZero ? disturbance.apply("p", p.fakes, p.tape) : kZero;
    NodeId points = p.reals != kZero ? p.reals : fakes;
    if (game.penalty.between()) {
      Instr mix;
      mix.op = Op::mix;
      mix.rows = rows;
      mix.columns = 1;
      mix.c_g = graph.kept(graph.vector("p.u", rows));
      mix.c_d = graph.kept(graph.vector("p.1-u", rows));
      graph.emit(mix);
      const NodeId of_real = graph.scale("p.real", p.reals, mix.c_g), of_fake = graph.scale("p.fake", fakes, mix.c_d);
      points = graph.add("p.x", of_real, of_fake);
      p.tape = joined(p.tape, {of_real, of_fake, points});
    }
    const Pass d = forward(graph, D, "p", phi, points);
    Tape made;
    p.e = at(pull_back(graph, d.tape, {{d.output, spread("p.one", {}, rows)}}, {}, phi, "", &made), points);
    p.tape = joined(joined(p.tape, d.tape), made);
    Instr head;
    head.op = Op::penalty;
    head.rows = rows;
    head.columns = 1;
    head.a0 = graph.kept(row_dot("p.n", p.e, p.e));
    head.c_d = p.c = graph.kept(graph.vector("p.c", rows));
    head.cc_d = p.k = graph.kept(graph.vector("p.k", rows));
    if (traced) head.stats = graph.statistics("d.stats");
    graph.emit(head);
  }

  // c_G e: the cotangent of G's samples.
  NodeId seed(const Scored& s) { return graph.scale(g.name + ".seed", s.e(), s.c_g); }

  void back_through_generator(const Scored& s) {
    Primal primal(graph);
    g.cotangents = pull_back(graph, g.tape, {{g.output, seed(s)}}, {{g.input, 0}}, phi, "");
  }

  std::vector<Contribution> gradient_parts(Player player, const Scored& s) {
    if (player == G) return contributions(graph, g.tape, g.cotangents, phi);
    auto all = scaled(graph, contributions(graph, s.d.tape, s.d.cotangents, s.d.parameters), s.c_d, s.rows(), ".c_d");
    if (penalised) {
      const Jets d = pull_back(graph, p.tape, {{p.e, graph.scale("p.seed", p.e, p.c)}}, fixed_points(0), phi, "p");
      append(all, contributions(graph, p.tape, d, phi));
    }
    return all;
  }

  Ref gradient(Player player, const Scored& s) {
    const Ref f = graph.parameters(player == G ? "F_G" : "F_D", player);
    write_gradient(graph, gradient_parts(player, s), f, false);
    return f;
  }

  void check(Player player, Ref f) {
    Instr instr;
    instr.op = Op::check;
    instr.player = player;
    instr.a0 = f;
    graph.emit(instr);
  }

  // One player's step from its batch, to `next`. Plain SGD's update is made as the gradient is.
  void descend(Player player, const Scored& s, Ref next) {
    if (!fused) {
      Ref f = gradient(player, s);
      check(player, f);
      update(player, f, next, graph.moments(Slot::moment_next, "moment_next"));
      return;
    }
    write_gradient(graph, gradient_parts(player, s), next, false, phi);
    check(player, {});
    update(player, {}, next, {});
  }

  // The player's parameters after its step; absent moment_next: the moments after it are not wanted.
  void update(Player player, Ref f, Ref theta_next, Ref moment_next) {
    Tag all(graph, kBoth);  // an inactive player's parameters are carried over
    Instr instr;
    instr.op = Op::update;
    instr.player = player;
    instr.a0 = f;
    if (f) instr.moment = graph.moments(Slot::moment, "moment");
    instr.theta = phi;
    instr.rate_scale = graph.external(Slot::rate_scale, "rate_scale");
    instr.out = theta_next;
    instr.moment_next = moment_next;
    graph.emit(instr);
  }

  Ref direction(int c, const std::string& suffix) { return graph.external(Slot::cotangent, "v" + suffix, c); }

  // w = the adjoint of F through one player's update; v_moment moves on. f: absent where it is not read.
  Ref adjoint(Player player, int c, Ref f, bool rates, const std::string& suffix) {
    Tag all(graph, kBoth);
    Instr instr;
    instr.op = Op::adjoint;
    instr.player = player;
    instr.index = c;
    instr.v = direction(c, suffix);
    instr.v_moment = graph.moments(Slot::v_moment, "v_moment" + suffix, c);
    instr.rate_scale = graph.external(Slot::rate_scale, "rate_scale");
    if (f) instr.a0 = f, instr.moment = graph.moments(Slot::moment, "moment");
    if (rates) instr.d_scale = graph.external(Slot::d_scale, "d_scale" + suffix, c);
    instr.out = graph.parameters((player == G ? "w_G" : "w_D") + suffix, player);
    graph.emit(instr);
    return instr.out;
  }

  // out [rows] = -rate of the player times `of` (absent: 1).
  Ref rate(Player player, Ref of, int rows, const std::string& name) {
    Tag all(graph, kBoth);
    Instr instr;
    instr.op = Op::rate;
    instr.player = player;
    instr.rows = rows;
    instr.columns = 1;
    instr.a0 = of;
    instr.out = graph.vector(name, rows);
    graph.emit(instr);
    return instr.out;
  }

  // The factors of the samples in the directions w of G and D, and D's c': with plain SGD and without learned rates
  // w = -rate v, so v itself is the direction (no copy of it is made), and these carry the rate.
  struct Factors {
    Ref of_g, of_d, cc_d, c, k;  // c and k: of the penalty
  };
  Factors factors(const Scored& s, uint8_t players, bool direct) {
    Factors f{{}, s.c_d, s.cc_d, p.c, p.k};
    if (!direct) return f;
    if (players & kGenerator) f.of_g = rate(G, {}, s.fakes, s.d.name + ".rate_g");
    if (players & kDiscriminator) {
      f.of_d = rate(D, s.c_d, s.rows(), s.d.name + ".rate_c_d");
      f.cc_d = rate(D, s.cc_d, s.rows(), s.d.name + ".rate_cc_d");
      if (penalised)
        f.c = rate(D, p.c, graph.value(p.c).rows, "p.rate_c"), f.k = rate(D, p.k, graph.value(p.k).rows, "p.rate_k");
    }
    return f;
  }

  // v += Hess(L_G) (w_G, 0) + Hess(L_D) (0, w_D) at one evaluation point; an absent w drops its term. `keep`: which
  // halves of v.
  void product(const Scored& s, const Factors& factors, int c, Ref w_g, Ref w_d, uint8_t keep,
               const std::string& suffix) {
    const int fakes = game.fakes, rows = w_d || game.relative() ? s.rows() : fakes;
    const Ref v = direction(c, suffix);
    // Direction A: through G to its samples.
    Tape g_made, d_made;
    NodeId dx = kZero;
    Ref ds_a;
    if (w_g) {
      dx = at(push_forward(graph, g.tape, {}, {phi, w_g, factors.of_g, {}, nullptr}, suffix, g_made), g.output);
      ds_a = row_dot("ds_a" + suffix, s.e(), dx);
    }
    // Both through D, merged.
    Ref ds_b;
    if (w_d) {
      Instr zero;
      zero.op = Op::fill;
      zero.rows = rows;
      zero.columns = 1;
      ds_b = zero.out = graph.rows("ds_b" + suffix, rows, 1);
      graph.emit(zero);
    }
    const NodeId y = graph.scale("y" + suffix, dx, s.c_g);
    const Jets tangents = push_forward(graph, s.d.tape, {{s.d.input, y}},
                                       {s.d.parameters, w_d, factors.of_d, ds_b, &s.d.cotangents}, suffix, d_made);
    Instr dc;
    dc.op = Op::combine;
    dc.rows = rows;
    dc.columns = 1;
    if (w_g) dc.rows0 = fakes, dc.a0 = s.cc_g, dc.b0 = ds_a;
    if (w_d) dc.a1 = factors.cc_d, dc.b1 = ds_b;
    if (game.relative()) {
      dc.fakes = s.fakes, dc.reals = s.reals;
      dc.scratch = graph.scratch("ds_relative" + suffix, rows);
    }
    dc.out = graph.vector("dc" + suffix, rows);
    graph.emit(dc);
    const Tape d_tape = joined(s.d.tape, d_made);
    std::map<NodeId, int> wanted = limits(s, keep & kGenerator ? fakes : 0);
    for (NodeId n : s.way) wanted[at(tangents, n)] = 0;
    wanted[y] = 0;
    const Jets d = pull_back(
        graph, d_tape, {{s.d.output, spread("dc_rows" + suffix, dc.out, rows)}, {at(tangents, s.d.output), s.one}},
        wanted, s.d.parameters, suffix);
    std::vector<Contribution> parts;
    NodeId of_x = at(d, s.d.input);
    if (keep & kDiscriminator) parts = contributions(graph, d_tape, d, s.d.parameters);
    if (penalised && w_d) {
      Tape tape;
      const Jets penalty = penalty_product(factors, w_d, keep, suffix, tape);
      if (keep & kDiscriminator) append(parts, contributions(graph, tape, penalty, phi));
      if (keep & kGenerator) of_x = graph.add("x^" + suffix, of_x, at(penalty, p.fakes));
    }
    if (keep & kGenerator) {
      const Tape g_tape = joined(g.tape, g_made);
      Jets seeds{{g.output, of_x}};
      if (w_g) seeds[dx] = seed(s);
      const Jets cotangents = pull_back(graph, g_tape, seeds, {{g.input, 0}}, phi, suffix);
      append(parts, contributions(graph, g_tape, cotangents, phi));
    }
    write_gradient(graph, parts, v, true);
  }

  // dP/dx of G's samples.
  NodeId penalty_by_fakes() {
    const NodeId seed = graph.scale("p.seed", p.e, p.c);
    return at(pull_back(graph, p.tape, {{p.e, seed}}, fixed_points(game.fakes), phi, "x"), p.fakes);
  }

  // The gradient of the penalty's change along w, dP = sum c <e, de>; `tape` receives what it went through.
  Jets penalty_product(const Factors& factors, Ref w, uint8_t keep, const std::string& suffix, Tape& tape) {
    Tape made;
    const NodeId de = at(push_forward(graph, p.tape, {}, {phi, w, {}, {}, nullptr}, "p" + suffix, made), p.e);
    const int rows = graph.node(p.e).rows;
    Instr change;
    change.op = Op::combine;
    change.rows = change.rows0 = rows;
    change.columns = 1;
    change.a0 = factors.k;
    change.b0 = row_dot("p.e_de" + suffix, p.e, de);
    change.out = graph.vector("p.dc" + suffix, rows);
    graph.emit(change);
    const NodeId of_e = graph.add("p.e^" + suffix, graph.scale("p.de_c" + suffix, de, factors.c),
                                  graph.scale("p.e_dc" + suffix, p.e, change.out));
    tape = joined(p.tape, made);
    const Jets seeds{{p.e, of_e}, {de, graph.scale("p.e_c" + suffix, p.e, factors.c)}};
    return pull_back(graph, tape, seeds, fixed_points(keep & kGenerator ? rows : 0), phi, "p" + suffix);
  }

  Graph& graph;
  const Game& game;
  const bool fused;      // see Program
  const bool penalised;  // in this step
  Disturbance disturbance;
  Penalised p;
  bool traced = false;  // losses and statistics go to the trace
  Ref phi, x;
  int x_columns = 0;
  Pass g;

 private:
  // Of the points that the penalty looks at, G's samples alone are somebody's output.
  std::map<NodeId, int> fixed_points(int rows) const { return {{p.reals, 0}, {p.fakes, rows}}; }
  static void append(std::vector<Contribution>& all, const std::vector<Contribution>& more) {
    all.insert(all.end(), more.begin(), more.end());
  }
  Ref row_dot(const std::string& name, NodeId a, NodeId b) {
    const int rows = std::min(graph.node(a).rows, graph.node(b).rows);
    Instr dot;
    dot.op = Op::row_dot;
    dot.rows = rows;
    dot.columns = graph.node(a).columns;
    dot.a0 = graph.ref(a);
    dot.b0 = graph.ref(b);
    dot.out = graph.vector(name, rows);
    graph.emit(dot);
    return dot.out;
  }
  // [rows][1] of the numbers `of` (absent: ones).
  NodeId spread(const std::string& name, Ref of, int rows) {
    Instr instr;
    instr.op = Op::spread;
    instr.rows = rows;
    instr.columns = 1;
    instr.a0 = of;
    instr.out = graph.rows(name, rows, 1);
    graph.emit(instr);
    return graph.leaf(instr.out, rows, 1);
  }
  void emit_rows(Op op, Ref out, int rows, int columns) {
    Instr instr;
    instr.op = op;
    instr.rows = rows;
    instr.columns = columns;
    instr.out = out;
    if (const int size = graph.layout.z.features(); op == Op::noise && !graph.layout.z.flat())  // in torch's order
      instr.scratch = graph.scratch("drawn", rows * (graph.layout.target.pad(size) + size));
    graph.emit(instr);
  }
};

void lower_simultaneous_step(GameLowering& l, const Game& game) {
  Graph& graph = l.graph;
  l.traced = true;
  l.play();
  Scored s = l.score("d", l.phi, game.reals, game.fakes, kBoth);
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
  l.traced = true;
  l.play();
  {
    Tag tag(graph, kDiscriminator);
    Scored s = l.score("d", l.phi, game.reals, 0, kDiscriminator);
    l.descend(D, s, next);
  }
  Tag tag(graph, kGenerator);
  Scored s = l.score("d'", next, game.relative() ? game.reals : 0, game.fakes, kGenerator);
  l.back_through_generator(s);
  l.descend(G, s, next);
}

void lower_simultaneous_pull(GameLowering& l, const Game& game, const Pull& pull) {
  l.play();
  Scored s = l.score("d", l.phi, game.reals, game.fakes, kBoth);
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
    Ref w[2];
    for (Player p : kPlayers)
      if (support & bit(p))
        w[index(p)] = pull.direct ? l.direction(c, suffix) : l.adjoint(p, c, f[index(p)], pull.rates, suffix);
    l.product(s, factors, c, w[0], w[1], keep, suffix);
  }
}

void lower_alternating_pull(GameLowering& l, const Game& game, const Pull& pull) {
  Graph& graph = l.graph;
  l.play();
  Scored first, second;
  Ref f[2], next;
  {
    Tag tag(graph, kDiscriminator);
    first = l.score("d", l.phi, game.reals, game.fakes, kDiscriminator);
    const bool again = graph.keep != Graph::Keep::read;  // D_{k+1}: made again, or read back
    const Ref gradient = pull.gradient || again ? l.gradient(D, first) : Ref{};
    if (pull.gradient) f[index(D)] = gradient;
    next = again ? graph.parameters("D_{k+1}", D) : graph.external(Slot::phi_next, "phi_next");
    if (again) l.update(D, gradient, next, {});
  }
  {
    Tag tag(graph, kGenerator);
    second = l.score("d'", next, game.relative() ? game.reals : 0, game.fakes, kGenerator);
    l.back_through_generator(second);
    if (pull.gradient) f[index(G)] = l.gradient(G, second);
  }
  const GameLowering::Factors of_second = l.factors(second, kGenerator, pull.direct),
                              of_first = l.factors(first, kDiscriminator, pull.direct);
  for (int c = 0; c < static_cast<int>(pull.cotangents.size()); ++c) {
    auto [support, keep] = pull.cotangents[c];
    const std::string suffix = "#" + std::to_string(c);
    if (support & kGenerator) {
      Tag tag(graph, kGenerator);
      Ref w = pull.direct ? l.direction(c, suffix) : l.adjoint(G, c, f[index(G)], pull.rates, suffix);
      // D's half is wanted even where it is not kept: D's own update comes next.
      l.product(second, of_second, c, w, {}, keep | kDiscriminator, suffix + "a");
    }
    Tag tag(graph, kDiscriminator);
    Ref w = pull.direct ? l.direction(c, suffix) : l.adjoint(D, c, f[index(D)], pull.rates, suffix);
    l.product(first, of_first, c, {}, w, keep, suffix + "b");
  }
}

// (dL_G/dtheta_G, dL_D/dtheta_D); full: the whole gradient of L_G, then that of L_D.
void lower_gradients_of(GameLowering& l, const Game& game, bool full) {
  Graph& graph = l.graph;
  l.traced = true;
  l.play();
  const Scored s = l.score("d", l.phi, game.reals, game.fakes, kBoth);
  const Ref out = graph.external(Slot::gradient, "gradient");
  l.back_through_generator(s);
  write_gradient(graph, l.gradient_parts(G, s), out, false);
  if (!full) return write_gradient(graph, l.gradient_parts(D, s), out, false);
  const auto of_d = contributions(graph, s.d.tape, s.d.cotangents, l.phi);
  write_gradient(graph, scaled(graph, of_d, s.c_g, game.relative() ? s.rows() : game.fakes, ".c_g"), out, false);
  const Ref other = graph.external(Slot::gradient, "gradient_D", 1);
  NodeId seed = graph.scale("g_of_d.seed", s.e(), s.c_d);
  if (l.penalised) seed = graph.add("g_of_d.seed", seed, l.penalty_by_fakes());
  const Jets cotangents = pull_back(graph, l.g.tape, {{l.g.output, seed}}, {{l.g.input, 0}}, l.phi, "d");
  write_gradient(graph, contributions(graph, l.g.tape, cotangents, l.phi), other, false);
  write_gradient(graph, l.gradient_parts(D, s), other, false);
}

}  // namespace

void lower_step(Graph& graph, const Game& game, bool fused, bool penalised) {
  GameLowering l(graph, game, fused, penalised);
  (game.alternating ? lower_alternating_step : lower_simultaneous_step)(l, game);
}

void lower_pull(Graph& graph, const Game& game, const Pull& pull) {
  GameLowering l(graph, game, false, pull.penalised);
  (game.alternating ? lower_alternating_pull : lower_simultaneous_pull)(l, game, pull);
}

void lower_gradients(Graph& graph, const Game& game, bool full) {
  GameLowering l(graph, game, false, true);
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
