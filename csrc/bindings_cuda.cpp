// The CUDA engine's host build, for tests.
#include <memory>
#include <string>
#include <vector>

#include "bindings_calls.h"
#include "cuda/host.h"
#include "schedule.h"

using namespace pymgan;

namespace {

class CudaHostEngine {
 public:
  CudaHostEngine(const Plan& plan, Game game, const std::string& storage) : storage_(Storage::parse(storage)) {
    game.keep_all = storage_.mode == Storage::Mode::all;
    engine_ = std::make_unique<cuda::HostEngine>(plan, game);
  }

  Program& program() { return engine_->launches().program(); }
  int64_t saved_elements(int steps) {
    return engine_->launches().saved_elements(schedule_storage(storage_, steps), steps);
  }
  int64_t adapt_workspace(int64_t tasks) {
    cuda::Image image;
    return tasks * engine_->launches().adapt(schedule_storage(storage_, 1), 1, image).places.each;
  }
  int64_t pull_workspace(const std::vector<std::string>& support, const std::vector<std::string>& keep, bool rates,
                         bool scaled, int steps, int64_t tasks) {
    cuda::Image image;
    const StorageSchedule storage = schedule_storage(storage_, steps);
    return tasks *
           engine_->launches().pullback(storage, halves_of(support, keep), rates, scaled, steps, image).places.each;
  }
  int64_t gradients_workspace(bool full, int64_t tasks) {
    cuda::Image image;
    return tasks * engine_->launches().gradients(full, image).places.each;
  }
  int64_t generate_workspace(int batch, bool vjp, int64_t tasks) {
    cuda::Image image;
    return tasks * engine_->launches().generate(batch, vjp, image).places.each;
  }
  void adapt(const py::dict& d) {
    const auto c = adapt_call<float>(d);
    py::gil_scoped_release release;
    engine_->adapt(schedule_storage(storage_, c.steps), c);
  }
  void pullback(const py::dict& d) {
    const auto c = pullback_call<float>(d);
    py::gil_scoped_release release;
    engine_->pullback(schedule_storage(storage_, c.steps), c);
  }
  void gradients(const py::dict& d) {
    const auto c = gradients_call<float>(d);
    py::gil_scoped_release release;
    engine_->gradients(c);
  }
  void generate(const py::dict& d) {
    const auto c = generate_call<float>(d);
    py::gil_scoped_release release;
    engine_->generate(c);
  }
  // out [tasks][count][features]
  void noise(uint64_t seed, Address task_numbers, int64_t step, uint32_t stream, int64_t tasks, int count, int features,
             Address out) {
    cuda::NoiseCall c;
    c.tasks = tasks, c.numbers = count * features, c.seed = seed, c.stream = stream, c.step = step;
    c.task = pointer<const int64_t>(task_numbers), c.out = pointer<float>(out);
    py::gil_scoped_release release;
    engine_->noise(c);
  }

 private:
  Storage storage_;
  std::unique_ptr<cuda::HostEngine> engine_;
};

}  // namespace

void bind_cuda_host(py::module_& m) {
  using E = CudaHostEngine;
  py::class_<E>(m, "CudaHostEngine", "The CUDA engine's own code, executed on the host: for tests.")
      .def(py::init<const Plan&, Game, const std::string&>(), py::arg("plan"), py::arg("game"), py::arg("storage"))
      .def_property_readonly("program", &E::program, py::return_value_policy::reference_internal)
      .def("saved_elements", &E::saved_elements)
      .def("adapt_workspace", &E::adapt_workspace)
      .def("pull_workspace", &E::pull_workspace)
      .def("gradients_workspace", &E::gradients_workspace)
      .def("generate_workspace", &E::generate_workspace)
      .def("adapt", &E::adapt)
      .def("pullback", &E::pullback)
      .def("gradients", &E::gradients)
      .def("generate", &E::generate)
      .def("noise", &E::noise);
}
