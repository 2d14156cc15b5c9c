// The CUDA engine's code on the host, one task after the other: what its tests run where there is no GPU.
#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "calls.h"

namespace pymgan::cuda {

class HostEngine {
 public:
  HostEngine(const Plan& plan, const Game& game) : program_(plan, game, cuda_target()), encoding_(program_) {
    find_flat();
    for (Optimiser kind : game.optimisers) kinds_.push_back(static_cast<uint8_t>(kind));
  }

  Program& program() { return program_; }
  int64_t saved_elements(const StorageSchedule& storage, int steps) const;
  int64_t adapt_workspace(int64_t tasks) const;
  int64_t pull_workspace(const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates, bool scaled,
                         int steps, int64_t tasks);
  int64_t gradients_workspace(bool full, int64_t tasks);
  int64_t generate_workspace(int batch, bool vjp, int64_t tasks);

  void adapt(const StorageSchedule& storage, const cpu::AdaptCall<float>& call);
  void pullback(const StorageSchedule& storage, const cpu::PullCall<float>& call);
  void gradients(const cpu::GradientsCall<float>& call);
  void generate(const cpu::GenerateCall<float>& call);

 private:
  void find_flat();
  Listing encoded(const Procedure& procedure);
  Launch launch(int steps);
  void add_pulls(Launch& l, const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates, bool scaled,
                 std::vector<Listing>& pulls);
  Places adapt_places() const;
  Places pull_places(const StorageSchedule& storage, int64_t cotangents, bool rates, int64_t arena) const;
  int64_t pull_arena(const std::vector<Halves>& halves, bool rates, bool scaled, int steps);
  Places list_places(const Procedure& procedure) const;
  int64_t snapshot() const {
    return program_.layout().total * (1 + program_.moments()) + program_.layout().spectral_size;
  }

  Program program_;
  Encoding encoding_;
  std::vector<int32_t> flat_;
  std::vector<uint8_t> kinds_;
  std::map<const Procedure*, std::vector<Code>> codes_;
  std::mutex mutex_;
};

}  // namespace pymgan::cuda
