// Formulas against their definitions and finite differences in double; the choice of an instruction set.
#include <cstring>
#include <stdexcept>

#include "check.h"
#include "cpu/kernels.h"
#include "formula_values.h"

using namespace pymgan;
using namespace pymgan::cpu;

namespace {

// Values against their definitions, derivatives against differences.
void test_formulas() {
  const double d = 1e-5;
  for (const Case& c : kCases) {
    for (double a : {-30.0, -4.0, -1.1, -0.3, -0.01, 0.02, 0.4, 0.6, 1.7, 5.0, 30.0}) {
      const std::string what = std::string("formula ") + c.name + " at " + std::to_string(a);
      const double p0 = c.attributes[0], p1 = c.attributes[1];
      double wanted = a;
      if (c.activation == Activation::leaky_relu) wanted = a > 0 ? a : p0 * a;
      if (c.activation == Activation::relu) wanted = std::max(a, 0.0);
      if (c.activation == Activation::elu) wanted = a > 0 ? a : p0 * (std::exp(a) - 1);
      if (c.activation == Activation::silu) wanted = a / (1 + std::exp(-a));
      if (c.activation == Activation::softplus) wanted = p0 * a > p1 ? a : std::log(1 + std::exp(p0 * a)) / p0;
      if (c.activation == Activation::tanh) wanted = std::tanh(a);
      if (c.activation == Activation::sigmoid) wanted = 1 / (1 + std::exp(-a));
      check::near(f_of(c, 0, a), wanted, 1e-14 * (1 + std::abs(wanted)), what);
      for (int order : {1, 2}) {
        const double slope = (f_of(c, order - 1, a + d) - f_of(c, order - 1, a - d)) / (2 * d);
        check::near(f_of(c, order, a), slope, 1e-9 * (1 + std::abs(a)), what + ", derivative " + std::to_string(order));
      }
      if (!curved(c.activation)) check::that(f_of(c, 2, a) == 0, what + " should not be curved");
    }
  }
  // torch at the kinks
  check::that(f_of(kCases[1], 1, 0) == 0.2 && f_of(kCases[3], 1, 0) == 0 && f_of(kCases[4], 1, 0) == 1.3, "f'(0)");
  for (Loss loss : kLosses)
    for (const char* term : kTerms)
      for (double e : {0.0, 0.1})
        for (double s : {-40.0, -3.1, -0.7, -0.02, 0.03, 0.9, 1.2, 4.0, 40.0}) {
          const std::string what =
              "loss " + std::to_string(static_cast<int>(loss)) + " " + term + " at " + std::to_string(s);
          const bool fake = term[0] == 'd' && term[2] == 'f', real = term[0] == 'd' && !fake;
          auto softplus = [](double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); };
          double wanted = real || !fake ? -s : s;
          if (loss == Loss::nonsaturating)
            wanted = real ? (1 - e) * softplus(-s) + e * softplus(s) : fake ? softplus(s) : softplus(-s);
          if (loss == Loss::hinge && term[0] == 'd') wanted = std::max(0.0, fake ? 1 + s : 1 - s);
          if (loss == Loss::least_squares) {
            const double target = real ? 1 - e : fake ? 0 : 1;
            wanted = 0.5 * (s - target) * (s - target);
          }
          check::near(loss_of(loss, term, 0, s, e), wanted, 1e-14 * (1 + std::abs(wanted)), what);
          for (int order : {1, 2}) {
            const double slope =
                (loss_of(loss, term, order - 1, s + d, e) - loss_of(loss, term, order - 1, s - d, e)) / (2 * d);
            check::near(loss_of(loss, term, order, s, e), slope, 1e-9 * (1 + std::abs(s)),
                        what + " d" + std::to_string(order));
          }
        }
}

// Updates against their definitions; adjoints against differences of a d + v0 m0' + v1 m1'.
void test_optimisers() {
  const double step = 1e-5;
  for (Optimiser kind : kOptimisers)
    for (double f : {-1.3, -1e-4, 0.0, 0.02, 2.1})
      for (int number : {1, 2, 9}) {
        const std::string what = std::string(name(kind)) + " at " + std::to_string(f);
        const double m0 = number == 1 ? 0 : kind == Optimiser::rmsprop ? 0.3 : -0.4, m1 = number == 1 ? 0 : 0.2;
        const double mu = 0.9, b1 = 0.8, b2 = 0.95, eps = 0.5, a = 0.7;
        // normalised: as if another element had 0.5
        const double norm = std::sqrt(f * f + 0.25 + eps);
        std::map<std::string, double> at{{"F", f},
                                         {"m0", m0},
                                         {"m1", m1},
                                         {"momentum", mu},
                                         {"beta1", b1},
                                         {"beta2", b2},
                                         {"eps", eps},
                                         {"past", number > 1},
                                         {"rest1", 1 - b1},
                                         {"rest2", 1 - b2},
                                         {"norm", norm},
                                         {"bias1", 1 - std::pow(b1, number)},
                                         {"a", a},
                                         {"v0", -0.6},
                                         {"v1", 0.5},
                                         {"bias2", 1 - std::pow(b2, number)},
                                         {"along", a * f / norm}};
        const double mean = b1 * m0 + (1 - b1) * f,
                     square = b2 * (kind == Optimiser::adam ? m1 : m0) + (1 - b2) * f * f;
        double wanted = f;
        if (kind == Optimiser::normalised) wanted = f / norm;
        if (kind == Optimiser::momentum) wanted = mu * m0 + f;
        if (kind == Optimiser::nesterov) wanted = mu * (mu * m0 + f) + f;
        if (kind == Optimiser::rmsprop) wanted = f / std::sqrt(square + eps);
        if (kind == Optimiser::adam) wanted = mean / at["bias1"] / std::sqrt(square / at["bias2"] + eps);
        if (kind == Optimiser::optimistic && number > 1) wanted = 2 * f - m0;
        check::near(optimiser_of(kind, "direction", at), wanted, 1e-14, what);
        auto objective = [&](const char* variable, double by) {
          auto moved = at;
          moved[variable] += by;
          if (kind == Optimiser::normalised) moved["norm"] = std::sqrt(moved["F"] * moved["F"] + 0.25 + eps);
          return a * optimiser_of(kind, "direction", moved) + at["v0"] * optimiser_of(kind, "m0", moved) +
                 at["v1"] * optimiser_of(kind, "m1", moved);
        };
        for (auto [part, variable] : {std::pair{"w", "F"}, std::pair{"v0", "m0"}, std::pair{"v1", "m1"}})
          check::near(optimiser_of(kind, part, at),
                      (objective(variable, step) - objective(variable, -step)) / (2 * step), 1e-6, what + ", " + part);
      }
}

void test_dispatch() {
  auto refused = [](const char* name) {
    try {
      chosen_isa(name);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what()).find("this build has") != std::string::npos;
    }
    return false;
  };
  check::that(refused("altivec"), "an unknown instruction set must be refused");
  check::that(chosen_isa(nullptr).supported() && chosen_isa("").supported(), "the default must be executable");
}

}  // namespace

int main() {
  test_formulas();
  test_optimisers();
  test_dispatch();
  return check::report();
}
