// The only file that knows pybind11. Buffers arrive as addresses (pymgan/engine.py has checked shapes, dtypes and
// contiguity); calls release the GIL.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "cpu/engine.h"
#include "cpu/interpreter.h"
#include "cpu/kernels.h"
#include "cpu/noise.h"
#include "expression.h"
#include "formulas.h"
#include "names.h"
#include "program.h"
#include "schedule.h"

namespace py = pybind11;
using namespace pymgan;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

using Address = std::uintptr_t;

// One field of a call, taken from Python's keyword arguments; a missing one keeps its default.
template <class T>
T get(const py::dict& d, const char* key, T otherwise) {
  return d.contains(key) ? d[key].cast<T>() : otherwise;
}

template <class T>
cpu::Batches<T> batches_of(const py::dict& d) {
  cpu::Batches<T> b;
  b.real = pointer<const T>(d["real"].cast<Address>());
  b.real_task = get<int64_t>(d, "real_task", 0);
  b.real_step = get<int64_t>(d, "real_step", 0);
  b.indices = pointer<const int32_t>(get<Address>(d, "indices", 0));
  b.index_task = get<int64_t>(d, "index_task", 0);
  b.index_step = get<int64_t>(d, "index_step", 0);
  b.noise = pointer<const T>(get<Address>(d, "noise", 0));
  b.noise_task = get<int64_t>(d, "noise_task", 0);
  b.noise_step = get<int64_t>(d, "noise_step", 0);
  b.seed = d["seed"].cast<uint64_t>();
  b.tasks = pointer<const int64_t>(d["task_numbers"].cast<Address>());
  b.count = pointer<const int64_t>(d["count"].cast<Address>());
  return b;
}

template <class T>
cpu::InnerSchedule<T> schedule_of(const py::dict& d) {
  cpu::InnerSchedule<T> s;
  s.rate = pointer<const double>(d["rate"].cast<Address>());
  s.active = pointer<const uint8_t>(get<Address>(d, "active", 0));
  s.scale = pointer<const T>(get<Address>(d, "scale", 0));
  s.kind = pointer<const uint8_t>(get<Address>(d, "kind", 0));
  s.number = pointer<const int32_t>(get<Address>(d, "number", 0));
  return s;
}

// What every call that runs the inner loop or pulls back through it has.
template <class T, class Call>
void read_inner_loop(const py::dict& d, Call& c) {
  c.tasks = d["tasks"].cast<int64_t>();
  c.steps = d["steps"].cast<int>();
  c.threads = d["threads"].cast<int>();
  c.batches = batches_of<T>(d);
  c.schedule = schedule_of<T>(d);
}

uint8_t mask_of(const std::string& halves) {
  if (halves == "G") return kGenerator;
  if (halves == "D") return kDiscriminator;
  if (halves == "GD") return kBoth;
  throw std::invalid_argument("halves: expected 'G', 'D' or 'GD', got '" + halves + "'");
}

std::vector<Halves> halves_of(const std::vector<std::string>& support, const std::vector<std::string>& keep) {
  if (support.size() != keep.size()) throw std::invalid_argument("halves: expected as many supports as keeps");
  std::vector<Halves> halves;
  for (size_t i = 0; i < support.size(); ++i) halves.push_back({mask_of(support[i]), mask_of(keep[i])});
  return halves;
}

// The cpu engine for one program and element type.
template <class T>
class CpuEngine {
 public:
  CpuEngine(const Plan& plan, Game game, const std::string& storage, const std::string& isa)
      : storage_(Storage::parse(storage)),
        isa_(cpu::chosen_isa(isa.c_str())),
        program_(plan, with_storage(game, storage_), cpu::cpu_target()) {}

  Program& program() { return program_; }
  std::string isa() const { return isa_.name; }

  int64_t saved_elements(int steps) { return cpu::saved_elements(program_, schedule_storage(storage_, steps), steps); }
  int64_t adapt_workspace(int threads) { return cpu::adapt_workspace(program_, threads); }
  int64_t pull_workspace(const std::vector<std::string>& support, const std::vector<std::string>& keep, bool rates,
                         bool scaled, int steps, int threads) {
    return cpu::pull_workspace(program_, schedule_storage(storage_, steps), halves_of(support, keep), rates, scaled,
                               steps, threads);
  }
  int64_t gradients_workspace(bool full, int threads) { return cpu::gradients_workspace(program_, full, threads); }
  int64_t generate_workspace(int batch, bool vjp, int threads) {
    return cpu::generate_workspace(program_, batch, vjp, threads);
  }

