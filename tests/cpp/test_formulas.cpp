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
  test_dispatch();
  return check::report();
}
