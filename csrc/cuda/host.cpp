#include "host.h"

namespace pymgan::cuda {
namespace {

// A launch with its constants in memory.
class Prepared {
 public:
  template <class Make>
  Prepared(const Make& make, float* workspace) {
    Image sized;
    make(sized);
    bytes_ = sized.bytes();
    Image placed(bytes_.data());
    launch = make(placed);
    launch.workspace = workspace;
  }
  Launch launch;

 private:
  std::vector<char> bytes_;
};

template <class F>
void for_tasks(const Prepared& p, uint64_t seed, int64_t tasks, F f) {
  for (int64_t t = 0; t < tasks; ++t) {
    Block block(seed + static_cast<uint64_t>(t));
    f(TaskCall(block, p.launch, t));
  }
}

}  // namespace

void HostEngine::adapt(const StorageSchedule& storage, const cpu::AdaptCall<float>& call) {
  const Prepared p([&](Image& image) { return launches_.adapt(storage, call.steps, image); }, call.workspace);
  for_tasks(p, another_seed(), call.tasks, [&](TaskCall&& task) { task.adapt(call); });
}

void HostEngine::pullback(const StorageSchedule& storage, const cpu::PullCall<float>& call) {
  const Prepared p(
      [&](Image& image) {
        return launches_.pullback(storage, call.halves, call.rates, call.schedule.scale != nullptr, call.steps, image);
      },
      call.workspace);
  const PullArguments a = arguments(call);
  for_tasks(p, another_seed(), call.tasks, [&](TaskCall&& task) { task.pullback(a); });
  if (!call.weight) return;
  const int64_t vectors = weighted_vectors(p.launch, a);
  for (int64_t i = 0; i < vectors * p.launch.tables.total; ++i) weighted_sum(p.launch, a, i);
}

void HostEngine::gradients(const cpu::GradientsCall<float>& call) {
  const Prepared p([&](Image& image) { return launches_.gradients(call.full, image); }, call.workspace);
  for_tasks(p, another_seed(), call.tasks, [&](TaskCall&& task) { task.gradients(call); });
}

void HostEngine::generate(const cpu::GenerateCall<float>& call) {
  const bool vjp = call.cotangent != nullptr;
  const Prepared p([&](Image& image) { return launches_.generate(call.batch, vjp, image); }, call.workspace);
  for_tasks(p, another_seed(), call.tasks, [&](TaskCall&& task) { task.generate(call); });
}

void HostEngine::noise(const NoiseCall& call) {
  const Launch none;
  for (int64_t t = 0; t < call.tasks; ++t) {
    Block block(another_seed());
    TaskCall(block, none, t).noise(call);
  }
}

}  // namespace pymgan::cuda
