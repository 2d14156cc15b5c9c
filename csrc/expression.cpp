#include "expression.h"

#include <stdexcept>

#include "formulas.h"

namespace pymgan {
namespace {

bool is(const Expression& e, double value) { return e.node().op == "constant" && e.node().value == value; }

void check_order(const char* who, int order, int most) {
  if (order < 0 || order > most)
    throw std::invalid_argument(std::string(who) + ": expected order 0 to " + std::to_string(most) + ", got " +
                                std::to_string(order));
}

}  // namespace

Expression::Expression(double value) : node_(std::make_shared<const Node>(Node{"constant", "", value, {}})) {}

Expression Expression::variable(const std::string& name) {
  return Expression(std::make_shared<const Node>(Node{"variable", name, 0, {}}));
}

Expression Expression::make(const std::string& op, std::vector<Expression> args) {
  return Expression(std::make_shared<const Node>(Node{op, "", 0, std::move(args)}));
}

Expression operator+(const Expression& a, const Expression& b) { return Expression::make("add", {a, b}); }
Expression operator-(const Expression& a, const Expression& b) { return Expression::make("sub", {a, b}); }
Expression operator*(const Expression& a, const Expression& b) {
  if (is(a, 1)) return b;
  if (is(b, 1)) return a;
  return Expression::make("mul", {a, b});
}
Expression operator/(const Expression& a, const Expression& b) { return Expression::make("div", {a, b}); }
Expression operator-(const Expression& a) {
  if (a.node().op == "constant") return Expression(-a.node().value);
  return Expression::make("neg", {a});
}
Expression exp(const Expression& a) { return Expression::make("exp", {a}); }
Expression expm1(const Expression& a) { return Expression::make("expm1", {a}); }
Expression log1p(const Expression& a) { return Expression::make("log1p", {a}); }
Expression tanh(const Expression& a) { return Expression::make("tanh", {a}); }
Expression erf(const Expression& a) { return Expression::make("erf", {a}); }
Expression abs(const Expression& a) { return Expression::make("abs", {a}); }
Expression sqrt(const Expression& a) { return Expression::make("sqrt", {a}); }
Expression max(const Expression& a, const Expression& b) { return Expression::make("max", {a, b}); }
Expression where_positive(const Expression& c, const Expression& a, const Expression& b) {
  return Expression::make("where_positive", {c, a, b});
}

Expression activation_expression(Activation activation, int order) {
  check_order("activation", order, 3);
  const Expression p0 = Expression::variable("p0"), p1 = Expression::variable("p1");
  return formulas::visit(activation, [&](auto f) {
    if (order == 0) return f.value(Expression::variable("x"), p0, p1);
    const auto d = f.derivatives(Expression::variable("ref"), p0, p1);
    return order == 1 ? d.first : order == 2 ? d.second : d.third;
  });
}

Expression loss_expression(Loss loss, const std::string& term, int order) {
  check_order("loss", order, 2);
  const Expression s = Expression::variable("s"), e = Expression::variable("e");
  return formulas::visit(loss, [&](auto l) {
    auto pick = [&](const formulas::LossTerm<Expression>& t) {
      return order == 0 ? t.value : order == 1 ? t.first : t.second;
    };
    if (term == "g") return pick(l.g(s, e));
    if (term == "g_real") return pick(l.g_real(s, e));
    if (term == "d_fake") return pick(l.d_fake(s, e));
    if (term == "d_real") return pick(l.d_real(s, e));
    throw std::invalid_argument("loss: expected term 'g', 'g_real', 'd_fake' or 'd_real', got '" + term + "'");
  });
}

Expression penalty_expression(PenaltyKind kind, int order) {
  check_order("penalty", order, 2);
  const Expression n = Expression::variable("n"), eps = Expression::variable("eps");
  return formulas::visit(kind, [&](auto p) {
    const auto t = p.of(n, eps);
    return order == 0 ? t.value : order == 1 ? t.first : t.second;
  });
}

Expression optimiser_expression(Optimiser kind, const std::string& part) {
  auto x = [](const char* name) { return Expression::variable(name); };
  const formulas::Knobs<Expression> k{x("momentum"), x("beta1"), x("beta2"), x("rest1"), x("rest2"), x("bias1"),
                                      x("bias2"),    x("eps"),   x("past"),  x("norm"),  x("along")};
  const Expression f = x("F");
  const formulas::Moments<Expression> m{x("m0"), x("m1")};
  return formulas::visit(kind, [&](auto optimiser) {
    const auto moved = optimiser.move(f, m, k);
    const auto pulled = optimiser.adjoint(f, m, x("a"), formulas::Moments<Expression>{x("v0"), x("v1")}, k);
    if (part == "direction") return moved.direction;
    if (part == "m0") return moved.moments.first;
    if (part == "m1") return moved.moments.second;
    if (part == "w") return pulled.w;
    if (part == "v0") return pulled.v.first;
    if (part == "v1") return pulled.v.second;
    throw std::invalid_argument("optimiser: expected part 'direction', 'm0', 'm1', 'w', 'v0' or 'v1', got '" + part +
                                "'");
  });
}

}  // namespace pymgan
