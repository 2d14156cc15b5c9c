#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "bindings.h"
#include "names.h"
#include "schedule.h"

namespace py = pybind11;
using namespace pymgan;

namespace {

uint8_t mask_of(const std::string& halves) {
  if (halves == "G") return kGenerator;
  if (halves == "D") return kDiscriminator;
  if (halves == "GD") return kBoth;
  throw std::invalid_argument("halves: expected 'G', 'D' or 'GD', got '" + halves + "'");
}

}  // namespace

std::vector<Halves> halves_of(const std::vector<std::string>& support, const std::vector<std::string>& keep) {
  if (support.size() != keep.size()) throw std::invalid_argument("halves: expected as many supports as keeps");
  std::vector<Halves> halves;
  for (size_t i = 0; i < support.size(); ++i) halves.push_back({mask_of(support[i]), mask_of(keep[i])});
  return halves;
}

namespace {

StepForm form_of(const std::string& kind) { return {true, optimiser_of(kind) == Optimiser::extragradient}; }
// Fields that a kind of layer does not have keep their defaults.
PlanRow plan_row(const std::string& kind, const std::string& name, int input, std::vector<int64_t> in_shape,
                 std::vector<int64_t> out_shape, const py::kwargs& fields) {
  static const std::map<std::string, LayerKind> kinds{
      {"linear", LayerKind::linear},         {"convolution", LayerKind::convolution},
      {"activation", LayerKind::activation}, {"reshape", LayerKind::reshape},
      {"diagonal", LayerKind::diagonal},     {"prelu", LayerKind::prelu},
      {"normalise", LayerKind::normalise},   {"softmax", LayerKind::softmax},
      {"fixed", LayerKind::fixed},           {"add", LayerKind::add}};
  const auto at = kinds.find(kind);
  if (at == kinds.end()) throw std::invalid_argument("plan: unknown layer kind '" + kind + "'");
  PlanRow row;
  row.kind = at->second;
  row.name = name;
  row.input = input;
  row.in_shape = std::move(in_shape);
  row.out_shape = std::move(out_shape);
  size_t known = 0;
  auto read = [&](const char* key, auto& field) {
    if (!fields.contains(key)) return;
    field = fields[key].cast<std::decay_t<decltype(field)>>();
    ++known;
  };
  read("other", row.other), read("weight", row.weight), read("bias", row.bias);
  read("attributes", row.attributes), read("transposed", row.transposed);
  read("kernel", row.kernel), read("stride", row.stride), read("padding", row.padding), read("dilation", row.dilation);
  read("u", row.u), read("iterations", row.iterations);
  read("of", row.of), read("starts", row.starts), read("sources", row.sources), read("factors", row.factors);
  std::string activation = "identity";
  read("activation", activation);
  row.activation = activation_of(activation);
  if (known != fields.size()) throw std::invalid_argument("plan: layer " + name + ": unknown fields");
  return row;
}

void bind_plan(py::module_& m) {
  py::enum_<PenaltyKind>(m, "PenaltyKind")
      .value("none", PenaltyKind::none)
      .value("r1", PenaltyKind::r1)
      .value("r2", PenaltyKind::r2)
      .value("wgan_gp", PenaltyKind::wgan_gp)
      .value("zero_centred", PenaltyKind::zero_centred);
  py::enum_<Activation>(m, "Activation")
      .value("identity", Activation::identity)
      .value("leaky_relu", Activation::leaky_relu)
      .value("relu", Activation::relu)
      .value("elu", Activation::elu)
      .value("silu", Activation::silu)
      .value("softplus", Activation::softplus)
      .value("tanh", Activation::tanh)
      .value("sigmoid", Activation::sigmoid)
      .value("gelu", Activation::gelu)
      .value("gelu_tanh", Activation::gelu_tanh)
      .value("negative_part", Activation::negative_part)
      .value("inverse_root", Activation::inverse_root);
  py::enum_<Loss>(m, "Loss")
      .value("nonsaturating", Loss::nonsaturating)
      .value("saturating", Loss::saturating)
      .value("relativistic", Loss::relativistic)
      .value("hinge", Loss::hinge)
      .value("least_squares", Loss::least_squares)
      .value("wasserstein", Loss::wasserstein);
  py::enum_<LayerKind>(m, "LayerKind")
      .value("linear", LayerKind::linear)
      .value("convolution", LayerKind::convolution)
      .value("activation", LayerKind::activation)
      .value("reshape", LayerKind::reshape)
      .value("diagonal", LayerKind::diagonal)
      .value("prelu", LayerKind::prelu)
      .value("normalise", LayerKind::normalise)
      .value("softmax", LayerKind::softmax)
      .value("fixed", LayerKind::fixed)
      .value("add", LayerKind::add);
  py::class_<PlanRow>(m, "PlanRow")
      .def(py::init(&plan_row), py::arg("kind"), py::arg("name"), py::arg("input"), py::arg("in_shape"),
           py::arg("out_shape"), "Other fields by their names.")
      .def_readonly("kind", &PlanRow::kind)
      .def_readonly("name", &PlanRow::name)
      .def_readonly("input", &PlanRow::input)
      .def_readonly("in_shape", &PlanRow::in_shape)
      .def_readonly("out_shape", &PlanRow::out_shape)
      .def_readonly("weight", &PlanRow::weight)
      .def_readonly("bias", &PlanRow::bias)
      .def_readonly("activation", &PlanRow::activation)
      .def_readonly("attributes", &PlanRow::attributes);
  py::class_<Network>(m, "Network")
      .def(py::init([](std::vector<int64_t> in_shape, std::vector<PlanRow> rows) {
             return Network{std::move(in_shape), std::move(rows)};
           }),
           py::arg("in_shape"), py::arg("rows"))
      .def_readonly("in_shape", &Network::in_shape)
      .def_readonly("rows", &Network::rows);
  py::class_<Plan>(m, "Plan")
      .def(py::init([](Network g, Network d, int64_t generator_parameters, int64_t parameters) {
             Plan plan{std::move(g), std::move(d), generator_parameters, parameters};
             plan.validate();
             return plan;
           }),
           py::arg("generator"), py::arg("discriminator"), py::arg("generator_parameters"), py::arg("parameters"))
      .def_readonly("generator", &Plan::generator)
      .def_readonly("discriminator", &Plan::discriminator)
      .def_readonly("generator_parameters", &Plan::generator_parameters)
      .def_property_readonly("spectral", &Plan::spectral)
      .def_readonly("parameters", &Plan::parameters);
}

void bind_instructions(py::module_& m) {
  py::class_<Game>(m, "Game")
      .def(py::init([](const std::string& loss, double smoothing, int fakes, int reals, bool alternating,
                       const std::vector<std::string>& optimisers, double momentum, std::array<double, 2> betas,
                       double eps, const std::string& penalty, double weight, int every,
                       const std::vector<std::string>& augment, double instance_noise, bool keep_all) {
             Game game{loss_of(loss),
                       smoothing,
                       fakes,
                       reals,
                       alternating,
                       keep_all,
                       {},
                       momentum,
                       betas,
                       eps,
                       {penalty_of(penalty), weight, every},
                       augmentation_of(augment),
                       instance_noise};
             for (const std::string& kind : optimisers) game.optimisers.push_back(optimiser_of(kind));
             return game;
           }),
           py::arg("loss"), py::arg("smoothing"), py::arg("fakes"), py::arg("reals"), py::arg("alternating"),
           py::arg("optimisers"), py::arg("momentum"), py::arg("betas"), py::arg("eps"), py::arg("penalty") = "none",
           py::arg("penalty_weight") = 0.0, py::arg("penalty_every") = 1,
           py::arg("augment") = std::vector<std::string>{}, py::arg("instance_noise") = 0.0,
           py::arg("keep_all") = false)
      .def_readonly("loss", &Game::loss)
      .def_readonly("smoothing", &Game::smoothing)
      .def_readonly("alternating", &Game::alternating)
      .def_property_readonly("optimisers",
                             [](const Game& g) {
                               std::vector<std::string> names;
                               for (Optimiser kind : g.optimisers) names.emplace_back(name(kind));
                               return names;
                             })
      .def_readonly("momentum", &Game::momentum)
      .def_readonly("betas", &Game::betas)
      .def_readonly("eps", &Game::eps)
      .def_property_readonly("penalty", [](const Game& g) { return g.penalty.kind; })
      .def_property_readonly("penalty_weight", [](const Game& g) { return g.penalty.weight; })
      .def_property_readonly("penalty_every", [](const Game& g) { return g.penalty.every; })
      .def_readonly("augmentation", &Game::augmentation)
      .def_readonly("instance_noise", &Game::instance_noise);
  py::class_<Augmentation>(m, "Augmentation")
      .def_readonly("brightness", &Augmentation::brightness)
      .def_readonly("translation", &Augmentation::translation)
      .def_readonly("cutout", &Augmentation::cutout);
  py::class_<Tensor>(m, "Tensor")
      .def_property_readonly("player", [](const Tensor& t) { return index(t.player); })
      .def_readonly("n", &Tensor::n)
      .def_readonly("k", &Tensor::k)
      .def_readonly("taps", &Tensor::taps)
      .def_readonly("window", &Tensor::window)
      .def_readonly("bias_sites", &Tensor::bias_sites)
      .def_readonly("of", &Tensor::of)
      .def_readonly("weight_n", &Tensor::weight_n)
      .def_readonly("weight_k", &Tensor::weight_k)
      .def_readonly("weight_tap", &Tensor::weight_tap)
      .def_readonly("weight", &Tensor::weight)
      .def_readonly("bias", &Tensor::bias);
  py::class_<SpectralNorm>(m, "SpectralNorm")
      .def_readonly("tensor", &SpectralNorm::tensor)
      .def_readonly("state", &SpectralNorm::state)
      .def_readonly("u", &SpectralNorm::u)
      .def_readonly("v", &SpectralNorm::v)
      .def_readonly("iterations", &SpectralNorm::iterations)
      .def_readonly("eps", &SpectralNorm::eps);
  py::class_<Form>(m, "Form").def_readonly("channels", &Form::channels).def_readonly("sites", &Form::sites);
  py::class_<Window>(m, "Window")
      .def_readonly("in_sites", &Window::in_sites)
      .def_readonly("out_sites", &Window::out_sites)
      .def_readonly("taps", &Window::taps)
      .def_readonly("from_", &Window::from);
  py::class_<Windows>(m, "Windows").def_readonly("forward", &Windows::forward).def_readonly("back", &Windows::back);
  py::class_<Ref>(m, "Ref")
      .def_readonly("value", &Ref::value)
      .def_readonly("row", &Ref::row)
      .def_readonly("tensor", &Ref::tensor)
      .def_property_readonly("bias", [](const Ref& r) { return r.bias_offset >= 0; });
  py::class_<Value>(m, "Value")
      .def_readonly("name", &Value::name)
      .def_property_readonly("slot", [](const Value& v) { return name(v.slot); })
      .def_property_readonly(
          "shape",
          [](const Value& v) {
            return v.shape == Shape::rows ? "rows" : v.shape == Shape::vector ? "vector" : "parameters";
          })
      .def_readonly("index", &Value::index)
      .def_readonly("rows", &Value::rows)
      .def_readonly("columns", &Value::columns)
      .def_property_readonly(
          "player",
          [](const Value& v) -> std::optional<int> { return v.player < 0 ? std::nullopt : std::optional(v.player); })
      .def_readonly("elements", &Value::elements)
      .def_readonly("offset", &Value::offset);
  py::class_<Instr> instr(m, "Instr");
  instr.def_property_readonly("op", [](const Instr& i) { return name(i.op); })
      .def_readonly("players", &Instr::players)
      .def_readonly("rows", &Instr::rows)
      .def_readonly("columns", &Instr::columns)
      .def_readonly("depth", &Instr::depth)
      .def_readonly("window", &Instr::window)
      .def_readonly("map", &Instr::map)
      .def_readonly("rows0", &Instr::rows0)
      .def_readonly("rows1", &Instr::rows1)
      .def_readonly("adjoint", &Instr::adjoint)
      .def_readonly("accumulate", &Instr::accumulate)
      .def_property_readonly("player", [](const Instr& i) { return index(i.player); })
      .def_readonly("index", &Instr::index)
      .def_property_readonly("apply",
                             [](const Instr& i) {
                               static const char* const names[] = {"store", "act", "chain", "chain2"};
                               return names[static_cast<int>(i.apply)];
                             })
      .def_readonly("activation", &Instr::activation)
      .def_readonly("attributes", &Instr::attributes)
      .def_readonly("order", &Instr::order)
      .def_readonly("fakes", &Instr::fakes)
      .def_readonly("reals", &Instr::reals)
      .def_readonly("traced", &Instr::traced)
      .def_readonly("flops", &Instr::flops)
      .def_readonly("bytes", &Instr::bytes);
  // Absent operands read as None.
  auto operand = [&](const char* name, Ref Instr::* field) {
    instr.def_property_readonly(name,
                                [field](const Instr& i) { return i.*field ? std::optional(i.*field) : std::nullopt; });
  };
  operand("a0", &Instr::a0), operand("b0", &Instr::b0), operand("a1", &Instr::a1), operand("b1", &Instr::b1);
  operand("bias", &Instr::bias), operand("scale", &Instr::scale), operand("dot", &Instr::dot);
  operand("ref", &Instr::ref), operand("q", &Instr::q), operand("g", &Instr::g);
  operand("theta", &Instr::theta), operand("moment", &Instr::moment), operand("rate_scale", &Instr::rate_scale);
  operand("moment_next", &Instr::moment_next), operand("out", &Instr::out), operand("pre", &Instr::pre),
      operand("dot_out", &Instr::dot_out);
  operand("c_g", &Instr::c_g), operand("c_d", &Instr::c_d), operand("cc_g", &Instr::cc_g),
      operand("cc_d", &Instr::cc_d);
  operand("stats", &Instr::stats), operand("v", &Instr::v), operand("v_moment", &Instr::v_moment),
      operand("d_scale", &Instr::d_scale);
  py::class_<Procedure>(m, "Procedure")
      .def_readonly("name", &Procedure::name)
      .def_property_readonly("address", [](const Procedure& p) { return reinterpret_cast<std::uintptr_t>(&p); })
      .def_readonly("values", &Procedure::values)
      .def_readonly("code", &Procedure::code)
      .def_readonly("arena", &Procedure::arena)
      .def_readonly("flops", &Procedure::flops)
      .def_readonly("bytes", &Procedure::bytes)
      .def("__str__", &Procedure::table);
  py::class_<Program>(m, "Program")
      .def(py::init([](const Plan& plan, const Game& game) { return std::make_unique<Program>(plan, game, Target{}); }),
           py::arg("plan"), py::arg("game"), "The program for an engine without packed layouts.")
      .def_property_readonly("tensors", [](const Program& p) { return p.layout().tensors; })
      .def_property_readonly("windows", [](const Program& p) { return p.layout().windows; })
      .def_property_readonly("maps",
                             [](const Program& p) {
                               py::list maps;  // (in, out, [(to, from, factor)])
                               for (const FixedMaps& m : p.layout().maps) {
                                 py::list links;
                                 for (const FixedMap::Link& l : m.forward.links())
                                   links.append(py::make_tuple(l.to, l.from, l.factor));
                                 maps.append(py::make_tuple(m.forward.in, m.forward.out, links));
                               }
                               return maps;
                             })
      .def_property_readonly("groups",
                             [](const Program& p) {
                               std::vector<std::vector<int32_t>> all;  // of every element
                               for (const Groups& g : p.layout().groups) all.push_back(g.of);
                               return all;
                             })
      .def_property_readonly("spectral", [](const Program& p) { return p.layout().spectral; })
      .def_property_readonly("z", [](const Program& p) { return p.layout().z; })
      .def_property_readonly("x", [](const Program& p) { return p.layout().x; })
      .def_property_readonly("sample", [](const Program& p) { return p.layout().sample; })
      .def_property_readonly("game", &Program::game)
      .def_property_readonly("moments", &Program::moments)
      .def_property_readonly(
          "step", [](const Program& p) -> const Procedure& { return p.step(); },
          py::return_value_policy::reference_internal)
      .def(
          "step_of",
          [](const Program& p, const std::string& kind) -> const Procedure& { return p.step(form_of(kind)); },
          py::arg("kind"), py::return_value_policy::reference_internal, "The step of an inner optimiser's kind.")
      .def(
          "pull",
          [](Program& p, const std::vector<std::string>& support, const std::vector<std::string>& keep, bool rates,
             bool scaled, const std::string& kind) -> const Procedure& {
            return p.pull(halves_of(support, keep), rates, scaled, form_of(kind));
          },
          py::arg("support"), py::arg("keep"), py::arg("rates") = false, py::arg("scaled") = false,
          py::arg("kind") = "sgd", py::return_value_policy::reference_internal)
      .def("gradients", &Program::gradients, py::arg("full") = false, py::return_value_policy::reference_internal)
      .def("generate", &Program::generate, py::arg("batch"), py::return_value_policy::reference_internal)
      .def("generate_vjp", &Program::generate_vjp, py::arg("batch"), py::return_value_policy::reference_internal);
  py::class_<StorageSchedule>(m, "StorageSchedule")
      .def(py::init(
               [](const std::string& storage, int steps) { return schedule_storage(Storage::parse(storage), steps); }),
           py::arg("storage"), py::arg("steps"))
      .def_readonly("kept_slots", &StorageSchedule::kept_slots)
      .def_readonly("scratch_slots", &StorageSchedule::scratch_slots)
      .def_readonly("slot_of_step", &StorageSchedule::slot_of_step)
      .def_property_readonly("repeated_steps", &StorageSchedule::repeated_steps)
      .def_property_readonly("pullback", [](const StorageSchedule& s) {
        py::list actions;
        for (const Action& a : s.pullback)
          actions.append(py::make_tuple(a.kind == Action::Kind::step ? "step" : "pull", a.k, a.from, a.to));
        return actions;
      });
}

}  // namespace

void bind_program(py::module_& m) {
  bind_plan(m);
  bind_instructions(m);
}
