// The instruction list: what the lowering makes of a game once, and every engine executes.
//
// A Procedure is a straight list over Values; jets, zeros, merges and storage have been decided when it is made. The
// mathematics stands in derivatives.h (graphs of nodes) and players.h (the two players); this file is the vocabulary.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "augmentation.h"
#include "layout.h"
#include "optimisers.h"
#include "plan.h"

namespace pymgan {

enum class Op : uint8_t {
  noise,        // out [rows][columns] = explicit noise or the counter-based generator's; index 1: the instance noise
  load,         // out [rows][columns] = the step's real batch
  input,        // out [rows][columns] = the caller's rows (generate's z; generate_vjp's cotangent)
  fill,         // out [rows], or all parameters, = 0
  add,          // out += a0, parameters
  spread,       // out [rows][columns]: column 0 = a0 [rows] (absent: 1), padding 0
  rate,         // out [rows] = -rate a0 [rows] (absent: 1) with the player's rate; 0 where it is inactive
  product,      // out = apply(scale * (a0 B0 + bias) + a1 B1), rowsum(dot_out) += rowsum(dot * (a0 B0 + bias))
  diagonal,     // the same with numbers w and b of a diagonal tensor, element by element
  fixed,        // out = a0 through Layout::maps[map]; adjoint: through its transpose
  softmax,      // out = a0's softmax over each of Layout::groups[map]
  outer,        // F = b0^T a0 + b1^T a1 (contraction over rows0, rows1), W-shaped, and column sums of b0, its bias;
                // (of a diagonal tensor: their elements' products, summed over rows and over elements of a number);
                // out (+)= F; with theta: out = theta - rate scale F, and F's squares go to the player's `check`
  elementwise,  // out = apply(scale * a0 b0 + a1), b0 absent: 1
  row_dot,      // out [rows] = sum over columns of a0 * b0
  combine,      // out [rows] = a0 * b0 (rows0 of them) + a1 * rowsum(b1): d of c_G plus d of c_D; with fakes, of
                // relative scores R s (score less the mean score of the other kind): R^T (a0 R b0 + a1 R rowsum(b1))
  mix,          // c_g [rows] = u, c_d [rows] = 1 - u: uniform numbers of the step, one a sample
  draw,         // out [fakes + reals][columns]: how samples are augmented; number i is of fake i and of real i
  augment,      // out = A a0, with the numbers b0; with bias, their brightness is added first; adjoint: A^T a0
  penalty,    // squared norms a0 [rows] of ds/dx -> c_d = 2 p' and cc_d = 4 p'' of their penalty's mean; the loss of D
  head,       // scores a0 -> c_g, c_d, their derivatives, losses and statistics
  transpose,  // out = W^T of the weight a0, in the layout that products with W want
  check,   // norm of a player's gradient a0 (absent: of its outer products with theta); a non-finite one ends the task
  update,  // out = theta - rate scale d of the step's optimiser (optimisers.h) at the gradient a0 and the moment, and
           // moment_next; a0 absent: only an inactive player's theta is carried over
  spectral_iterate,  // out = (u, v) of D's spectral norms (spectral.h) after power iterations from a0 with weights
                     // theta
  spectral_weights,  // out = D's parameters theta with W / sigma for W; pre [layers] = sigma, with the (u, v) of q
  spectral_tangent,  // out = their change along a0; pre [layers] = sigma's; b0, ref: W / sigma and sigma
  spectral_adjoint,  // out (+)= the cotangent of theta, of a0's; with a1, the gradient with respect to W / sigma, also
                     // of what a1 changes by along b1, along which sigma changes by g
  adjoint,  // out = w, the adjoint of the gradient through `update`; v_moment; with d_scale: derivatives of the rates.
            // a0, moment: as in `update`, where they are read
  output,   // the caller's rows = a0
};
const char* name(Op op);

// Where a value lives.
enum class Slot : uint8_t {
  temp,           // arena, offset from liveness
  residual,       // kept from a step for its pull-back: `saved` in storage mode "all"
  phi,            // parameters before the step
  phi_next,       // parameters after it
  moment,         // of the optimiser, before the step
  moment_next,    // after it
  spectral,       // (u, v) of D's spectral norms, before the step
  spectral_next,  // after it
  rate_scale,     // learned multiplier of the rate, shared by all tasks
  cotangent,      // v of cotangent `index`: of phi_{k+1} before the procedure, of phi_k after it
  v_moment,       // the same for the moments
  d_scale,        // derivative with respect to rate_scale
  gradient,       // result of the `gradients` procedures, `index` of two
  statistics,  // [6] of a head, looked at and perhaps traced: L_G, L_D, mean and deviation of the scores of fakes, then
               // of reals
};
inline constexpr int kSlots = 14;
const char* name(Slot slot);

enum class Shape : uint8_t { rows, vector, parameters };

struct Value {
  std::string name;
  Slot slot = Slot::temp;
  Shape shape = Shape::rows;
  int index = 0;              // cotangent number
  int rows = 0, columns = 0;  // rows: [rows][pad(columns)]; vector: [rows]
  int player = -1;            // parameters: of one player, -1: of both
  int64_t elements = 0;       // allocated, padding included
  int64_t offset = -1;        // in the arena (temp), in the residual block (residual), or in the slot's buffer
};

// An operand: a value, from one of its rows on, or one tensor of a parameter-shaped value.
struct Ref {
  int value = -1;
  int row = 0;
  int tensor = -1;
  int64_t offset = 0;        // elements from the value's start
  int64_t bias_offset = -1;  // of the tensor's bias, likewise; -1: none
  explicit operator bool() const { return value >= 0; }
};

inline constexpr uint8_t kGenerator = 1, kDiscriminator = 2, kBoth = 3;

struct Instr {
  Op op = Op::fill;
  uint8_t players = kBoth;    // executed if one of these players is active in the step
  int rows = 0, columns = 0;  // of the output
  int depth = 0;              // contracted features of a product; of one tap, with a window
  int map = -1;               // fixed, softmax
  int window = -1;            // product, outer: index into Layout::windows of its weight, -1: samples are flat
  int rows0 = 0, rows1 = 0;   // contracted rows of outer's terms; rows of combine's first term
  bool adjoint = false;       // product: B is W (a cotangent goes back), not W^T; fixed
  bool accumulate = false;
  Player player = Player::generator;  // update, outer with theta, rate, adjoint, check
  int index = 0;                      // cotangent number (adjoint), caller's buffer (input), players that report (head)
  Apply apply = Apply::store;
  Activation activation = Activation::identity;
  std::array<double, 2> attributes{};
  int order = 0;             // elementwise with act: f^(order), of a0 as ref says
  int fakes = 0, reals = 0;  // head; combine of relative scores
  bool traced = true;        // head, penalty, check: what they look at goes to the trace

