// The CUDA engine: on a device, or its code on the host, for tests.
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings_calls.h"
#include "cuda/launcher.h"
#include "schedule.h"

using namespace pymgan;

namespace {

cuda::Precision precision_of(const std::string& name) {
  if (name == "float32") return cuda::Precision::float32;
  if (name == "tf32") return cuda::Precision::tf32;
  if (name == "bf16") return cuda::Precision::bf16;
  throw std::invalid_argument("[cuda] precision: expected float32, tf32 or bf16, got " + name);
}

class CudaEngine {
 public:
  // precision: of products; device: its number; -1: the host, with `shared` elements of shared memory
  CudaEngine(const Plan& plan, Game game, const std::string& storage, const std::string& precision, int device,
             int64_t shared)
      : storage_(Storage::parse(storage)),
        launcher_(device < 0 ? cuda::host_launcher(shared, cuda::wants_rings(true)) : cuda::device_launcher(device)) {
    game.keep_all = storage_.mode == Storage::Mode::all;
    launches_ = std::make_unique<cuda::Launches>(plan, game, precision_of(precision));
  }

  Program& program() { return launches_->program(); }
  int64_t saved_elements(int steps) { return launches_->saved_elements(schedule_storage(storage_, steps), steps); }

  // For calls with this many tasks, or with others for which `room` is the same.
  std::tuple<int64_t, int64_t, int> room(int64_t tasks) {
    const cuda::SharedRoom room = shared_room(tasks);
    return {room.wanted, room.most, room.team};
  }
  cuda::Prepared prepare_adapt(int64_t tasks, int steps) {
    return launches_->adapt(schedule_storage(storage_, steps), steps, shared_room(tasks));
  }
  cuda::Prepared prepare_pullback(int64_t tasks, const std::vector<std::string>& support,
                                  const std::vector<std::string>& keep, bool rates, bool scaled, int steps) {
    return launches_->pullback(schedule_storage(storage_, steps), halves_of(support, keep), rates, scaled, steps,
                               shared_room(tasks));
  }
  cuda::Prepared prepare_meta_gradient(int64_t tasks, int steps, int samples, int queries,
                                       std::pair<double, double> losses, bool second_order, bool rates, bool scaled) {
    return launches_->meta_gradient(
        schedule_storage(storage_, steps),
        {steps, samples, queries, {losses.first, losses.second}, second_order, rates, scaled}, shared_room(tasks));
  }
  cuda::Prepared prepare_gradients(int64_t tasks, bool full) { return launches_->gradients(full, shared_room(tasks)); }
  cuda::Prepared prepare_generate(int64_t tasks, int batch, bool vjp) {
    return launches_->generate(batch, vjp, shared_room(tasks));
  }

  void adapt(const cuda::Prepared& prepared, const py::dict& d) {
    const auto c = adapt_call<float>(d);
    launch(d, [&](void* stream) { launcher_->adapt(prepared.at(c.workspace), c, stream); });
  }
  void pullback(const cuda::Prepared& prepared, const py::dict& d) {
    const auto c = pullback_call<float>(d);
    launch(d, [&](void* stream) { launcher_->pullback(prepared.at(c.workspace), cuda::arguments(c), stream); });
  }
  void meta_gradient(const cuda::Prepared& prepared, const py::dict& d) {
    const auto c = meta_call<float>(d);
    launch(d, [&](void* stream) { launcher_->meta_gradient(prepared.at(c.workspace), c, stream); });
  }
  void gradients(const cuda::Prepared& prepared, const py::dict& d) {
    const auto c = gradients_call<float>(d);
    launch(d, [&](void* stream) { launcher_->gradients(prepared.at(c.workspace), c, stream); });
  }
  void generate(const cuda::Prepared& prepared, const py::dict& d) {
    const auto c = generate_call<float>(d);
    launch(d, [&](void* stream) { launcher_->generate(prepared.at(c.workspace), c, stream); });
  }
  void noise(const py::dict& d) {
    cuda::NoiseCall c;
    c.tasks = d["tasks"].cast<int64_t>(), c.numbers = d["numbers"].cast<int32_t>();
    c.seed = d["seed"].cast<uint64_t>(), c.stream = d["noise_stream"].cast<uint32_t>();
    c.step = d["step"].cast<int64_t>();
    c.task = pointer<const int64_t>(d["task_numbers"].cast<Address>());
    c.out = pointer<float>(d["out"].cast<Address>());
    launch(d, [&](void* stream) { launcher_->noise(c, stream); });
  }
  void distance(const py::dict& d) {
    const auto c = distance_call<float>(d);
    launch(d, [&](void* stream) { launcher_->distance(c, stream); });
  }

