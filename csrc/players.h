// The two players at one point of phi: what an inner step and its exact pull-back are made of, as instructions.
// game.cpp and extragradient.cpp put them together.
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
#pragma once

#include "derivatives.h"
#include "disturbance.h"
#include "game.h"
#include "spectral.h"

namespace pymgan::lowering {

inline uint8_t bit(Player p) { return p == Player::generator ? kGenerator : kDiscriminator; }

inline constexpr Player G = Player::generator, D = Player::discriminator;

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

// x [fakes + reals][features]: G's samples, then the real batch.
struct Batch {
  Pass g;
  Ref x;
};

// D's gradient penalty. With e = ds/dx and n = |e|^2, dP = c <e, de>: its gradient is one more backward pass, through
// the forward and the backward pass that made e.
struct Penalised {
  NodeId reals = kZero, fakes = kZero;  // the batches, where it looks at them
  NodeId e = kZero;
  Tape tape;
  Ref c, k;  // 2 p'(n) and 4 p''(n), of the mean
};

// D's scores on a batch, their losses' derivatives and the unit-seed backward pass.
struct Scored {
  Pass g, d;  // d: from x, through what D is given of it
  Tape way;   // there
  int fakes = 0, reals = 0;
  Ref c_g, c_d, cc_g, cc_d;
  SpectralNorms::Weights weights;
  Ref slope;                                              // under a spectral norm: of L_D, by weights.used
  NodeId one = kZero;                                     // the seed
  NodeId e() const { return at(d.cotangents, d.input); }  // ds/dx of the fakes
  int rows() const { return fakes + reals; }
  Penalised p;
};

class GameLowering {
 public:
  // step: the procedure is a step, not what looks back at one or at none.
  GameLowering(Graph& graph, const Game& game, bool step, bool fused, bool penalised)
      : graph(graph),
        game(game),
        fused(fused),
        penalised(penalised && game.penalty.kind != PenaltyKind::none),
        disturbance(graph, game),
        spectral(graph, step) {
    phi = graph.external(Slot::phi, "phi");
    x_columns = graph.layout.stages[index(D)].front().in;
  }

  // Whose losses see real samples.
  uint8_t looks_at_reals() const { return !game.alternating || game.relative() ? kBoth : kDiscriminator; }

  // With G's `parameters`; the noise is the step's, whatever these are.
  Batch play(Ref parameters, int reals) {
    Primal primal(graph);
    const int z_columns = graph.layout.stages[index(G)].front().in;
    if (!z) {
      z = graph.kept(graph.rows("z", game.fakes, z_columns));
      emit_rows(Op::noise, z, game.fakes, z_columns);
      disturbance.draw();
    }
    Batch batch;
    batch.x = graph.kept(graph.rows(prefix + "x", game.fakes + reals, x_columns));
    batch.g = forward(graph, G, prefix + "g", parameters, graph.leaf(z, game.fakes, z_columns), batch.x);
    Tag tag(graph, graph.players & looks_at_reals());
    if (reals > 0) emit_rows(Op::load, from_row(batch.x, game.fakes, graph.layout, x_columns), reals, x_columns);
    return batch;
  }

  // Of how many samples the cotangent is wanted.
  static std::map<NodeId, int> limits(const Scored& s, int rows) {
    std::map<NodeId, int> all{{s.d.input, rows}};
    for (NodeId n : s.way) all[n] = rows;
    return all;
  }

  // e of the first `input_rows` samples. `reports`: the players whose losses the head writes to the trace.
  Scored score(const std::string& own_name, const Batch& batch, Ref theta, int reals, int input_rows, uint8_t reports) {
    Primal primal(graph);
    const std::string name = prefix + own_name;
    Scored s;
    s.g = batch.g;
    s.fakes = game.fakes;
    s.reals = reals;
    s.weights = spectral.weights(name, theta);
    const Ref parameters = s.weights.used;
    const NodeId samples = graph.leaf(batch.x, s.rows(), x_columns), given = disturbance.apply(name, samples, s.way);
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
    if (looks) head.stats = graph.statistics(name + ".stats"), head.traced = traced();
    if (game.relative()) head.scratch = graph.scratch(name + ".relative", s.rows());
    graph.emit(head);
    s.one = spread(name + ".one", {}, s.rows());
    s.d.cotangents = pull_back(graph, s.d.tape, {{s.d.output, s.one}}, limits(s, input_rows), parameters, "");
    if (penalised && reports & kDiscriminator) s.p = penalise(batch.x, graph.ref(given), parameters);
    if (spectral && reports & kDiscriminator) {
      s.slope = graph.kept(graph.parameters(name + ".slope", D));
      write_gradient(graph, gradient_parts(D, s), s.slope, false);
    }
    return s;
  }

