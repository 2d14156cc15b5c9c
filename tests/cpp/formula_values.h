// Activations and losses in double, through the recorded expressions: what the kernels' results are held against.
// test_formulas.cpp holds these against the definitions and finite differences.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>

#include "check.h"
#include "expression.h"
#include "formulas.h"

namespace pymgan {

inline double evaluate(const Expression& e, const std::map<std::string, double>& at) {
  const auto& n = e.node();
  auto arg = [&](int i) { return evaluate(n.args[i], at); };
  if (n.op == "constant") return n.value;
  if (n.op == "variable") return at.at(n.name);
  if (n.op == "add") return arg(0) + arg(1);
  if (n.op == "sub") return arg(0) - arg(1);
  if (n.op == "mul") return arg(0) * arg(1);
  if (n.op == "div") return arg(0) / arg(1);
  if (n.op == "neg") return -arg(0);
  if (n.op == "exp") return std::exp(arg(0));
  if (n.op == "expm1") return std::expm1(arg(0));
  if (n.op == "log1p") return std::log1p(arg(0));
  if (n.op == "tanh") return std::tanh(arg(0));
  if (n.op == "abs") return std::abs(arg(0));
  if (n.op == "sqrt") return std::sqrt(arg(0));
  if (n.op == "max") return std::max(arg(0), arg(1));
  if (n.op == "where_positive") return arg(0) > 0 ? arg(1) : arg(2);
  check::fail("unknown op " + n.op);
  return 0;
}

struct Case {
  Activation activation;
  std::array<double, 2> attributes;
  const char* name;
};
inline const Case kCases[] = {{Activation::identity, {}, "identity"},
                              {Activation::leaky_relu, {0.2, 0}, "leaky_relu"},
                              {Activation::leaky_relu, {-0.3, 0}, "leaky_relu(-0.3)"},
                              {Activation::relu, {}, "relu"},
                              {Activation::elu, {1.3, 0}, "elu"},
                              {Activation::silu, {}, "silu"},
                              {Activation::softplus, {1.5, 20}, "softplus"},
                              {Activation::softplus, {2, 1}, "softplus, threshold 1"},
                              {Activation::tanh, {}, "tanh"},
                              {Activation::sigmoid, {}, "sigmoid"}};
inline const Loss kLosses[] = {Loss::nonsaturating, Loss::hinge, Loss::least_squares, Loss::wasserstein};
inline const char* const kTerms[] = {"g", "d_fake", "d_real"};
inline const Optimiser kOptimisers[] = {Optimiser::sgd,        Optimiser::normalised,   Optimiser::momentum,
                                        Optimiser::nesterov,   Optimiser::rmsprop,      Optimiser::adam,
                                        Optimiser::optimistic, Optimiser::extragradient};

// f, f', f'' at the pre-activation a.
inline double f_of(const Case& c, int order, double a) {
  const std::map<std::string, double> p{{"p0", c.attributes[0]}, {"p1", c.attributes[1]}};
  auto at = p;
  at["x"] = a;
  const double h = evaluate(activation_expression(c.activation, 0), at);
  if (order == 0) return h;
  at["ref"] = from_output(c.activation, c.attributes) ? h : a;
  return evaluate(activation_expression(c.activation, order), at);
}

inline double loss_of(Loss loss, const char* term, int order, double s, double e) {
  return evaluate(loss_expression(loss, term, order), {{"s", s}, {"e", e}});
}

inline double optimiser_of(Optimiser kind, const char* part, const std::map<std::string, double>& at) {
  return evaluate(optimiser_expression(kind, part), at);
}

}  // namespace pymgan
