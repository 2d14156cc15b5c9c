// The engine's one kernel: a block, or a team of blocks, executes all inner steps of a task, or their pull-back, in one
// launch.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>

#include "calls.h"
#include "launcher.h"
#include "meta_gradient.h"
#include "task_sums.h"

namespace pymgan::cuda {
namespace {

enum class Kind : uint8_t { adapt, pullback, meta_gradient, gradients, generate, noise, distance };

struct Work {
  Kind kind = Kind::adapt;
  Launch launch;
  cpu::AdaptCall<float> adapt;
  PullArguments pull;
  cpu::MetaCall<float> meta;
  cpu::GradientsCall<float> gradients;
  cpu::GenerateCall<float> generate;
  NoiseCall noise;
  cpu::DistanceCall<float> distance;
};

__global__ void __launch_bounds__(kThreads, 2) run(const __grid_constant__ Work work) {
  __shared__ double partial[2 * kWarps];
  __shared__ __align__(16) char codes[2 * sizeof(Code)];
  extern __shared__ float4 buffers[];
  const int team = work.launch.team;
  Block block(partial, reinterpret_cast<Code*>(codes), team, blockIdx.x % team);
  float* const shared = reinterpret_cast<float*>(buffers);
  if (work.kind == Kind::meta_gradient)
    return MetaGradient(block, work.launch, blockIdx.x / team, shared, work.meta).run();
  TaskCall task(block, work.launch, blockIdx.x / team, shared);
  switch (work.kind) {
    case Kind::adapt:
      return task.adapt(work.adapt);
    case Kind::pullback:
      return task.pullback(work.pull);
    case Kind::meta_gradient:
      return;
    case Kind::gradients:
      return task.gradients(work.gradients);
    case Kind::generate:
      return task.generate(work.generate);
    case Kind::noise:
      return task.noise(work.noise);
    case Kind::distance:
      return task.distance(work.distance);
  }
}

// What is added up over tasks.
__global__ void __launch_bounds__(kThreads) sum(const __grid_constant__ Work work) {
  const bool meta = work.kind == Kind::meta_gradient;
  const int64_t count = (meta ? 1 : weighted_vectors(work.launch, work.pull)) * work.launch.tables.total;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads)
    if (meta)
      mean_descent(work.launch, work.meta, i);
    else
      weighted_sum(work.launch, work.pull, i);
}

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would seem to have failed
  throw std::runtime_error(std::string("[cuda] ") + what + ": " + cudaGetErrorString(error));
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "device");
  return value;
}

