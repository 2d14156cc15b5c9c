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
#include <algorithm>
#include <stdexcept>

#include "program.h"
#include "sweeps.h"

namespace pymgan {
namespace {

uint8_t bit(Player p) { return p == Player::generator ? kGenerator : kDiscriminator; }

constexpr Player G = Player::generator, D = Player::discriminator;

// Tags the instructions emitted in its lifetime.
class Tag {
 public:
  Tag(Builder& b, uint8_t players) : b_(b), was_(b.players) { b.players = players; }
  ~Tag() { b_.players = was_; }

 private:
  Builder& b_;
  uint8_t was_;
};

class Primal {
 public:
  explicit Primal(Builder& b) : b_(b), was_(b.primal) { b.primal = true; }
  ~Primal() { b_.primal = was_; }

 private:
  Builder& b_;
  bool was_;
};

// D's scores on a batch, their losses' derivatives and the unit-seed backward pass.
struct Scored {
  Sweep d;
  int fakes = 0, reals = 0;
  Ref c_g, c_d, cc_g, cc_d;
  Ref e() const { return d.input_cotangent; }  // ds/dx of the fakes
  int rows() const { return fakes + reals; }
};

class GameLowering {
 public:
  GameLowering(Builder& b, const Game& game, bool plain) : b(b), game(game), plain(plain) {
    phi = b.external(Slot::phi, "phi");
    x_features = b.layout.stages[index(D)].front().in;
  }

  // x [fakes + reals][features]: G's samples, then the real batch.
  void play() {
    Primal primal(b);
    const int z_features = b.layout.stages[index(G)].front().in;
    Ref z = b.kept(b.rows("z", game.fakes, z_features));
    emit_rows(Op::noise, z, game.fakes, z_features);
    x = b.kept(b.rows("x", game.fakes + game.reals, x_features));
    g = forward(b, G, "g", phi, z, game.fakes, x);
    Tag tag(b, game.alternating ? kDiscriminator : kBoth);
    emit_rows(Op::load, from_row(x, game.fakes, b.layout, x_features), game.reals, x_features);
  }

  // `reports`: the players whose losses the head writes to the trace.
  Scored score(const std::string& name, Ref parameters, int reals, int input_rows, uint8_t reports) {
    Primal primal(b);
    Scored s;
    s.fakes = game.fakes;
    s.reals = reals;
    s.d = forward(b, D, name, parameters, x, s.rows());
    Instr head;
    head.op = Op::head;
    head.rows = s.rows();
    head.columns = 1;
    head.fakes = s.fakes;
    head.reals = reals;
    head.a0 = s.d.h.back();
    auto vec = [&](const char* what) { return b.kept(b.vector(name + what, s.rows())); };
    if (reports & kGenerator) head.c_g = s.c_g = vec(".c_g"), head.cc_g = s.cc_g = vec(".cc_g");
    if (reports & kDiscriminator) head.c_d = s.c_d = vec(".c_d"), head.cc_d = s.cc_d = vec(".cc_d");
    head.index = reports;
    if (traced) head.stats = b.statistics(name + ".stats");
    b.emit(head);
    Instr seed;
    seed.op = Op::spread;
    seed.rows = s.rows();
    seed.columns = 1;
    seed.out = b.rows(name + ".one", s.rows(), 1);
    b.emit(seed);
    backward(b, s.d, seed.out, {}, input_rows);
    return s;
  }

  void back_through_generator(const Scored& s) {
    Primal primal(b);
    backward(b, g, s.e(), s.c_g, 0);
  }

  Ref gradient(Player player, const Scored& s) {
    Ref f = b.parameters(player == G ? "F_G" : "F_D", player);
    if (player == G)
      weight_gradient(b, g, {}, game.fakes, f);
    else
      weight_gradient(b, s.d, s.c_d, s.rows(), f);
    return f;
  }

  void check(Player player, Ref f) {
    Instr instr;
    instr.op = Op::check;
    instr.player = player;
    instr.a0 = f;
    b.emit(instr);
  }

  // One player's step from its batch, to `next`. Plain SGD's update is made as the gradient is.
  void descend(Player player, const Scored& s, Ref next) {
    if (!plain) {
      Ref f = gradient(player, s);
      check(player, f);
      update(player, f, next, b.moments(Slot::moment_next, "moment_next"));
      return;
    }
    if (player == G)
      weight_gradient(b, g, {}, game.fakes, next, phi);
    else
      weight_gradient(b, s.d, s.c_d, s.rows(), next, phi);
    check(player, {});
    update(player, {}, next, {});
  }

