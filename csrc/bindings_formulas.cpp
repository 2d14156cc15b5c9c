#include "bindings.h"
#include "cpu/distance.h"
#include "expression.h"
#include "formulas.h"
#include "names.h"

namespace py = pybind11;
using namespace pymgan;

namespace {

// A formula as nested tuples: ("constant", x), ("variable", name) or (op, argument, ...).
py::tuple tuple_of(const Expression& e) {
  const Expression::Node& node = e.node();
  if (node.op == "constant") return py::make_tuple(node.op, node.value);
  if (node.op == "variable") return py::make_tuple(node.op, node.name);
  py::tuple result(node.args.size() + 1);
  result[0] = node.op;
  for (size_t i = 0; i < node.args.size(); ++i) result[i + 1] = tuple_of(node.args[i]);
  return result;
}

}  // namespace

void bind_formulas(py::module_& m) {
  m.def(
      "activation_formula",
      [](Activation activation, int order) { return tuple_of(activation_expression(activation, order)); },
      py::arg("activation"), py::arg("order"),
      "f (order 0, of x) or its derivative (orders 1 to 3, of ref) as nested tuples; attributes are p0 and p1.");
  m.def(
      "loss_formula",
      [](const std::string& loss, const std::string& term, int order) {
        return tuple_of(loss_expression(loss_of(loss), term, order));
      },
      py::arg("loss"), py::arg("term"), py::arg("order"),
      "A loss's term 'g', 'g_real', 'd_fake' or 'd_real' of the score s, or a derivative; e is the smoothing.");
  m.def(
      "penalty_formula", [](PenaltyKind kind, int order) { return tuple_of(penalty_expression(kind, order)); },
      py::arg("kind"), py::arg("order"), "A penalty in the squared norm n of a gradient, or a derivative by n.");
  m.attr("PENALTY_EPSILON") = formulas::kPenaltyEpsilon;
  m.def("relative", [](const Loss loss) { return relative(loss); }, py::arg("loss"));
  m.attr("DISTANCE_EPSILON") = cpu::kDistanceEpsilon;
  m.attr("MIX_STREAM") = kMixStream;
  m.attr("AUGMENT_STREAM") = kAugmentStream;
  m.attr("INSTANCE_NOISE_STREAM") = kInstanceNoiseStream;
  m.def(
      "optimiser_formula",
      [](const std::string& kind, const std::string& part) {
        return tuple_of(optimiser_expression(optimiser_of(kind), part));
      },
      py::arg("kind"), py::arg("part"), "A part of an inner optimiser's update or of its adjoint; see expression.h.");
  m.def(
      "optimiser_moments", [](const std::string& kind) { return moments_of(optimiser_of(kind)); }, py::arg("kind"),
      "Vectors that an inner optimiser carries.");
}
