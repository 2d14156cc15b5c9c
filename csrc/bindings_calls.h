// The engines' call records from Python's dictionaries of addresses and numbers.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "cpu/engine.h"

namespace pymgan {

namespace py = pybind11;

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

template <class T>
cpu::AdaptCall<T> adapt_call(const py::dict& d) {
  cpu::AdaptCall<T> c;
  read_inner_loop<T>(d, c);
  c.phi0 = pointer<const T>(d["phi0"].cast<Address>());
  c.phi0_task = d["phi0_task"].cast<int64_t>();
  c.moment0 = pointer<const T>(get<Address>(d, "moment0", 0));
  c.spectral0 = pointer<const T>(get<Address>(d, "spectral0", 0));
  c.phi = pointer<T>(d["phi"].cast<Address>());
  c.moment = pointer<T>(get<Address>(d, "moment", 0));
  c.spectral = pointer<T>(get<Address>(d, "spectral", 0));
  c.trace = pointer<T>(d["trace"].cast<Address>());
  c.valid = pointer<uint8_t>(d["valid"].cast<Address>());
  c.done = pointer<int64_t>(d["done"].cast<Address>());
  c.saved = pointer<T>(get<Address>(d, "saved", 0));
  c.workspace = pointer<T>(d["workspace"].cast<Address>());
  return c;
}

template <class T>
cpu::PullCall<T> pullback_call(const py::dict& d) {
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
  return c;
}

template <class T>
cpu::GradientsCall<T> gradients_call(const py::dict& d) {
  cpu::GradientsCall<T> c;
  c.tasks = d["tasks"].cast<int64_t>();
  c.threads = d["threads"].cast<int>();
  c.full = d["full"].cast<bool>();
  c.batches = batches_of<T>(d);
  c.phi = pointer<const T>(d["phi"].cast<Address>());
  c.phi_task = d["phi_task"].cast<int64_t>();
  c.spectral = pointer<const T>(get<Address>(d, "spectral", 0));
  c.gradient = pointer<T>(d["gradient"].cast<Address>());
  c.trace = pointer<T>(d["trace"].cast<Address>());
  c.workspace = pointer<T>(d["workspace"].cast<Address>());
  return c;
}

template <class T>
cpu::DistanceCall<T> distance_call(const py::dict& d) {
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
  return c;
}

// What the room for it depends on.
template <class T>
cpu::MetaCall<T> meta_shape(const py::dict& d) {
  cpu::MetaCall<T> c;
  read_inner_loop<T>(d, c);
  c.objective.samples = d["samples"].cast<int>();
  std::tie(c.objective.losses[0], c.objective.losses[1]) = d["losses"].cast<std::pair<double, double>>();
  c.objective.queries = d["queries"].cast<int>();
  c.objective.noise = pointer<const T>(get<Address>(d, "query_noise", 0));
  c.second_order = d["second_order"].cast<bool>();
  c.rates = d["rates"].cast<bool>();
  return c;
}

template <class T>
cpu::MetaCall<T> meta_call(const py::dict& d) {
  cpu::MetaCall<T> c = meta_shape<T>(d);
  c.phi0 = pointer<const T>(d["phi0"].cast<Address>());
  c.phi0_task = d["phi0_task"].cast<int64_t>();
  c.spectral0 = pointer<const T>(get<Address>(d, "spectral0", 0));
  c.objective.query = pointer<const T>(d["query"].cast<Address>());
  c.objective.stream = d["noise_stream"].cast<uint32_t>();
  c.gradient = pointer<T>(d["gradient"].cast<Address>());
  c.value = pointer<double>(d["value"].cast<Address>());
  c.trace = pointer<T>(d["trace"].cast<Address>());
  c.valid = pointer<uint8_t>(d["valid"].cast<Address>());
  c.d_rate = pointer<double>(get<Address>(d, "d_rate", 0));
  c.workspace = pointer<T>(d["workspace"].cast<Address>());
  return c;
}

template <class T>
cpu::GenerateCall<T> generate_call(const py::dict& d) {
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
  return c;
}

}  // namespace pymgan
