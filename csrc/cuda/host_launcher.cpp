#include <atomic>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "calls.h"
#include "launcher.h"
#include "meta_gradient.h"
#include "task_sums.h"

namespace pymgan::cuda {
namespace {

class HostLauncher final : public Launcher {
 public:
  HostLauncher(int64_t shared, bool rings) : shared_(shared), rings_(rings) {}

  SharedRoom room(int64_t tasks, int64_t) const override {
    const bool crowded = tasks >= 2 * kMultiprocessors;
    return {crowded ? shared_ / 2 : shared_, shared_, crowded ? 1 : 4, shared_ / 2, rings_};
  }
  Occupancy occupancy(const Launch&) const override { return {}; }
  void adapt(const Launch& launch, const cpu::AdaptCall<float>& call, void*) override {
    for_tasks(launch, call.tasks, [&](auto&... block) { TaskCall(block...).adapt(call); });
  }
  void pullback(const Launch& launch, const PullArguments& call, void*) override {
    for_tasks(launch, call.tasks, [&](auto&... block) { TaskCall(block...).pullback(call); });
    const int64_t elements = call.weight ? weighted_vectors(launch, call) * launch.tables.total : 0;
    for (int64_t i = 0; i < elements; ++i) weighted_sum(launch, call, i);
  }
  void meta_gradient(const Launch& launch, const cpu::MetaCall<float>& call, void*) override {
    for_tasks(launch, call.tasks, [&](auto&... block) { MetaGradient(block..., call).run(); });
    for (int64_t i = 0; i < launch.tables.total; ++i) mean_descent(launch, call, i);
  }
  void gradients(const Launch& launch, const cpu::GradientsCall<float>& call, void*) override {
    for_tasks(launch, call.tasks, [&](auto&... block) { TaskCall(block...).gradients(call); });
  }
  void generate(const Launch& launch, const cpu::GenerateCall<float>& call, void*) override {
    for_tasks(launch, call.tasks, [&](auto&... block) { TaskCall(block...).generate(call); });
  }
  void noise(const NoiseCall& call, void*) override {
    for_tasks({}, call.tasks, [&](auto&... block) { TaskCall(block...).noise(call); });
  }
  void distance(const cpu::DistanceCall<float>& call, void*) override {
    for_tasks({}, call.tasks, [&](auto&... block) { TaskCall(block...).distance(call); });
  }

 private:
  // f(block, launch, task, its shared memory)
  template <class F>
  void for_tasks(const Launch& launch, int64_t tasks, F f) {
    struct alignas(16) Quad {
      float elements[4];
    };
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t task = 0; task < tasks; ++task) {
      std::vector<Quad> memory(launch.team * ((launch.places.shared + 3) / 4), Quad{{nan, nan, nan, nan}});
      float* const shared = reinterpret_cast<float*>(memory.data());
      Block block(seed_ += 1000003, shared, launch.places.shared, launch.team);
      f(block, launch, task, shared);
    }
  }

  static constexpr int64_t kMultiprocessors = 500;  // that the host plays

  int64_t shared_;
  bool rings_;
  std::atomic<uint64_t> seed_{1};  // of the order of threads
};

}  // namespace

bool wants_rings(bool otherwise) {
  const char* text = std::getenv("PYMGAN_CUDA_BULK");
  if (!text) return otherwise;
  const std::string wants = text;
  if (wants != "0" && wants != "1") throw std::runtime_error("[cuda] PYMGAN_CUDA_BULK: expected 0 or 1, got " + wants);
  return wants == "1";
}

std::unique_ptr<Launcher> host_launcher(int64_t shared, bool rings) {
  return std::make_unique<HostLauncher>(shared, rings);
}

}  // namespace pymgan::cuda