  void adapt(const py::dict& d) {
    cpu::AdaptCall<T> c;
    read_inner_loop<T>(d, c);
    c.phi0 = pointer<const T>(d["phi0"].cast<Address>());
    c.phi0_task = d["phi0_task"].cast<int64_t>();
    c.moment0 = pointer<const T>(get<Address>(d, "moment0", 0));
    c.phi = pointer<T>(d["phi"].cast<Address>());
    c.moment = pointer<T>(get<Address>(d, "moment", 0));
    c.trace = pointer<T>(d["trace"].cast<Address>());
    c.valid = pointer<uint8_t>(d["valid"].cast<Address>());
    c.done = pointer<int64_t>(d["done"].cast<Address>());
    c.saved = pointer<T>(get<Address>(d, "saved", 0));
    c.workspace = pointer<T>(d["workspace"].cast<Address>());
    py::gil_scoped_release release;
    cpu::adapt(kernels(), program_, schedule_storage(storage_, c.steps), c);
  }

  void pullback(const py::dict& d) {
    cpu::PullCall<T> c;
    read_inner_loop<T>(d, c);
    c.halves = halves_of(d["support"].cast<std::vector<std::string>>(), d["keep"].cast<std::vector<std::string>>());
    c.rates = d["rates"].cast<bool>();
    c.weight = pointer<const double>(get<Address>(d, "weight", 0));
    c.valid = pointer<uint8_t>(d["valid"].cast<Address>());
    c.saved = pointer<T>(d["saved"].cast<Address>());
    c.v = pointer<const T>(d["v"].cast<Address>());
    c.v_moment = pointer<const T>(get<Address>(d, "v_moment", 0));
    c.v0 = pointer<T>(d["v0"].cast<Address>());
    c.v_moment0 = pointer<T>(get<Address>(d, "v_moment0", 0));
    c.d_rate = pointer<double>(get<Address>(d, "d_rate", 0));
    c.d_scale = pointer<T>(get<Address>(d, "d_scale", 0));
    c.workspace = pointer<T>(d["workspace"].cast<Address>());
    py::gil_scoped_release release;
    cpu::pullback(kernels(), program_, schedule_storage(storage_, c.steps), c);
  }

  int64_t meta_workspace(const py::dict& d) {
    const cpu::MetaCall<T> c = meta_call(d);
    return cpu::meta_workspace(program_, schedule_storage(storage_, c.steps), c);
  }
  void meta_gradient(const py::dict& d) {
    cpu::MetaCall<T> c = meta_call(d);
    c.gradient = pointer<T>(d["gradient"].cast<Address>());
    c.value = pointer<double>(d["value"].cast<Address>());
    c.trace = pointer<T>(d["trace"].cast<Address>());
    c.valid = pointer<uint8_t>(d["valid"].cast<Address>());
    c.d_rate = pointer<double>(get<Address>(d, "d_rate", 0));
    c.workspace = pointer<T>(d["workspace"].cast<Address>());
    py::gil_scoped_release release;
    cpu::meta_gradient(kernels(), program_, schedule_storage(storage_, c.steps), c);
  }

  void gradients(const py::dict& d) {
    cpu::GradientsCall<T> c;
    c.tasks = d["tasks"].cast<int64_t>();
    c.threads = d["threads"].cast<int>();
    c.full = d["full"].cast<bool>();
    c.batches = batches_of<T>(d);
    c.phi = pointer<const T>(d["phi"].cast<Address>());
    c.phi_task = d["phi_task"].cast<int64_t>();
    c.gradient = pointer<T>(d["gradient"].cast<Address>());
    c.trace = pointer<T>(d["trace"].cast<Address>());
    c.workspace = pointer<T>(d["workspace"].cast<Address>());
    py::gil_scoped_release release;
    cpu::gradients(kernels(), program_, c);
  }

  void generate(const py::dict& d) {
    cpu::GenerateCall<T> c;
    c.tasks = d["tasks"].cast<int64_t>();
    c.batch = d["batch"].cast<int>();
    c.threads = d["threads"].cast<int>();
    c.phi = pointer<const T>(d["phi"].cast<Address>());
    c.phi_task = d["phi_task"].cast<int64_t>();
    c.z = pointer<const T>(d["z"].cast<Address>());
    c.cotangent = pointer<const T>(get<Address>(d, "cotangent", 0));
    c.out = pointer<T>(d["out"].cast<Address>());
    c.workspace = pointer<T>(d["workspace"].cast<Address>());
    py::gil_scoped_release release;
    cpu::generate(kernels(), program_, c);
  }

  // out [tasks][count][features], densely
  void noise(uint64_t seed, Address task_numbers, Address steps, uint32_t stream, int64_t tasks, int count,
             int features, Address out, Address workspace) {
    const auto* numbers = pointer<const int64_t>(task_numbers);
    const auto* step = pointer<const int64_t>(steps);
    T* rows = pointer<T>(workspace);  // [count][padded(features)]
    py::gil_scoped_release release;
    for (int64_t t = 0; t < tasks; ++t)
      cpu::dense_noise(kernels(), {seed, static_cast<uint64_t>(numbers[t]), static_cast<uint64_t>(step[t]), stream},
                       count, features, rows, pointer<T>(out) + t * count * features);
  }

