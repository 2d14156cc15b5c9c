// The cpu engine's calls without Python, for the sanitizers: random plans, every instruction set, storage mode and
// play. Buffers are poisoned with NaN and surrounded by sentinels; the pull-back is held against finite differences in
// double.
#include "trial.h"

namespace {

template <class T>
void same_bits(const cpu::Kernels<T>& kernels, const Plan& plan, Game game) {
  game.keep_all = true;
  Trial<T> all(kernels, plan, game, 3, 5);
  auto one = all.run("all", 1), two = all.run("all", 2);
  expect(one.phi.same(two.phi) && one.moment.same(two.moment) && one.v_moment0.same(two.v_moment0) &&
             one.v0.same(two.v0) && one.d_rate == two.d_rate && one.sums.same(two.sums),
         "threads change the bits");
  for (bool second_order : {true, false})
    expect(all.meta_gradient("all", 1, second_order).same(all.meta_gradient("all", 2, second_order)),
           "threads change the bits of the meta-gradient");
  game.keep_all = false;
  Trial<T> again(kernels, plan, game, 3, 5);
  again.same_schedule(all);
  again.phi0 = all.phi0, again.real = all.real, again.v = all.v;
  for (const char* storage : {"phi", "every:2", "nested"}) {
    auto other = again.run(storage, 1);
    expect(one.phi.same(other.phi) && one.moment.same(other.moment), std::string("storage changes phi: ") + storage);
    expect(one.v0.same(other.v0), std::string("storage changes v0: ") + storage);
    expect(all.meta_gradient("all", 1, true).same(again.meta_gradient(storage, 2, true)),
           std::string("storage changes the meta-gradient: ") + storage);
  }
}

// <v, d phi_K / d phi_0 u> against <v0, u>, and the same for the rates.
void finite_differences(const cpu::Kernels<double>& kernels, const Plan& plan, const Game& game) {
  Trial<double> trial(kernels, plan, game, 2, 3);
  auto at = trial.run("phi", 1);
  Buffer<double> direction(trial.tasks * trial.parameters);
  direction.randomise(1.0);
  const double h = 1e-6;
  auto moved = [&](double step) {
    Trial<double> other(kernels, plan, game, 2, 3);
    other.same_schedule(trial);
    other.real = trial.real, other.v = trial.v;
    for (int64_t i = 0; i < direction.size(); ++i) other.phi0[i] = trial.phi0[i] + step * direction[i];
    return other.run("phi", 1).phi;
  };
  auto up = moved(h), down = moved(-h);
  double numeric = 0, analytic = 0, size = 0;
  for (int64_t i = 0; i < direction.size(); ++i) {
    numeric += trial.v[i] * (up[i] - down[i]) / (2 * h);
    analytic += at.v0[i] * direction[i];
    size += std::abs(at.v0[i] * direction[i]);
  }
  expect(std::abs(numeric - analytic) < 1e-6 * (1 + size),
         "finite difference " + std::to_string(numeric) + " but " + std::to_string(analytic));
  const double rate = trial.rate[1];
  trial.rate[1] = rate + h;
  auto more = trial.run("phi", 1);
  trial.rate[1] = rate - h;
  auto less = trial.run("phi", 1);
  numeric = 0;
  for (int64_t i = 0; i < trial.tasks * trial.parameters; ++i)
    numeric += trial.v[i] * (more.phi[i] - less.phi[i]) / (2 * h);
  expect(std::abs(numeric - at.d_rate[1]) < 1e-5 * (1 + std::abs(numeric)),
         "d/d rate: " + std::to_string(numeric) + " but " + std::to_string(at.d_rate[1]));
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 6;
  int count = 0;
  const cpu::Isa* sets = cpu::isas(&count);
  int run = 0;
  for (int i = 0; i < count; ++i) {
    if (!sets[i].supported()) continue;
    for (int round = 0; round < rounds; ++round)
      for (bool alternating : {false, true})
        for (const std::vector<Optimiser>& optimisers : kOptimisers) {
          const Plan plan = round % 2 ? random_image_plan() : random_plan();
          const Game game = random_game(alternating, optimisers, round % 2 == 1);
          now = describe(sets[i].name, plan, game);
          same_bits(sets[i].f32(), plan, game);
          same_bits(sets[i].f64(), plan, game);
          // sqrt(|e|^2 + 1e-12) bends too much to be differenced where |e| is small
          if (game.penalty.kind != PenaltyKind::wgan_gp) finite_differences(sets[i].f64(), plan, game);
          ++run;
        }
  }
  std::printf("test_engine: %d cases, %d failures\n", run, failures);
  return failures == 0 ? 0 : 1;
}