  Ref a0, b0, a1, b1, bias, scale, dot, ref, q, g;
  Ref theta, moment, rate_scale;
  // outputs
  Ref out, moment_next, pre, dot_out, c_g, c_d, cc_g, cc_d, stats, v, v_moment, d_scale;
  // Outer with theta: F of a weight stored by rows or of a diagonal, then of the bias; of a diagonal also sums over
  // rows. Product with a window: what a tile sees. Diagonal: w, the other w and b of every element.
  Ref scratch;

  int64_t flops = 0;  // of products, the merged count
  int64_t bytes = 0;  // read and written once each
};

// Calls visit(ref, is_written) for every operand present; an accumulated output is read and written.
template <class I, class Visit>
void visit_operands(I& instr, Visit&& visit) {
  for (auto* r : {&instr.a0, &instr.b0, &instr.a1, &instr.b1, &instr.bias, &instr.scale, &instr.dot, &instr.ref,
                  &instr.q, &instr.g, &instr.theta, &instr.moment, &instr.rate_scale})
    if (*r) visit(*r, false);
  for (auto* r : {&instr.out, &instr.pre, &instr.dot_out, &instr.c_g, &instr.c_d, &instr.cc_g, &instr.cc_d,
                  &instr.stats, &instr.moment_next, &instr.v, &instr.v_moment, &instr.d_scale, &instr.scratch})
    if (*r) visit(*r, true);
}

struct Procedure {
  std::string name;
  std::vector<Value> values;
  std::vector<Instr> code;
  int64_t arena = 0;  // elements
  int64_t flops = 0, bytes = 0;