 private:
  // Its inputs.
  static cpu::MetaCall<T> meta_call(const py::dict& d) {
    cpu::MetaCall<T> c;
    read_inner_loop<T>(d, c);
    c.phi0 = pointer<const T>(d["phi0"].cast<Address>());
    c.phi0_task = d["phi0_task"].cast<int64_t>();
    c.objective.samples = d["samples"].cast<int>();
    std::tie(c.objective.losses[0], c.objective.losses[1]) = d["losses"].cast<std::pair<double, double>>();
    c.objective.queries = d["queries"].cast<int>();
    c.objective.query = pointer<const T>(d["query"].cast<Address>());
    c.objective.noise = pointer<const T>(get<Address>(d, "query_noise", 0));
    c.objective.stream = d["stream"].cast<uint32_t>();
    c.second_order = d["second_order"].cast<bool>();
    c.rates = d["rates"].cast<bool>();
    return c;
  }

  static Game with_storage(Game game, const Storage& storage) {
    game.keep_all = storage.mode == Storage::Mode::all;
    return game;
  }
  const cpu::Kernels<T>& kernels() const {
    if constexpr (std::is_same_v<T, float>)
      return isa_.f32();
    else
      return isa_.f64();
  }

  Storage storage_;
  const cpu::Isa& isa_;
  Program program_;
};

template <class T>
void distance(const py::dict& d) {
  cpu::DistanceCall<T> c;
  c.tasks = d["tasks"].cast<int64_t>();
  c.a_count = d["a_count"].cast<int>();
  c.b_count = d["b_count"].cast<int>();
  c.features = d["features"].cast<int>();
  c.threads = d["threads"].cast<int>();
  c.a = pointer<const T>(d["a"].cast<Address>());
  c.b = pointer<const T>(d["b"].cast<Address>());
  c.value = pointer<double>(d["value"].cast<Address>());
  c.cotangent = pointer<T>(d["cotangent"].cast<Address>());
  py::gil_scoped_release release;
  cpu::distance(c);
}

template <class T>
void bind_cpu_engine(py::module_& m, const char* name) {
  using E = CpuEngine<T>;
  py::class_<E>(m, name)
      .def(py::init<const Plan&, Game, const std::string&, const std::string&>(), py::arg("plan"), py::arg("game"),
           py::arg("storage"), py::arg("isa") = "")
      .def_property_readonly("program", &E::program, py::return_value_policy::reference_internal)
      .def_property_readonly("isa", &E::isa)
      .def("saved_elements", &E::saved_elements, py::arg("steps"))
      .def("adapt_workspace", &E::adapt_workspace, py::arg("threads"))
      .def("pull_workspace", &E::pull_workspace, py::arg("support"), py::arg("keep"), py::arg("rates"),
           py::arg("scaled"), py::arg("steps"), py::arg("threads"))
      .def("gradients_workspace", &E::gradients_workspace, py::arg("full"), py::arg("threads"))
      .def("generate_workspace", &E::generate_workspace, py::arg("batch"), py::arg("vjp"), py::arg("threads"))
      .def("meta_workspace", &E::meta_workspace)
      .def("adapt", &E::adapt)
      .def("pullback", &E::pullback)
      .def("meta_gradient", &E::meta_gradient)
      .def("gradients", &E::gradients)
      .def("generate", &E::generate)
      .def("noise", &E::noise);
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
      .value("sigmoid", Activation::sigmoid);
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
      .value("reshape", LayerKind::reshape);
  py::class_<PlanRow>(m, "PlanRow")
      .def(py::init([](const std::string& kind, const std::string& name, int input, std::vector<int64_t> in_shape,
                       std::vector<int64_t> out_shape, int64_t weight, int64_t bias, const std::string& activation,
                       std::array<double, 2> attributes, std::vector<int64_t> kernel, std::vector<int64_t> stride,
                       std::vector<int64_t> padding, std::vector<int64_t> dilation, bool transposed) {
             static const std::map<std::string, LayerKind> kinds{{"linear", LayerKind::linear},
                                                                 {"convolution", LayerKind::convolution},
                                                                 {"activation", LayerKind::activation},
                                                                 {"reshape", LayerKind::reshape}};
             auto at = kinds.find(kind);
             if (at == kinds.end()) throw std::invalid_argument("plan: unknown layer kind '" + kind + "'");
             return PlanRow{at->second,
                            name,
                            input,
                            std::move(in_shape),
                            std::move(out_shape),
                            weight,
                            bias,
                            activation_of(activation),
                            attributes,
                            std::move(kernel),
                            std::move(stride),
                            std::move(padding),
                            std::move(dilation),
                            transposed};
           }),
           py::arg("kind"), py::arg("name"), py::arg("input"), py::arg("in_shape"), py::arg("out_shape"),
           py::arg("weight") = -1, py::arg("bias") = -1, py::arg("activation") = "identity",
           py::arg("attributes") = std::array<double, 2>{}, py::arg("kernel") = std::vector<int64_t>{},
           py::arg("stride") = std::vector<int64_t>{}, py::arg("padding") = std::vector<int64_t>{},
           py::arg("dilation") = std::vector<int64_t>{}, py::arg("transposed") = false)
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
      .def_readonly("parameters", &Plan::parameters);
}