  py::dict occupancy(const cuda::Prepared& prepared) {
    const cuda::Occupancy o = launcher_->occupancy(prepared.at(nullptr));
    py::dict d;
    d["registers"] = o.registers, d["shared_bytes"] = o.shared_bytes, d["team"] = o.team;
    d["threads"] = o.threads, d["blocks_per_multiprocessor"] = o.blocks;
    d["threads_per_multiprocessor"] = o.most_threads, d["multiprocessors"] = o.multiprocessors;
    return d;
  }

 private:
  template <class F>
  static void launch(const py::dict& d, F f) {
    void* const stream = pointer<void>(d["stream"].cast<Address>());
    py::gil_scoped_release release;
    f(stream);
  }

  // Parameters and two cotangents are what a meta-step reads again and again.
  cuda::SharedRoom shared_room(int64_t tasks) {
    return launcher_->room(tasks, 3 * launches_->program().layout().total);
  }

  Storage storage_;
  std::unique_ptr<cuda::Launcher> launcher_;
  std::unique_ptr<cuda::Launches> launches_;
};

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("cuda_targets", &cuda::device_targets, "What the CUDA kernel was compiled for; empty without nvcc.");
  using P = cuda::Prepared;
  py::class_<P>(m, "CudaLaunch", "What a call of the CUDA engine launches, once for all of its kind.")
      .def_property_readonly(
          "constants", [](const P& p) { return py::bytes(p.constants().data(), p.constants().size()); },
          "Bytes that the launch reads.")
      .def_property_readonly("workspace", &P::workspace, "Elements of a task.")
      .def_property_readonly(
          "buffers",
          [](const P& p) {
            py::list buffers;
            for (const cuda::BufferNote& b : p.buffers()) buffers.append(py::make_tuple(b.name, b.elements, b.shared));
            return buffers;
          },
          "(name, elements, whether in shared memory) of each buffer of a task.")
      .def("place", [](P& p, Address base) { p.place(pointer<const char>(base)); }, "Says where the constants are.");
  using E = CudaEngine;
  py::class_<E>(m, "CudaEngine", "The CUDA engine on a device, or with device -1 its code on the host: for tests.")
      .def(py::init<const Plan&, Game, const std::string&, const std::string&, int, int64_t>(), py::arg("plan"),
           py::arg("game"), py::arg("storage"), py::arg("precision"), py::arg("device"), py::arg("shared") = 0)
      .def_property_readonly("program", &E::program, py::return_value_policy::reference_internal)
      .def("saved_elements", &E::saved_elements)
      .def("room", &E::room)
      .def("prepare_adapt", &E::prepare_adapt, py::keep_alive<0, 1>())
      .def("prepare_pullback", &E::prepare_pullback, py::keep_alive<0, 1>())
      .def("prepare_meta_gradient", &E::prepare_meta_gradient, py::keep_alive<0, 1>())
      .def("prepare_gradients", &E::prepare_gradients, py::keep_alive<0, 1>())
      .def("prepare_generate", &E::prepare_generate, py::keep_alive<0, 1>())
      .def("adapt", &E::adapt)
      .def("pullback", &E::pullback)
      .def("meta_gradient", &E::meta_gradient)
      .def("gradients", &E::gradients)
      .def("generate", &E::generate)
      .def("noise", &E::noise)
      .def("distance", &E::distance)
      .def("occupancy", &E::occupancy);
}