  // The player's parameters after its step; absent moment_next: the moments after it are not wanted.
  void update(Player player, Ref f, Ref theta_next, Ref moment_next) {
    Tag all(b, kBoth);  // an inactive player's parameters are carried over
    Instr instr;
    instr.op = Op::update;
    instr.player = player;
    instr.a0 = f;
    if (f) instr.moment = b.moments(Slot::moment, "moment");
    instr.theta = phi;
    instr.rate_scale = b.external(Slot::rate_scale, "rate_scale");
    instr.out = theta_next;
    instr.moment_next = moment_next;
    b.emit(instr);
  }

  Ref direction(int c, const std::string& suffix) { return b.external(Slot::cotangent, "v" + suffix, c); }

  // w = the adjoint of F through one player's update; v_moment moves on. f: absent where it is not read.
  Ref adjoint(Player player, int c, Ref f, bool rates, const std::string& suffix) {
    Tag all(b, kBoth);
    Instr instr;
    instr.op = Op::adjoint;
    instr.player = player;
    instr.index = c;
    instr.v = direction(c, suffix);
    instr.v_moment = b.moments(Slot::v_moment, "v_moment" + suffix, c);
    instr.rate_scale = b.external(Slot::rate_scale, "rate_scale");
    if (f) instr.a0 = f, instr.moment = b.moments(Slot::moment, "moment");
    if (rates) instr.d_scale = b.external(Slot::d_scale, "d_scale" + suffix, c);
    instr.out = b.parameters((player == G ? "w_G" : "w_D") + suffix, player);
    b.emit(instr);
    return instr.out;
  }

  // out [rows] = -rate of the player times `of` (absent: 1).
  Ref rate(Player player, Ref of, int rows, const std::string& name) {
    Tag all(b, kBoth);
    Instr instr;
    instr.op = Op::rate;
    instr.player = player;
    instr.rows = rows;
    instr.columns = 1;
    instr.a0 = of;
    instr.out = b.vector(name, rows);
    b.emit(instr);
    return instr.out;
  }

  // With plain SGD and without learned rates w = -rate v, so v itself is the direction (no copy of it is made), and
  // what multiplies a direction carries the rate: c and c' of its player and, in G, the cotangents.
  Scored with_rates(const Scored& s, uint8_t players) {
    Scored r = s;
    if (players & kGenerator) {
      r.c_g = rate(G, s.c_g, s.fakes, s.d.name + ".rate_c_g");
      r.cc_g = rate(G, s.cc_g, s.fakes, s.d.name + ".rate_cc_g");
    }
    if (players & kDiscriminator) {
      r.c_d = rate(D, s.c_d, s.rows(), s.d.name + ".rate_c_d");
      r.cc_d = rate(D, s.cc_d, s.rows(), s.d.name + ".rate_cc_d");
    }
    return r;
  }
  Sweep generator_with_rates() {
    Sweep r = g;
    const Ref factor = rate(G, {}, game.fakes, "g.rate");
    const auto& stages = b.layout.stages[index(G)];
    for (int i = 0; i < static_cast<int>(stages.size()); ++i)
      for (Ref* cotangent : {&r.delta[i], &r.g[i]}) {
        if (!*cotangent) continue;
        Instr scale;
        scale.op = Op::elementwise;
        scale.rows = game.fakes;
        scale.columns = stages[i].out;
        scale.a0 = *cotangent;
        scale.scale = factor;
        scale.out = *cotangent = b.rows("rate_" + b.value(*cotangent).name, game.fakes, stages[i].out);
        b.emit(scale);
      }
    return r;
  }