void bind_program(py::module_& m) {
  py::class_<Game>(m, "Game")
      .def(py::init([](const std::string& loss, double smoothing, int fakes, int reals, bool alternating,
                       const std::vector<std::string>& optimisers, double momentum, std::array<double, 2> betas,
                       double eps, const std::string& penalty, double weight, int every, bool keep_all) {
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
                       {penalty_of(penalty), weight, every}};
             for (const std::string& kind : optimisers) game.optimisers.push_back(optimiser_of(kind));
             return game;
           }),
           py::arg("loss"), py::arg("smoothing"), py::arg("fakes"), py::arg("reals"), py::arg("alternating"),
           py::arg("optimisers"), py::arg("momentum"), py::arg("betas"), py::arg("eps"), py::arg("penalty") = "none",
           py::arg("penalty_weight") = 0.0, py::arg("penalty_every") = 1, py::arg("keep_all") = false)
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
      .def_property_readonly("penalty_every", [](const Game& g) { return g.penalty.every; });
  py::class_<Tensor>(m, "Tensor")
      .def_property_readonly("player", [](const Tensor& t) { return index(t.player); })
      .def_readonly("n", &Tensor::n)
      .def_readonly("k", &Tensor::k)
      .def_readonly("taps", &Tensor::taps)
      .def_readonly("window", &Tensor::window)
      .def_readonly("bias_sites", &Tensor::bias_sites)
      .def_readonly("weight_n", &Tensor::weight_n)
      .def_readonly("weight_k", &Tensor::weight_k)
      .def_readonly("weight_tap", &Tensor::weight_tap)
      .def_readonly("weight", &Tensor::weight)
      .def_readonly("bias", &Tensor::bias);
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
      .def_property_readonly("z", [](const Program& p) { return p.layout().z; })
      .def_property_readonly("x", [](const Program& p) { return p.layout().x; })
      .def_property_readonly("game", &Program::game)
      .def_property_readonly("moments", &Program::moments)
      .def_property_readonly(
          "step", [](const Program& p) -> const Procedure& { return p.step(); },
          py::return_value_policy::reference_internal)
      .def(
          "pull",
          [](Program& p, const std::vector<std::string>& support, const std::vector<std::string>& keep, bool rates,
             bool scaled) -> const Procedure& { return p.pull(halves_of(support, keep), rates, scaled); },
          py::arg("support"), py::arg("keep"), py::arg("rates") = false, py::arg("scaled") = false,
          py::return_value_policy::reference_internal)
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

PYBIND11_MODULE(_core, m) {
  m.doc() = "pymgan's compiled core: plans, the lowering and the cpu engine.";
  m.attr("__version__") = PYMGAN_VERSION;
  bind_plan(m);
  bind_program(m);
  bind_cpu_engine<float>(m, "CpuEngine32");
  bind_cpu_engine<double>(m, "CpuEngine64");
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
  m.attr("MIX_STREAM") = kMixStream;
  m.def(
      "optimiser_formula",
      [](const std::string& kind, const std::string& part) {
        return tuple_of(optimiser_expression(optimiser_of(kind), part));
      },
      py::arg("kind"), py::arg("part"), "A part of an inner optimiser's update or of its adjoint; see expression.h.");
  m.def(
      "optimiser_moments", [](const std::string& kind) { return moments_of(optimiser_of(kind)); }, py::arg("kind"),
      "Vectors that an inner optimiser carries.");
  m.def(
      "distance",
      [](bool is_double, const py::dict& call) { is_double ? distance<double>(call) : distance<float>(call); },
      py::arg("is_double"), py::arg("call"), "Energy distance of every task and its cotangent.");
  m.def(
      "instruction_sets",
      [] {
        int count = 0;
        const cpu::Isa* sets = cpu::isas(&count);
        py::list names;
        for (int i = 0; i < count; ++i) names.append(py::make_tuple(sets[i].name, sets[i].supported()));
        return names;
      },
      "(name, executable here) of every instruction set in this build, best first.");
  m.def(
      "chosen_instruction_set",
      [](const std::string& requested) { return std::string(cpu::chosen_isa(requested.c_str()).name); },
      py::arg("requested") = "");
}