  std::string table() const;
};

// Of D, on the gradient e = ds/dx of a score with respect to its sample, at real samples (r1), G's (r2) or between two
// of each: weight times the mean of |e|^2 / 2 (r1, r2), |e|^2 (zero_centred) or (|e| - 1)^2 (wgan_gp).
struct Penalty {
  PenaltyKind kind = PenaltyKind::none;
  double weight = 0;
  int every = 1;  // in steps whose number is a multiple, and as much stronger
  bool between() const { return kind == PenaltyKind::wgan_gp || kind == PenaltyKind::zero_centred; }
  bool in_step(int64_t number) const { return kind != PenaltyKind::none && number % every == 0; }
};

// Streams of the engine's own; the caller's are below them.
inline constexpr uint32_t kMixStream = (1u << 16) - 1;            // of the noise that mixes samples
inline constexpr uint32_t kAugmentStream = (1u << 16) - 2;        // that augments them
inline constexpr uint32_t kInstanceNoiseStream = (1u << 16) - 3;  // that is added to them

struct Game {
  Loss loss = Loss::nonsaturating;
  double smoothing = 0.0;
  int fakes = 1, reals = 1;
  bool alternating = false;
  bool relative() const { return pymgan::relative(loss); }
  bool keep_all = false;  // storage mode "all": residuals of every step are kept

  std::vector<Optimiser> optimisers{Optimiser::sgd};  // those that a schedule may choose from
  double momentum = 0.9;                              // of momentum and nesterov
  std::array<double, 2> betas{0.9, 0.999};            // of adam; the second also of rmsprop
  double eps = 1e-8;                                  // of normalised, rmsprop and adam
  Penalty penalty;
  Augmentation augmentation;  // of everything that D scores
  double instance_noise = 0;  // the deviation of what is then added
};

// Which halves of a cotangent can be nonzero before a pull-back and which are wanted after it (masks of kGenerator,
// kDiscriminator).
struct Halves {
  uint8_t support = kBoth, keep = kBoth;
  auto operator<=>(const Halves&) const = default;
};

// Which procedure a step takes: with D's penalty, if the game has one, and as extragradient does.
struct StepForm {
  bool penalised = true, extra = false;
  auto operator<=>(const StepForm&) const = default;
};

// The lowering of one game for one target. Procedures are made on first use and kept; threads may share a Program.
class Program {
 public:
  Program(const Plan& plan, const Game& game, const Target& target);

  const Plan& plan() const { return plan_; }
  const Game& game() const { return game_; }
  const Layout& layout() const { return layout_; }
  // Nothing but SGD: v itself is the direction of a pull-back, and without a penalty updates are fused into `outer`.
  bool plain() const { return game_.optimisers.size() == 1 && game_.optimisers[0] == Optimiser::sgd; }
  bool has_penalty() const { return game_.penalty.kind != PenaltyKind::none; }
  bool has_spectral() const { return !layout_.spectral.empty(); }
  bool fused() const { return plain() && !has_penalty() && !has_spectral(); }
  int moments() const;          // parameter-shaped vectors of the optimisers' state, as many as the largest needs
  bool reads_gradient() const;  // some adjoint does
  int64_t residual_elements() const { return residual_elements_; }

  // Those that the game's steps can have.
  const std::vector<StepForm>& forms() const { return forms_; }
  const Procedure& step(StepForm form = {}) const { return *steps_.at(known(form)); }
  int64_t step_arena() const;  // of the largest form
  // One step's pull-back for all cotangents. rates: d/d rate and d/d rate_scale too; scaled: there is a rate_scale.
  const Procedure& pull(const std::vector<Halves>& cotangents, bool rates, bool scaled, StepForm form = {});
  const Procedure& gradients(bool full);
  const Procedure& generate(int batch) { return generator(batch, false); }
  const Procedure& generate_vjp(int batch) { return generator(batch, true); }

 private:
  StepForm known(StepForm form) const;  // the one of the game's forms that is meant
  void place_residuals();
  const Procedure& generator(int batch, bool vjp);
  Plan plan_;
  Game game_;
  Layout layout_;
  std::map<std::string, int64_t> residuals_;  // offset of each kept value, by name
  int64_t residual_elements_ = 0;
  std::vector<StepForm> forms_;
  std::map<StepForm, std::unique_ptr<Procedure>> steps_;
  std::mutex mutex_;  // of the three below
  std::map<std::tuple<std::vector<Halves>, bool, bool, StepForm>, std::unique_ptr<Procedure>> pulls_;
  std::map<bool, std::unique_ptr<Procedure>> gradients_;
  std::map<std::pair<bool, int>, std::unique_ptr<Procedure>> generators_;
};

}  // namespace pymgan
