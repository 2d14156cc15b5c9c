// A recorder: the formulas of formulas.h as trees, for engines that are not compiled from them (torch, Triton).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optimisers.h"
#include "plan.h"

namespace pymgan {

class Expression {
 public:
  struct Node {
    // "constant" (value), "variable" (name), "add" "sub" "mul" "div" "neg" "exp" "expm1" "log1p" "tanh" "erf" "abs"
    // "sqrt", "max" (NaN in the first argument stays), "where_positive" (args[0] > 0 ? args[1] : args[2])
    std::string op;
    std::string name;
    double value = 0;
    std::vector<Expression> args;
  };

  Expression(double value);  // NOLINT: formulas convert constants
  static Expression variable(const std::string& name);
  static Expression make(const std::string& op, std::vector<Expression> args);

  const Node& node() const { return *node_; }

 private:
  explicit Expression(std::shared_ptr<const Node> node) : node_(std::move(node)) {}
  std::shared_ptr<const Node> node_;
};

// Products with 1 and negated constants are folded: 1 * x does not reach a kernel.
Expression operator+(const Expression& a, const Expression& b);
Expression operator-(const Expression& a, const Expression& b);
Expression operator*(const Expression& a, const Expression& b);
Expression operator/(const Expression& a, const Expression& b);
Expression operator-(const Expression& a);
Expression exp(const Expression& a);
Expression expm1(const Expression& a);
Expression log1p(const Expression& a);
Expression tanh(const Expression& a);
Expression erf(const Expression& a);
Expression abs(const Expression& a);
Expression sqrt(const Expression& a);
Expression max(const Expression& a, const Expression& b);
Expression where_positive(const Expression& c, const Expression& a, const Expression& b);

// f (order 0, variable "x"), or its derivative of that order up to 3 (in "ref", see from_output); attributes are "p0"
// and "p1".
Expression activation_expression(Activation activation, int order);

// A loss's term "g", "g_real", "d_fake" or "d_real", or its first or second derivative by the score; variables "s" and
// "e" (smoothing).
Expression loss_expression(Loss loss, const std::string& term, int order);

// A penalty in a gradient's squared norm, variables "n" and "eps", or its first or second derivative by n.
Expression penalty_expression(PenaltyKind kind, int order);

// A part of an inner optimiser's update or its adjoint: "direction", "m0", "m1" (the moments after it), "w", "v0" or
// "v1" (cotangents of the gradient and of the moments before it). Variables: "F", "m0", "m1" before the update, "a",
// "v0", "v1" after it, and the knobs by their names.
Expression optimiser_expression(Optimiser kind, const std::string& part);

}  // namespace pymgan