  // v += Hess(L_G) (w_G, 0) + Hess(L_D) (0, w_D) at one evaluation point; an absent w drops its term. `keep`: which
  // halves of v.
  void product(const Sweep& g, const Scored& s, int c, Ref w_g, Ref w_d, uint8_t keep, const std::string& suffix) {
    const int fakes = game.fakes, rows = w_d ? s.rows() : fakes;
    const Ref v = direction(c, suffix);
    // Direction A: through G to its samples.
    TangentSweep g_tangent = forward_tangent(b, g, w_g, {}, 0, {}, {}, fakes, suffix);
    Ref ds_a, y0;
    if (w_g) {
      Instr dot;
      dot.op = Op::row_dot;
      dot.rows = fakes;
      dot.columns = x_features;
      dot.a0 = s.e();
      dot.b0 = g_tangent.y.back();
      ds_a = dot.out = b.vector("ds_a" + suffix, fakes);
      b.emit(dot);
      Instr scale;
      scale.op = Op::elementwise;
      scale.rows = fakes;
      scale.columns = x_features;
      scale.a0 = g_tangent.y.back();
      scale.scale = s.c_g;
      y0 = scale.out = b.rows("y0" + suffix, fakes, x_features);
      b.emit(scale);
    }
    // Both through D, merged.
    Ref ds_b;
    if (w_d) {
      Instr zero;
      zero.op = Op::fill;
      zero.rows = rows;
      zero.columns = 1;
      ds_b = zero.out = b.rows("ds_b" + suffix, rows, 1);
      b.emit(zero);
    }
    TangentSweep d_tangent = forward_tangent(b, s.d, w_d, y0, fakes, s.c_d, ds_b, rows, suffix);
    Instr dc;
    dc.op = Op::combine;
    dc.rows = rows;
    dc.columns = 1;
    if (w_g) dc.rows0 = fakes, dc.a0 = s.cc_g, dc.b0 = ds_a;
    if (w_d) dc.a1 = s.cc_d, dc.b1 = ds_b;
    dc.out = b.vector("dc" + suffix, rows);
    b.emit(dc);
    Instr seed;
    seed.op = Op::spread;
    seed.rows = rows;
    seed.columns = 1;
    seed.a0 = dc.out;
    seed.out = b.rows("dc_rows" + suffix, rows, 1);
    b.emit(seed);
    const int input_rows = keep & kGenerator ? fakes : 0;
    CotangentTangent d_cotangent = backward_tangent(b, s.d, d_tangent, w_d, seed.out, s.c_d, rows, input_rows, suffix);
    if (keep & kDiscriminator) weight_tangent(b, s.d, d_tangent, d_cotangent, rows, fakes, v);
    if (keep & kGenerator) {
      CotangentTangent g_cotangent = backward_tangent(b, g, g_tangent, w_g, d_cotangent.input, {}, fakes, 0, suffix);
      weight_tangent(b, g, g_tangent, g_cotangent, fakes, 0, v);
    }
    b.forget_transposed(v);
  }

  Builder& b;
  const Game& game;
  const bool plain;     // see Program
  bool traced = false;  // losses and statistics go to the trace
  Ref phi, x;
  int x_features = 0;
  Sweep g;