  // given: x as D is given it
  Penalised penalise(Ref x, Ref given, Ref parameters) {
    const std::string name = prefix + "p";
    const int rows = game.penalty.kind == PenaltyKind::r1 ? game.reals : game.fakes;
    Penalised p;
    if (game.penalty.kind != PenaltyKind::r2)
      p.reals = graph.leaf(from_row(given, game.fakes, graph.layout, x_columns), rows, x_columns);
    if (game.penalty.kind != PenaltyKind::r1) p.fakes = graph.leaf(x, rows, x_columns);
    const NodeId fakes = p.fakes != kZero ? disturbance.apply(name, p.fakes, p.tape) : kZero;
    NodeId points = p.reals != kZero ? p.reals : fakes;
    if (game.penalty.between()) {
      if (!mix.c_g) {
        mix.op = Op::mix;
        mix.rows = rows;
        mix.columns = 1;
        mix.c_g = graph.kept(graph.vector("p.u", rows));
        mix.c_d = graph.kept(graph.vector("p.1-u", rows));
        graph.emit(mix);
      }
      const NodeId of_real = graph.scale(name + ".real", p.reals, mix.c_g),
                   of_fake = graph.scale(name + ".fake", fakes, mix.c_d);
      points = graph.add(name + ".x", of_real, of_fake);
      p.tape = joined(p.tape, {of_real, of_fake, points});
    }
    const Pass d = forward(graph, D, name, parameters, points);
    Tape made;
    const Jets unit =
        pull_back(graph, d.tape, {{d.output, spread(name + ".one", {}, rows)}}, {}, parameters, "", &made);
    p.e = at(unit, points);
    p.tape = joined(joined(p.tape, d.tape), made);
    Instr head;
    head.op = Op::penalty;
    head.rows = rows;
    head.columns = 1;
    head.a0 = graph.kept(row_dot(name + ".n", p.e, p.e));
    head.c_d = p.c = graph.kept(graph.vector(name + ".c", rows));
    head.cc_d = p.k = graph.kept(graph.vector(name + ".k", rows));
    if (looks) head.stats = graph.statistics(prefix + "d.stats"), head.traced = traced();
    graph.emit(head);
    return p;
  }

  // c_G e: the cotangent of G's samples.
  NodeId seed(const Scored& s) { return graph.scale(s.g.name + ".seed", s.e(), s.c_g); }

  void back_through_generator(Scored& s) {
    Primal primal(graph);
    s.g.cotangents = pull_back(graph, s.g.tape, {{s.g.output, seed(s)}}, {{s.g.input, 0}}, s.g.parameters, "");
  }

  std::vector<Contribution> gradient_parts(Player player, const Scored& s) {
    if (player == G) return contributions(graph, s.g.tape, s.g.cotangents, s.g.parameters);
    auto all = scaled(graph, contributions(graph, s.d.tape, s.d.cotangents, s.d.parameters), s.c_d, s.rows(), ".c_d");
    if (penalised) {
      const NodeId seed = graph.scale("p.seed", s.p.e, s.p.c);
      const Jets d = pull_back(graph, s.p.tape, {{s.p.e, seed}}, fixed_points(s.p, 0), s.d.parameters, "p");
      append(all, contributions(graph, s.p.tape, d, s.d.parameters));
    }
    return all;
  }

  Ref gradient(Player player, const Scored& s) {
    const Ref f = graph.parameters(prefix + (player == G ? "F_G" : "F_D"), player);
    if (player == D && spectral)
      spectral.back(s.weights, s.slope, f, false);
    else
      write_gradient(graph, gradient_parts(player, s), f, false);
    return f;
  }

  // out (+)= the gradient that `parts` are of; those of D are by what its layers use. along: of a change of L_D's
  // gradient.
  void write(const Scored& s, const std::vector<Contribution>& parts, Ref out, bool accumulate,
             const SpectralNorms::Along& along = {}) {
    if (!spectral) return write_gradient(graph, parts, out, accumulate);
    std::vector<Contribution> of[2];
    for (const Contribution& c : parts) of[index(graph.layout.tensors[c.tensor].player)].push_back(c);
    write_gradient(graph, of[index(G)], out, accumulate);
    if (of[index(D)].empty()) return;
    Instr zero;
    zero.op = Op::fill;
    zero.out = graph.parameters("by_used", D);
    graph.emit(zero);
    write_gradient(graph, of[index(D)], zero.out, true);
    spectral.back(s.weights, zero.out, out, accumulate, along.w ? s.slope : Ref{}, along);
  }

