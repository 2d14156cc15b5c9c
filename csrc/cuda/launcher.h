// Executes launches: on a device, or on the host, for tests. All memory is the caller's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "launch.h"

namespace pymgan::cuda {

// What a launch takes of a multiprocessor.
struct Occupancy {
  int registers = 0;         // of a thread
  int64_t shared_bytes = 0;  // of a block
  int team = 1;              // blocks that work on a task
  int blocks = 0;            // that a multiprocessor holds at a time
  int threads = 0;           // of a block
  int most_threads = 0;      // of a multiprocessor
  int multiprocessors = 0;   // of the device
};

// Every pointer of launch and call is of the memory that the launcher works in. Throws std::runtime_error.
class Launcher {
 public:
  virtual ~Launcher() = default;
  // For calls with this many tasks, each with so many elements of parameters and cotangents.
  virtual SharedRoom room(int64_t tasks, int64_t elements) const = 0;
  virtual Occupancy occupancy(const Launch& launch) const = 0;
  // stream: cudaStream_t of the device, on which the call goes on after this returns.
  virtual void adapt(const Launch& launch, const cpu::AdaptCall<float>& call, void* stream) = 0;
  virtual void pullback(const Launch& launch, const PullArguments& call, void* stream) = 0;
  virtual void meta_gradient(const Launch& launch, const cpu::MetaCall<float>& call, void* stream) = 0;
  virtual void gradients(const Launch& launch, const cpu::GradientsCall<float>& call, void* stream) = 0;
  virtual void generate(const Launch& launch, const cpu::GenerateCall<float>& call, void* stream) = 0;
  virtual void noise(const NoiseCall& call, void* stream) = 0;
  virtual void distance(const cpu::DistanceCall<float>& call, void* stream) = 0;
};

// Whether weights in global memory come through rings: what PYMGAN_CUDA_BULK says, 0 or 1, for measurements; else this.
bool wants_rings(bool otherwise);

// One task after the other, the elements of every phase in a random order, with this much shared memory.
std::unique_ptr<Launcher> host_launcher(int64_t shared, bool rings);

// What the kernel was compiled for, such as "sm_80"; empty: this build has no CUDA.
std::vector<std::string> device_targets();
std::unique_ptr<Launcher> device_launcher(int device);

}  // namespace pymgan::cuda