 private:
  void emit_rows(Op op, Ref out, int rows, int columns) {
    Instr instr;
    instr.op = op;
    instr.rows = rows;
    instr.columns = columns;
    instr.out = out;
    if (const int size = b.layout.z.features(); op == Op::noise && !b.layout.z.flat())  // drawn in torch's order
      instr.scratch = b.scratch("drawn", rows * (b.layout.target.pad(size) + size));
    b.emit(instr);
  }
};

void lower_simultaneous_step(GameLowering& l, const Game& game) {
  Builder& b = l.b;
  l.traced = true;
  l.play();
  Scored s = l.score("d", l.phi, game.reals, game.fakes, kBoth);
  l.back_through_generator(s);
  const Ref next = b.external(Slot::phi_next, "phi_next");
  for (Player p : kPlayers) {
    Tag tag(b, bit(p));
    l.descend(p, s, next);
  }
}

// D at (G_k, D_k), then G at (G_k, D_{k+1}); both see the same samples of G.
void lower_alternating_step(GameLowering& l, const Game& game) {
  Builder& b = l.b;
  const Ref next = b.external(Slot::phi_next, "phi_next");
  l.traced = true;
  l.play();
  {
    Tag tag(b, kDiscriminator);
    Scored s = l.score("d", l.phi, game.reals, 0, kDiscriminator);
    l.descend(D, s, next);
  }
  Tag tag(b, kGenerator);
  Scored s = l.score("d'", next, 0, game.fakes, kGenerator);
  l.back_through_generator(s);
  l.descend(G, s, next);
}

// How a pull-back finds its directions: v itself, or w, made by the adjoint of the update.
struct Pull {
  const std::vector<Halves>& cotangents;
  bool rates;     // derivatives of the rates are wanted
  bool gradient;  // F is: for these or for an optimiser's adjoint
  bool direct;    // v itself, see with_rates
};

void lower_simultaneous_pull(GameLowering& l, const Game& game, const Pull& pull) {
  l.play();
  Scored s = l.score("d", l.phi, game.reals, game.fakes, kBoth);
  l.back_through_generator(s);
  Ref f[2];
  if (pull.gradient)
    for (Player p : kPlayers) {
      Tag tag(l.b, bit(p));
      f[index(p)] = l.gradient(p, s);
    }
  const Scored at = pull.direct ? l.with_rates(s, kBoth) : s;
  const Sweep g = pull.direct ? l.generator_with_rates() : l.g;
  for (int c = 0; c < static_cast<int>(pull.cotangents.size()); ++c) {
    const auto [support, keep] = pull.cotangents[c];
    const std::string suffix = "#" + std::to_string(c);
    Ref w[2];
    for (Player p : kPlayers)
      if (support & bit(p))
        w[index(p)] = pull.direct ? l.direction(c, suffix) : l.adjoint(p, c, f[index(p)], pull.rates, suffix);
    l.product(g, at, c, w[0], w[1], keep, suffix);
  }
}

void lower_alternating_pull(GameLowering& l, const Game& game, const Pull& pull) {
  Builder& b = l.b;
  l.play();
  Scored first, second;
  Ref f[2], next;
  {
    Tag tag(b, kDiscriminator);
    first = l.score("d", l.phi, game.reals, game.fakes, kDiscriminator);
    const bool again = b.keep != Builder::Keep::read;  // D_{k+1}: made again, or read back
    const Ref gradient = pull.gradient || again ? l.gradient(D, first) : Ref{};
    if (pull.gradient) f[index(D)] = gradient;
    next = again ? b.parameters("D_{k+1}", D) : b.external(Slot::phi_next, "phi_next");
    if (again) l.update(D, gradient, next, {});
  }
  {
    Tag tag(b, kGenerator);
    second = l.score("d'", next, 0, game.fakes, kGenerator);
    l.back_through_generator(second);
    if (pull.gradient) f[index(G)] = l.gradient(G, second);
  }
  if (pull.direct) second = l.with_rates(second, kGenerator), first = l.with_rates(first, kDiscriminator);
  const Sweep g = pull.direct ? l.generator_with_rates() : l.g;
  for (int c = 0; c < static_cast<int>(pull.cotangents.size()); ++c) {
    auto [support, keep] = pull.cotangents[c];
    const std::string suffix = "#" + std::to_string(c);
    if (support & kGenerator) {
      Tag tag(b, kGenerator);
      Ref w = pull.direct ? l.direction(c, suffix) : l.adjoint(G, c, f[index(G)], pull.rates, suffix);
      // D's half is wanted even where it is not kept: D's own update comes next.
      l.product(g, second, c, w, {}, keep | kDiscriminator, suffix + "a");
    }
    Tag tag(b, kDiscriminator);
    Ref w = pull.direct ? l.direction(c, suffix) : l.adjoint(D, c, f[index(D)], pull.rates, suffix);
    l.product(l.g, first, c, {}, w, keep, suffix + "b");
  }
}

}  // namespace

const char* name(Op op) {
  static const char* const names[] = {"noise",     "load",  "input",       "fill",    "spread",  "rate",
                                      "product",   "outer", "elementwise", "row_dot", "combine", "head",
                                      "transpose", "check", "update",      "adjoint", "output"};
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
  if (game_.keep_all) {
    // What the general pull-back reads is what a step keeps.
    Builder b("pull", layout_, moments());
    b.keep = Builder::Keep::read;
    GameLowering l(b, game_, plain());
    const std::vector<Halves> everything{Halves{}};
    (game_.alternating ? lower_alternating_pull : lower_simultaneous_pull)(l, game_, {everything, true, true, false});
    Procedure general = b.finish();
    const auto names = b.residuals_read();
    for (const Value& v : general.values)
      if (names.contains(v.name)) {
        residuals_[v.name] = residual_elements_;
        residual_elements_ += (v.elements + 15) / 16 * 16;
      }
  }
  Builder b("step", layout_, moments());
  b.residuals = &residuals_;
  b.keep = game_.keep_all ? Builder::Keep::write : Builder::Keep::none;
  GameLowering l(b, game_, plain());
  (game_.alternating ? lower_alternating_step : lower_simultaneous_step)(l, game_);
  step_ = std::make_unique<Procedure>(b.finish());
}

int Program::moments() const {
  int most = 0;
  for (Optimiser kind : game_.optimisers) most = std::max(most, moments_of(kind));
  return most;
}

bool Program::reads_gradient() const {
  return std::any_of(game_.optimisers.begin(), game_.optimisers.end(), adjoint_reads_gradient);
}

const Procedure& Program::pull(const std::vector<Halves>& cotangents, bool rates, bool scaled) {
  std::lock_guard lock(mutex_);
  const bool direct = !rates && !scaled && plain(), gradient = rates || reads_gradient();
  auto& made = pulls_[{cotangents, rates, direct}];
  if (!made) {
    Builder b("pull", layout_, moments());
    b.residuals = &residuals_;
    b.keep = game_.keep_all ? Builder::Keep::read : Builder::Keep::none;
    GameLowering l(b, game_, plain());
    (game_.alternating ? lower_alternating_pull : lower_simultaneous_pull)(l, game_,
                                                                           {cotangents, rates, gradient, direct});
    made = std::make_unique<Procedure>(b.finish());
  }
  return *made;
}

// (dL_G/dtheta_G, dL_D/dtheta_D); full: the whole gradient of L_G, then that of L_D.
const Procedure& Program::gradients(bool full) {
  std::lock_guard lock(mutex_);
  auto& made = gradients_[full];
  if (!made) {
    Builder b(full ? "gradients_full" : "gradients", layout_);
    GameLowering l(b, game_, plain());
    l.traced = true;
    l.play();
    Scored s = l.score("d", l.phi, game_.reals, game_.fakes, kBoth);
    Ref out = b.external(Slot::gradient, "gradient");
    l.back_through_generator(s);
    weight_gradient(b, l.g, {}, game_.fakes, out);
    if (full) {
      weight_gradient(b, s.d, s.c_g, game_.fakes, out);
      Ref other = b.external(Slot::gradient, "gradient_D", 1);
      Sweep g_of_d = l.g;
      g_of_d.name = "g_of_d";
      backward(b, g_of_d, s.e(), s.c_d, 0);
      weight_gradient(b, g_of_d, {}, game_.fakes, other);
      weight_gradient(b, s.d, s.c_d, s.rows(), other);
    } else {
      weight_gradient(b, s.d, s.c_d, s.rows(), out);
    }
    made = std::make_unique<Procedure>(b.finish());
  }
  return *made;
}

namespace {

Procedure lower_generator(const Layout& layout, int batch, bool vjp) {
  Builder b(vjp ? "generate_vjp" : "generate", layout);
  const auto& stages = layout.stages[index(G)];
  Ref phi = b.external(Slot::phi, "phi");
  Instr in;
  in.op = Op::input;
  in.rows = batch;
  in.columns = stages.front().in;
  in.out = b.rows("z", batch, in.columns);
  b.emit(in);
  Sweep g = forward(b, G, "g", phi, in.out, batch);
  if (vjp) {
    Instr cotangent = in;
    cotangent.index = 1;
    cotangent.columns = stages.back().out;
    cotangent.out = b.rows("dx", batch, cotangent.columns);
    b.emit(cotangent);
    backward(b, g, cotangent.out, {}, 0);
    weight_gradient(b, g, {}, batch, b.external(Slot::gradient, "gradient"));
  } else {
    Instr out;
    out.op = Op::output;
    out.rows = batch;
    out.columns = stages.back().out;
    out.a0 = g.h.back();
    b.emit(out);
  }
  return b.finish();
}

}  // namespace

const Procedure& Program::generate(int batch) {
  std::lock_guard lock(mutex_);
  auto& made = generators_[{false, batch}];
  if (!made) made = std::make_unique<Procedure>(lower_generator(layout_, batch, false));
  return *made;
}

const Procedure& Program::generate_vjp(int batch) {
  std::lock_guard lock(mutex_);
  auto& made = generators_[{true, batch}];
  if (!made) made = std::make_unique<Procedure>(lower_generator(layout_, batch, true));
  return *made;
}

}  // namespace pymgan
