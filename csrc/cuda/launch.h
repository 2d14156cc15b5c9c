// From the contract's calls to launches: which lists a call executes, and where its buffers lie.
#pragma once

#include <vector>

#include "calls.h"

namespace pymgan::cuda {

inline PullArguments arguments(const cpu::PullCall<float>& call) {
  PullArguments a;
  a.tasks = call.tasks, a.batches = call.batches, a.schedule = call.schedule, a.rates = call.rates;
  a.weight = call.weight, a.valid = call.valid, a.saved = call.saved, a.v = call.v, a.v_moment = call.v_moment;
  a.v0 = call.v0, a.v_moment0 = call.v_moment0, a.d_rate = call.d_rate, a.d_scale = call.d_scale;
  return a;
}

class Launches {
 public:
  Launches(const Plan& plan, const Game& game);

  Program& program() { return program_; }
  int64_t saved_elements(const StorageSchedule& storage, int steps) const;

  // A launch whose constants will be at `image`'s base; its workspace has `places.each` elements a task.
  Launch adapt(const StorageSchedule& storage, int steps, Image& image);
  Launch pullback(const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates, bool scaled, int steps,
                  Image& image);
  Launch gradients(bool full, Image& image) { return list(program_.gradients(full), image); }
  Launch generate(int batch, bool vjp, Image& image) {
    return list(vjp ? program_.generate_vjp(batch) : program_.generate(batch), image);
  }

 private:
  class Lists;
  void find_flat();
  Launch start(Image& image) const;
  void add_steps(Launch& l, const StorageSchedule& storage, int steps, Lists& lists, Image& image);
  Launch list(const Procedure& procedure, Image& image);
  int64_t snapshot() const {
    return program_.layout().total * (1 + program_.moments()) + program_.layout().spectral_size;
  }

  Program program_;
  Encoding encoding_;
  std::vector<int32_t> flat_;  // of every packed element its place in torch's phi; -1: padding
  std::vector<uint8_t> kinds_;
};

}  // namespace pymgan::cuda
