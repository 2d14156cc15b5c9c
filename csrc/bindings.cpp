// The Python module and the cpu engine in it. Buffers arrive as addresses (pymgan/engine.py has checked shapes, dtypes
// and contiguity); calls release the GIL.
#include "bindings.h"

#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "bindings_calls.h"
#include "cpu/engine.h"
#include "cpu/interpreter.h"
#include "cpu/kernels.h"
#include "cpu/noise.h"
#include "schedule.h"

namespace py = pybind11;
using namespace pymgan;

namespace {

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
  int64_t pullback_workspace(const std::vector<std::string>& support, const std::vector<std::string>& keep, bool rates,
                             bool scaled, int steps, int threads) {
    return cpu::pull_workspace(program_, schedule_storage(storage_, steps), halves_of(support, keep), rates, scaled,
                               steps, threads);
  }
  int64_t gradients_workspace(bool full, int threads) { return cpu::gradients_workspace(program_, full, threads); }
  int64_t generate_workspace(int batch, bool vjp, int threads) {
    return cpu::generate_workspace(program_, batch, vjp, threads);
  }

  void adapt(const py::dict& d) {
    const auto c = adapt_call<T>(d);
    py::gil_scoped_release release;
    cpu::adapt(kernels(), program_, schedule_storage(storage_, c.steps), c);
  }

  void pullback(const py::dict& d) {
    const auto c = pullback_call<T>(d);
    py::gil_scoped_release release;
    cpu::pullback(kernels(), program_, schedule_storage(storage_, c.steps), c);
  }

  int64_t meta_gradient_workspace(const py::dict& d) {
    const cpu::MetaCall<T> c = meta_shape<T>(d);
    return cpu::meta_workspace(program_, schedule_storage(storage_, c.steps), c);
  }
  void meta_gradient(const py::dict& d) {
    const auto c = meta_call<T>(d);
    py::gil_scoped_release release;
    cpu::meta_gradient(kernels(), program_, schedule_storage(storage_, c.steps), c);
  }

  void gradients(const py::dict& d) {
    const auto c = gradients_call<T>(d);
    py::gil_scoped_release release;
    cpu::gradients(kernels(), program_, c);
  }

  void generate(const py::dict& d) {
    const auto c = generate_call<T>(d);
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
  const auto c = distance_call<T>(d);
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
      .def("pullback_workspace", &E::pullback_workspace, py::arg("support"), py::arg("keep"), py::arg("rates"),
           py::arg("scaled"), py::arg("steps"), py::arg("threads"))
      .def("gradients_workspace", &E::gradients_workspace, py::arg("full"), py::arg("threads"))
      .def("generate_workspace", &E::generate_workspace, py::arg("batch"), py::arg("vjp"), py::arg("threads"))
      .def("meta_gradient_workspace", &E::meta_gradient_workspace)
      .def("adapt", &E::adapt)
      .def("pullback", &E::pullback)
      .def("meta_gradient", &E::meta_gradient)
      .def("gradients", &E::gradients)
      .def("generate", &E::generate)
      .def("noise", &E::noise);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "pymgan's compiled core: plans, the lowering and the cpu engine.";
  m.attr("__version__") = PYMGAN_VERSION;
  bind_program(m);
  bind_formulas(m);
  bind_cuda(m);
  bind_cpu_engine<float>(m, "CpuEngine32");
  bind_cpu_engine<double>(m, "CpuEngine64");
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