  void check(Player player, Ref f) {
    Instr instr;
    instr.op = Op::check;
    instr.player = player;
    instr.a0 = f;
    instr.traced = traced();
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

  // w = the adjoint of F through one player's update to parameters whose cotangent is v; v_moment moves on. f: absent
  // where it is not read.
  Ref adjoint(Player player, int c, Ref v, Ref f, bool rates, const std::string& suffix) {
    Tag all(graph, kBoth);
    Instr instr;
    instr.op = Op::adjoint;
    instr.player = player;
    instr.index = c;
    instr.v = v;
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
    Factors f{{}, s.c_d, s.cc_d, s.p.c, s.p.k};
    if (!direct) return f;
    if (players & kGenerator) f.of_g = rate(G, {}, s.fakes, s.d.name + ".rate_g");
    if (players & kDiscriminator) {
      f.of_d = rate(D, s.c_d, s.rows(), s.d.name + ".rate_c_d");
      f.cc_d = rate(D, s.cc_d, s.rows(), s.d.name + ".rate_cc_d");
      if (penalised) {
        f.c = rate(D, s.p.c, graph.value(s.p.c).rows, "p.rate_c");
        f.k = rate(D, s.p.k, graph.value(s.p.k).rows, "p.rate_k");
      }
    }
    return f;
  }

  // v += Hess(L_G) (w_G, 0) + Hess(L_D) (0, w_D) at one evaluation point; an absent w drops its term. `keep`: which
  // halves of v.
  void product(const Scored& s, const Factors& factors, Ref v, Ref w_g, Ref w_d, uint8_t keep,
               const std::string& suffix) {
    const int fakes = game.fakes, rows = w_d || game.relative() ? s.rows() : fakes;
    SpectralNorms::Along along;
    if (w_d) along = spectral.along(s.d.name + suffix, s.weights, w_d), w_d = along.w;
    // Direction A: through G to its samples.
    Tape g_made, d_made;
    NodeId dx = kZero;
    Ref ds_a;
    if (w_g) {
      const Direction through_g{s.g.parameters, w_g, factors.of_g, {}, nullptr};
      dx = at(push_forward(graph, s.g.tape, {}, through_g, suffix, g_made), s.g.output);
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
      const Jets penalty = penalty_product(s, factors, w_d, keep, suffix, tape);
      if (keep & kDiscriminator) append(parts, contributions(graph, tape, penalty, s.d.parameters));
      if (keep & kGenerator) of_x = graph.add("x^" + suffix, of_x, at(penalty, s.p.fakes));
    }
    if (keep & kGenerator) {
      const Tape g_tape = joined(s.g.tape, g_made);
      Jets seeds{{s.g.output, of_x}};
      if (w_g) seeds[dx] = seed(s);
      const Jets cotangents = pull_back(graph, g_tape, seeds, {{s.g.input, 0}}, s.g.parameters, suffix);
      append(parts, contributions(graph, g_tape, cotangents, s.g.parameters));
    }
    write(s, parts, v, true, along);
  }

  // dP/dx of G's samples.
  NodeId penalty_by_fakes(const Scored& s) {
    const Penalised& p = s.p;
    const NodeId seed = graph.scale("p.seed", p.e, p.c);
    return at(pull_back(graph, p.tape, {{p.e, seed}}, fixed_points(p, game.fakes), s.d.parameters, "x"), p.fakes);
  }

  // The gradient of the penalty's change along w, dP = sum c <e, de>; `tape` receives what it went through.
  Jets penalty_product(const Scored& s, const Factors& factors, Ref w, uint8_t keep, const std::string& suffix,
                       Tape& tape) {
    const Penalised& p = s.p;
    const Ref parameters = s.d.parameters;
    Tape made;
    const NodeId de = at(push_forward(graph, p.tape, {}, {parameters, w, {}, {}, nullptr}, "p" + suffix, made), p.e);
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
    return pull_back(graph, tape, seeds, fixed_points(p, keep & kGenerator ? rows : 0), parameters, "p" + suffix);
  }

  Graph& graph;
  const Game& game;
  const bool fused;      // see Program
  const bool penalised;  // in this step
  Disturbance disturbance;
  SpectralNorms spectral;
  bool looks = false;  // at losses and gradients, whether they are finite; those of the first evaluation are traced
  std::string prefix;  // of what is evaluated once more, elsewhere
  Ref phi;

 private:
  bool traced() const { return prefix.empty(); }
  // Of the points that the penalty looks at, G's samples alone are somebody's output.
  static std::map<NodeId, int> fixed_points(const Penalised& p, int rows) { return {{p.reals, 0}, {p.fakes, rows}}; }
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

  int x_columns = 0;
  Ref z;      // once drawn
  Instr mix;  // likewise
};

}  // namespace pymgan::lowering