class DeviceLauncher final : public Launcher {
 public:
  explicit DeviceLauncher(int device) : device_(device) {
    const OnDevice on(device);
    check(cudaFuncGetAttributes(&kernel_, run), "kernel");
    shared_bytes_ =
        attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device) - static_cast<int>(kernel_.sharedSizeBytes);
    if (const char* bytes = std::getenv("PYMGAN_CUDA_SHARED")) shared_bytes_ = checked_shared(bytes, shared_bytes_);
    multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, device);
    most_threads_ = attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device);
    cache_bytes_ = attribute(cudaDevAttrL2CacheSize, device);
    const bool sm_90 = attribute(cudaDevAttrComputeCapabilityMajor, device) >= 9;
    if (!sm_90) team_ = 1;
    rings_ = wants_rings(sm_90);
    if (const char* team = std::getenv("PYMGAN_CUDA_TEAM")) team_ = checked_team(team);
    check(cudaFuncSetAttribute(run, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes_), "shared memory");
  }

  // Where the tasks fill the device twice, two blocks on a multiprocessor hide each other's waits.
  SharedRoom room(int64_t tasks, int64_t elements) const override {
    const int64_t most = shared_bytes_ / static_cast<int>(sizeof(float));
    const int64_t half = (shared_bytes_ - kReserved - static_cast<int>(kernel_.sharedSizeBytes)) / 2 / 16 * 4;
    return {tasks >= 2 * multiprocessors_ ? half : most, most, team_of(tasks, elements), half, rings_};
  }

  Occupancy occupancy(const Launch& launch) const override {
    const OnDevice on(device_);
    Occupancy o;
    o.registers = kernel_.numRegs;
    o.shared_bytes = bytes(launch) + static_cast<int64_t>(kernel_.sharedSizeBytes);
    o.team = launch.team;
    o.threads = kThreads, o.most_threads = most_threads_, o.multiprocessors = multiprocessors_;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&o.blocks, run, kThreads, bytes(launch)), "occupancy");
    return o;
  }

  void adapt(const Launch& launch, const cpu::AdaptCall<float>& call, void* stream) override {
    Work work;
    work.kind = Kind::adapt, work.launch = launch, work.adapt = call;
    start(work, call.tasks, stream);
  }
  void pullback(const Launch& launch, const PullArguments& call, void* stream) override {
    Work work;
    work.kind = Kind::pullback, work.launch = launch, work.pull = call;
    start(work, call.tasks, stream);
    if (call.weight) add_up(work, stream);
  }
  void meta_gradient(const Launch& launch, const cpu::MetaCall<float>& call, void* stream) override {
    Work work;
    work.kind = Kind::meta_gradient, work.launch = launch, work.meta = call;
    start(work, call.tasks, stream);
    add_up(work, stream);
  }
  void gradients(const Launch& launch, const cpu::GradientsCall<float>& call, void* stream) override {
    Work work;
    work.kind = Kind::gradients, work.launch = launch, work.gradients = call;
    start(work, call.tasks, stream);
  }
  void generate(const Launch& launch, const cpu::GenerateCall<float>& call, void* stream) override {
    Work work;
    work.kind = Kind::generate, work.launch = launch, work.generate = call;
    start(work, call.tasks, stream);
  }
  void noise(const NoiseCall& call, void* stream) override {
    Work work;
    work.kind = Kind::noise, work.noise = call;
    start(work, call.tasks, stream);
  }
  void distance(const cpu::DistanceCall<float>& call, void* stream) override {
    Work work;
    work.kind = Kind::distance, work.distance = call;
    start(work, call.tasks, stream);
  }

 private:
  // torch's current device, and back.
  class OnDevice {
   public:
    explicit OnDevice(int device) {
      check(cudaGetDevice(&before_), "device");
      check(cudaSetDevice(device), "device");
    }
    ~OnDevice() { cudaSetDevice(before_); }

   private:
    int before_ = 0;
  };

  static size_t bytes(const Launch& launch) { return launch.places.shared * sizeof(float); }

  // As many blocks a task as keep the device busy, and up to four if the parameters and cotangents of all tasks at work
  // would not fit into the second-level cache.
  int team_of(int64_t tasks, int64_t elements) const {
    if (team_ > 0) return team_;
    int team = 1;
    while (team < kMostBlocks && tasks * team * 2 <= multiprocessors_) team *= 2;
    const int64_t bytes = elements * static_cast<int64_t>(sizeof(float));
    while (team < 4 && std::min<int64_t>(tasks, multiprocessors_ / team) * bytes > cache_bytes_) team *= 2;
    return team;
  }

  // For measurements.
  static int checked_shared(const char* text, int most) {
    char* end = nullptr;
    const long bytes = std::strtol(text, &end, 10);
    if (end == text || *end != 0 || bytes < 0 || bytes > most)
      throw std::invalid_argument("[cuda] PYMGAN_CUDA_SHARED: expected 0 to " + std::to_string(most) + " bytes, got " +
                                  text);
    return static_cast<int>(bytes) / 16 * 16;
  }
  static int checked_team(const char* text) {
    const std::string team = text;
    if (team != "1" && team != "2" && team != "4" && team != "8")
      throw std::runtime_error("[cuda] PYMGAN_CUDA_TEAM: expected 1, 2, 4 or 8, got " + team);
    return team[0] - '0';
  }

  void start(const Work& work, int64_t tasks, void* stream) const {
    const OnDevice on(device_);
    const int team = work.launch.team;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = team, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(tasks * team));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = bytes(work.launch);
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &cluster, config.numAttrs = team > 1 ? 1 : 0;
    check(cudaLaunchKernelEx(&config, run, work), "launch");
  }

  void add_up(const Work& work, void* stream) const {
    const OnDevice on(device_);
    sum<<<multiprocessors_, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(work);
    check(cudaGetLastError(), "launch");
  }

  static constexpr int kReserved = 1024;  // bytes of shared memory that each block takes beside its own

  int device_;
  cudaFuncAttributes kernel_{};
  int shared_bytes_ = 0, multiprocessors_ = 0, most_threads_ = 0, cache_bytes_ = 0;
  int team_ = 0;  // 0: it depends
  bool rings_ = false;
};

}  // namespace

std::vector<std::string> device_targets() {
  std::vector<std::string> targets;
  std::istringstream text(PYMGAN_CUDA_TARGETS);
  for (std::string target; text >> target;) targets.push_back(target);
  return targets;
}

std::unique_ptr<Launcher> device_launcher(int device) { return std::make_unique<DeviceLauncher>(device); }

}  // namespace pymgan::cuda
