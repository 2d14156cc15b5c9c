// The CUDA engine's host build without Python, for the sanitizers: what a block would write outside of its buffers, and
// phases that depend on the order of their threads, which is another one in every run, or on when copies arrive. With
// rings and without them the bits are the same. The numbers themselves are held against the oracle in Python; here the
// cpu engine's in double must be near.
#include <algorithm>

#include "cuda/launcher.h"
#include "trial.h"

namespace {

struct Pulled {
  Buffer<float> phi, moment, v0, v_moment0, d_scale, gradient;
  std::vector<double> d_rate;
  bool rings = false;  // in the pull-back
};

// A launch, its constants and its workspace.
struct Ready {
  cuda::Prepared prepared;
  Buffer<float> room;
  Ready(cuda::Prepared p, int64_t tasks) : prepared(std::move(p)), room(tasks * prepared.workspace()) {
    prepared.place(prepared.constants().data());
  }
  cuda::Launch launch() { return prepared.at(room.data()); }
};

Pulled run(cuda::Launcher& launcher, cuda::Launches& launches, const Trial<float>& trial,
           const std::string& storage_text) {
  const StorageSchedule storage = schedule_storage(Storage::parse(storage_text), static_cast<int>(trial.steps));
  const int64_t tasks = trial.tasks, steps = trial.steps, parameters = trial.parameters;
  const int64_t moments = launches.program().moments();
  Pulled r{Buffer<float>(tasks * parameters),
           Buffer<float>(tasks * moments * parameters),
           Buffer<float>(2 * tasks * parameters),
           Buffer<float>(2 * tasks * moments * parameters),
           Buffer<float>(2 * tasks * parameters),
           Buffer<float>(2 * tasks * parameters),
           std::vector<double>(2 * tasks * steps * 2, 0.0),
           false};
  Buffer<float> trace(tasks * steps * cpu::kTrace, 0.f);
  Buffer<float> saved(tasks * launches.saved_elements(storage, static_cast<int>(steps)));
  std::vector<uint8_t> valid(tasks);
  std::vector<int64_t> done(tasks);
  Ready adapt(launches.adapt(storage, static_cast<int>(steps), launcher.room(tasks, 0)), tasks);
  cpu::AdaptCall<float> a;
  a.tasks = tasks, a.steps = static_cast<int>(steps);
  a.batches = trial.batches(0), a.schedule = trial.schedule();
  a.phi0 = trial.phi0.data(), a.phi0_task = parameters;
  a.phi = r.phi.data(), a.moment = r.moment.data(), a.trace = trace.data(), a.valid = valid.data();
  a.done = done.data(), a.saved = saved.data();
  launcher.adapt(adapt.launch(), a, nullptr);
  for (uint8_t ok : valid) expect(ok == 1, "a task became invalid");

  cpu::PullCall<float> p;
  p.tasks = tasks, p.steps = static_cast<int>(steps);
  p.batches = a.batches, p.schedule = a.schedule, p.rates = true;
  p.halves = {{kBoth, kBoth}, {kBoth, kGenerator}};
  Ready pull(launches.pullback(storage, p.halves, true, false, a.steps, launcher.room(tasks, 0)), tasks);
  for (const cuda::BufferNote& b : pull.prepared.buffers()) r.rings = r.rings || b.name == "rings";
  p.valid = valid.data(), p.saved = saved.data(), p.v = trial.v.data();
  p.v0 = r.v0.data(), p.v_moment0 = r.v_moment0.data(), p.d_rate = r.d_rate.data(), p.d_scale = r.d_scale.data();
  launcher.pullback(pull.launch(), cuda::arguments(p), nullptr);

  cpu::GradientsCall<float> g;
  g.tasks = tasks, g.full = true;
  g.batches = a.batches, g.phi = trial.phi0.data(), g.phi_task = parameters;
  Buffer<float> losses(tasks * cpu::kTrace, 0.f);
  Ready gradients(launches.gradients(true, launcher.room(tasks, 0)), tasks);
  g.gradient = r.gradient.data(), g.trace = losses.data();
  launcher.gradients(gradients.launch(), g, nullptr);
  for (const auto* b : {&r.phi, &r.moment, &r.v0, &r.v_moment0, &r.d_scale, &r.gradient, &trace, &saved, &adapt.room,
                        &pull.room, &losses, &gradients.room})
    expect(b->guarded(), "a sentinel was overwritten");
  return r;
}

// Whose weights are blocks of 16 x 16, several along each side.
Plan even_plan() {
  auto width = [&] { return int64_t{16} << draw(0, 3); };
  Plan plan;
  const int64_t sample = width();
  int64_t offset = 0;
  plan.generator = random_network({width(), width(), sample}, offset, Activation::tanh, Activation::tanh);
  plan.generator_parameters = offset;
  plan.discriminator = random_network({sample, width(), width(), 1}, offset, Activation::tanh, Activation::identity);
  plan.parameters = offset;
  plan.validate();
  return plan;
}

// Returns how often there were rings.
int check(const cpu::Isa& set, const Plan& plan, Game game, const std::vector<int64_t>& shared) {
  int rings = 0;
  for (const char* storage : {"all", "nested"}) {
    game.keep_all = std::string(storage) == "all";
    Trial<float> trial(set.f32(), plan, game, 2, 3);
    const int64_t room = shared[draw(0, static_cast<int64_t>(shared.size()) - 1)];
    const auto with = cuda::host_launcher(room, true), without = cuda::host_launcher(room, false);
    cuda::Launches launches(plan, game);
    const Pulled one = run(*with, launches, trial, storage), two = run(*without, launches, trial, storage);
    expect(!two.rings, "expected no rings");
    rings += one.rings;
    expect(one.phi.same(two.phi) && one.moment.same(two.moment) && one.v0.same(two.v0) &&
               one.v_moment0.same(two.v_moment0) && one.d_scale.same(two.d_scale) && one.gradient.same(two.gradient),
           std::string("the order of threads, or rings, change the bits: ") + storage);
    Trial<double> exact(set.f64(), plan, game, 2, 3);
    exact.same_schedule(trial);
    for (int64_t i = 0; i < trial.phi0.size(); ++i) exact.phi0[i] = trial.phi0[i];
    for (int64_t i = 0; i < trial.real.size(); ++i) exact.real[i] = trial.real[i];
    for (int64_t i = 0; i < trial.v.size(); ++i) exact.v[i] = trial.v[i];
    const auto wanted = exact.run(storage, 1);
    auto distance = [&](const Buffer<float>& got) {
      double off = 0, size = 0;
      for (int64_t i = 0; i < got.size(); ++i)
        off += std::pow(got[i] - wanted.v0[i], 2), size += std::pow(wanted.v0[i], 2);
      return std::sqrt(off / size);
    };
    // How well the game is conditioned, the cpu engine's float32 says.
    const double off = distance(one.v0), cpu = distance(trial.run(storage, 1).v0);
    expect(off <= 1e-5 + 3 * cpu, "v0 is off by " + std::to_string(off) + ", the cpu engine's " + std::to_string(cpu));
  }
  return rings;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 4;
  int count = 0, run = 0;
  const cpu::Isa* sets = cpu::isas(&count);
  const cpu::Isa* best = sets;
  while (!best->supported()) ++best;
  for (int round = 0; round < rounds; ++round)
    for (bool alternating : {false, true})
      for (const std::vector<Optimiser>& optimisers : kOptimisers) {
        const Plan plan = round % 2 ? random_image_plan() : random_plan();
        const Game game = random_game(alternating, optimisers, round % 2 == 1);
        now = describe("cuda-host", plan, game);
        check(*best, plan, game, {0, 1 << 12, 1 << 16});
        ++run;
      }
  int rings = 0;
  for (int round = 0; round < 2 * rounds; ++round)
    for (bool alternating : {false, true}) {
      const Plan plan = even_plan();
      Game game = random_game(alternating, {Optimiser::sgd}, false);
      if (draw(0, 1)) game.fakes = game.reals = 20;  // wide tiles
      now = describe("cuda-host with rings", plan, game);
      // Two, three and four blocks each; temps in global memory, in a team's or in one block's.
      rings += check(*best, plan, game, {9 << 10, 13 << 10, 17 << 10, 24 << 10});
      ++run;
    }
  expect(rings > 2 * rounds, "expected rings more often than " + std::to_string(rings) + " times");
  std::printf("test_cuda_host: %d cases, %d times with rings, %d failures\n", run, rings, failures);
  return failures == 0 ? 0 : 1;
}
