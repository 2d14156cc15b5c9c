// The engine's one kernel: a block executes all inner steps of a task, or their pull-back, in one launch.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "device.h"

namespace pymgan::cuda {
namespace {

enum class Kind : uint8_t { adapt, pullback, gradients, generate, noise };

struct Work {
  Kind kind = Kind::adapt;
  Launch launch;
  cpu::AdaptCall<float> adapt;
  PullArguments pull;
  cpu::GradientsCall<float> gradients;
  cpu::GenerateCall<float> generate;
  NoiseCall noise;
};

__global__ void __launch_bounds__(kThreads) run(const __grid_constant__ Work work) {
  __shared__ double partial[kThreads];
  extern __shared__ float4 temps[];
  Block block(partial);
  TaskCall task(block, work.launch, blockIdx.x, reinterpret_cast<float*>(temps));
  switch (work.kind) {
    case Kind::adapt:
      return task.adapt(work.adapt);
    case Kind::pullback:
      return task.pullback(work.pull);
    case Kind::gradients:
      return task.gradients(work.gradients);
    case Kind::generate:
      return task.generate(work.generate);
    case Kind::noise:
      return task.noise(work.noise);
  }
}

__global__ void __launch_bounds__(kThreads) sum(const __grid_constant__ Work work) {
  const int64_t count = weighted_vectors(work.launch, work.pull) * work.launch.tables.total;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads)
    weighted_sum(work.launch, work.pull, i);
}

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("[cuda] ") + what + ": " + cudaGetErrorString(error));
}

void start(const Work& work, int64_t tasks, void* stream) {
  const size_t shared = work.launch.arena_shared ? work.launch.arena * sizeof(float) : 0;
  if (shared > 0)
    check(cudaFuncSetAttribute(run, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
          "shared memory of a block");
  run<<<static_cast<unsigned>(tasks), kThreads, shared, static_cast<cudaStream_t>(stream)>>>(work);
  check(cudaGetLastError(), "launch");
}

}  // namespace

int64_t shared_bytes(int device) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "device");
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, run), "kernel");
  return bytes - static_cast<int64_t>(attributes.sharedSizeBytes);
}

void adapt(const Launch& launch, const cpu::AdaptCall<float>& call, void* stream) {
  Work work;
  work.kind = Kind::adapt, work.launch = launch, work.adapt = call;
  start(work, call.tasks, stream);
}

void pullback(const Launch& launch, const PullArguments& call, void* stream) {
  Work work;
  work.kind = Kind::pullback, work.launch = launch, work.pull = call;
  start(work, call.tasks, stream);
  if (!call.weight) return;
  sum<<<128, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(work);
  check(cudaGetLastError(), "launch");
}

void gradients(const Launch& launch, const cpu::GradientsCall<float>& call, void* stream) {
  Work work;
  work.kind = Kind::gradients, work.launch = launch, work.gradients = call;
  start(work, call.tasks, stream);
}

void generate(const Launch& launch, const cpu::GenerateCall<float>& call, void* stream) {
  Work work;
  work.kind = Kind::generate, work.launch = launch, work.generate = call;
  start(work, call.tasks, stream);
}

void noise(const NoiseCall& call, void* stream) {
  Work work;
  work.kind = Kind::noise, work.noise = call;
  start(work, call.tasks, stream);
}

}  // namespace pymgan::cuda
