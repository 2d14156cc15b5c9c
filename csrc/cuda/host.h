// The CUDA engine's code on the host, one task after the other: what its tests run where there is no GPU.
#pragma once

#include <atomic>
#include <vector>

#include "launch.h"

namespace pymgan::cuda {

class HostEngine {
 public:
  HostEngine(const Plan& plan, const Game& game) : launches_(plan, game) {}

  Launches& launches() { return launches_; }
  void adapt(const StorageSchedule& storage, const cpu::AdaptCall<float>& call);
  void pullback(const StorageSchedule& storage, const cpu::PullCall<float>& call);
  void gradients(const cpu::GradientsCall<float>& call);
  void generate(const cpu::GenerateCall<float>& call);
  void noise(const NoiseCall& call);

 private:
  uint64_t another_seed() { return seed_ += 1000003; }

  Launches launches_;
  std::atomic<uint64_t> seed_{1};  // of the order of threads
};

}  // namespace pymgan::cuda
