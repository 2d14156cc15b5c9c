// Random games and what engines are asked about them, for tests without Python. Buffers are poisoned with NaN and
// surrounded by sentinels.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cpu/engine.h"
#include "cpu/interpreter.h"
#include "cpu/kernels.h"

using namespace pymgan;

namespace {

int failures = 0;
std::string now;  // the case under test

void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED: %s: %s\n", now.c_str(), what.c_str());
  ++failures;
}

std::mt19937_64 generator(20261124);

int64_t draw(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

// 64-byte aligned elements full of NaN between two sentinels.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n, T fill = std::numeric_limits<T>::quiet_NaN())
      : n_(n), memory_(n + 2 * kGuard + 64, kSentinel) {
    auto at = reinterpret_cast<std::uintptr_t>(memory_.data() + kGuard);
    start_ = reinterpret_cast<T*>((at + 63) / 64 * 64);
    std::fill_n(start_, n, fill);
  }
  Buffer(Buffer&&) = default;
  Buffer& operator=(const Buffer& other) {
    std::copy_n(other.start_, n_, start_);
    return *this;
  }
  T* data() { return start_; }
  const T* data() const { return start_; }
  int64_t size() const { return n_; }
  T& operator[](int64_t i) { return start_[i]; }
  T operator[](int64_t i) const { return start_[i]; }
  bool guarded() const {
    for (const T* p = memory_.data(); p < start_; ++p)
      if (*p != kSentinel) return false;
    for (const T* p = start_ + n_; p < memory_.data() + memory_.size(); ++p)
      if (*p != kSentinel) return false;
    return true;
  }
  bool same(const Buffer& other) const {
    return std::equal(start_, start_ + n_, other.start_,
                      [](T a, T b) { return a == b || (std::isnan(a) && std::isnan(b)); });
  }
  bool finite() const {
    return std::all_of(start_, start_ + n_, [](T a) { return std::isfinite(a); });
  }
  void randomise(T scale) {
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < n_; ++i) start_[i] = static_cast<T>(normal(generator)) * scale;
  }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr T kSentinel = static_cast<T>(12345.678);
  int64_t n_;
  std::vector<T> memory_;
  T* start_;
};

Network random_network(std::vector<int64_t> widths, int64_t& offset, Activation activation, Activation last) {
  Network net;
  net.in_shape = {widths.front()};
  auto add = [&](PlanRow row) {
    row.input = static_cast<int>(net.rows.size()) - 1;
    net.rows.push_back(std::move(row));
  };
  for (size_t i = 0; i + 1 < widths.size(); ++i) {
    PlanRow row;
    row.kind = LayerKind::linear;
    row.name = "linear";
    row.in_shape = {widths[i]};
    row.out_shape = {widths[i + 1]};
    row.weight = offset;
    offset += widths[i] * widths[i + 1];
    if (draw(0, 3) > 0) {
      row.bias = offset;
      offset += widths[i + 1];
    }
    add(row);
    const Activation f = i + 2 < widths.size() ? activation : last;
    if (f == Activation::identity) continue;
    PlanRow act;
    act.kind = LayerKind::activation;
    act.name = "activation";
    act.in_shape = act.out_shape = {widths[i + 1]};
    act.activation = f;
    act.attributes = f == Activation::leaky_relu ? std::array{0.2, 0.0}
                     : f == Activation::softplus ? std::array{1.0, 20.0}
                                                 : std::array{1.0, 0.0};
    add(act);
  }
  return net;
}

Plan random_plan() {
  static const int64_t widths[] = {1, 2, 3, 5, 16, 17, 33};
  static const Activation curved[] = {Activation::tanh, Activation::silu,    Activation::softplus,
                                      Activation::elu,  Activation::sigmoid, Activation::leaky_relu};
  auto width = [&] { return widths[draw(0, 6)]; };
  Plan plan;
  const int64_t sample = width();
  int64_t offset = 0;
  plan.generator = random_network({width(), width(), sample}, offset, curved[draw(0, 5)],
                                  draw(0, 1) ? Activation::tanh : Activation::identity);
  plan.generator_parameters = offset;
  plan.discriminator = random_network({sample, width(), width(), 1}, offset, curved[draw(0, 5)],
                                      draw(0, 4) == 0 ? Activation::tanh : Activation::identity);
  plan.parameters = offset;
  plan.validate();
  return plan;
}

PlanRow image_row(LayerKind kind, std::vector<int64_t> in, std::vector<int64_t> out) {
  PlanRow row;
  row.kind = kind;
  row.name = "image";
  row.in_shape = std::move(in), row.out_shape = std::move(out);
  return row;
}

PlanRow convolution_row(std::vector<int64_t> in, int64_t channels, bool transposed, int64_t& offset) {
  PlanRow row = image_row(LayerKind::convolution, in, {channels});
  row.transposed = transposed;
  for (size_t d = 1; d < in.size(); ++d) {
    const int64_t kernel = draw(1, 3), stride = draw(1, 2), dilation = draw(1, 2), padding = draw(0, 1);
    const int64_t reach = dilation * (kernel - 1) + 1;
    int64_t extent =
        transposed ? (in[d] - 1) * stride - 2 * padding + reach : (in[d] + 2 * padding - reach) / stride + 1;
    const bool fits = extent >= 1 && (transposed || in[d] + 2 * padding >= reach);
    row.kernel.push_back(fits ? kernel : 1), row.stride.push_back(fits ? stride : 1);
    row.dilation.push_back(fits ? dilation : 1), row.padding.push_back(fits ? padding : 0);
    row.out_shape.push_back(fits ? extent : in[d]);
  }
  row.weight = offset;
  offset += in[0] * channels * numel(row.kernel);
  if (draw(0, 3) > 0) {
    row.bias = offset;
    offset += channels;
  }
  return row;
}

PlanRow linear_row(int64_t in, int64_t out, int64_t& offset) {
  PlanRow row = image_row(LayerKind::linear, {in}, {out});
  row.weight = offset, row.bias = offset + in * out;
  offset += (in + 1) * out;
  return row;
}

// Linear to an image, a transposed convolution, a convolution, Linear from an image, with activations between.
Plan random_image_plan() {
  static const int64_t channels[] = {1, 2, 3, 5, 16, 17};
  auto some = [&] { return channels[draw(0, 5)]; };
  auto bend = [](Network& net) {
    PlanRow row = image_row(LayerKind::activation, net.out_shape(), net.out_shape());
    row.activation = draw(0, 1) ? Activation::tanh : Activation::silu;
    net.rows.push_back(row);
  };
  Plan plan;
  int64_t offset = 0;
  std::vector<int64_t> shape{some(), draw(1, 3), draw(1, 3)};
  Network& g = plan.generator;
  g.in_shape = {draw(1, 5)};
  g.rows.push_back(linear_row(g.in_shape[0], numel(shape), offset));
  bend(g);
  g.rows.push_back(image_row(LayerKind::reshape, {numel(shape)}, shape));
  g.rows.push_back(convolution_row(shape, some(), true, offset));
  bend(g);
  plan.generator_parameters = offset;
  Network& d = plan.discriminator;
  d.in_shape = g.out_shape();
  d.rows.push_back(convolution_row(d.in_shape, some(), false, offset));
  bend(d);
  const int64_t features = numel(d.out_shape());
  d.rows.push_back(image_row(LayerKind::reshape, d.out_shape(), {features}));
  d.rows.push_back(linear_row(features, 1, offset));
  plan.parameters = offset;
  for (Network* net : {&g, &d})
    for (size_t i = 0; i < net->rows.size(); ++i) net->rows[i].input = static_cast<int>(i) - 1;
  plan.validate();
  return plan;
}

// One adapt and pull-back with everything that they need.
template <class T>
struct Trial {
  const cpu::Kernels<T>& kernels;
  Program program;
  int64_t tasks, steps, parameters, latent, features;
  std::vector<int64_t> numbers, count;
  std::vector<double> rate;
  std::vector<uint8_t> active, kind;
  std::vector<int32_t> number;
  Buffer<T> phi0, real, v;

  Trial(const cpu::Kernels<T>& k, const Plan& plan, const Game& game, int64_t tasks, int64_t steps)
      : kernels(k),
        program(plan, game, cpu::cpu_target()),
        tasks(tasks),
        steps(steps),
        parameters(plan.parameters),
        latent(plan.generator.rows.front().in_features()),
        features(plan.discriminator.rows.front().in_features()),
        numbers(tasks),
        count(tasks, 3),
        rate(tasks * steps * 2),
        active(tasks * steps * 2, 1),
        kind(tasks * steps),
        phi0(tasks * plan.parameters),
        real(tasks * steps * game.reals * features),
        v(2 * tasks * plan.parameters) {
    for (auto& n : numbers) n = draw(0, 1 << 30);
    for (auto& r : rate) r = 0.02 + 0.01 * double(draw(0, 5));
    for (auto& a : active) a = draw(0, 5) > 0;
    for (auto& i : kind) i = static_cast<uint8_t>(draw(0, static_cast<int64_t>(game.optimisers.size()) - 1));
    count_updates();
    phi0.randomise(T(0.2));
    real.randomise(T(0.7));
    v.randomise(T(1));
  }

  // What another trial was drawn.
  template <class Other>
  void same_schedule(const Other& other) {
    numbers = other.numbers, rate = other.rate, active = other.active, kind = other.kind, number = other.number;
  }

  // Of each player's update since its kind changed.
  void count_updates() {
    number.assign(tasks * steps * 2, 0);
    for (int64_t t = 0; t < tasks; ++t)
      for (int p = 0; p < 2; ++p) {
        int updates = 0, last = 0;
        for (int64_t k = 0; k < steps; ++k) {
          const int64_t step = t * steps + k;
          number[step * 2 + p] = (kind[step] == last ? updates : 0) + 1;
          if (active[step * 2 + p]) updates = number[step * 2 + p], last = kind[step];
        }
      }
  }

  cpu::InnerSchedule<T> schedule() const { return {rate.data(), active.data(), nullptr, kind.data(), number.data()}; }

  cpu::Batches<T> batches(int64_t first) const {
    cpu::Batches<T> b;
    const int64_t reals = program.game().reals;
    b.real = real.data() + first * reals * features;
    b.real_task = steps * reals * features;
    b.real_step = reals * features;
    b.seed = 99;
    b.tasks = numbers.data();
    b.count = count.data();
    return b;
  }

  struct Result {
    Buffer<T> phi, moment, v0, v_moment0;
    std::vector<double> d_rate;
    Buffer<T> sums;  // of v0 over tasks, weighted
  };

  Result run(const std::string& storage_text, int threads) {
    const StorageSchedule storage = schedule_storage(Storage::parse(storage_text), static_cast<int>(steps));
    const int64_t moments = program.moments();
    Buffer<T> phi(tasks * parameters), moment(tasks * moments * parameters), trace(tasks * steps * cpu::kTrace, T(0));
    Buffer<T> saved(tasks * cpu::saved_elements(program, storage, static_cast<int>(steps)));
    Buffer<T> workspace(cpu::adapt_workspace(program, threads));
    std::vector<uint8_t> valid(tasks);
    std::vector<int64_t> done(tasks);
    cpu::AdaptCall<T> a;
    a.tasks = tasks, a.steps = static_cast<int>(steps), a.threads = threads;
    a.batches = batches(0);
    a.schedule = schedule();
    a.phi0 = phi0.data(), a.phi0_task = parameters;
    a.phi = phi.data(), a.moment = moment.data();
    a.trace = trace.data(), a.valid = valid.data(), a.done = done.data(), a.saved = saved.data(),
    a.workspace = workspace.data();
    cpu::adapt(kernels, program, storage, a);
    for (uint8_t ok : valid) expect(ok == 1, "a task became invalid");
    expect(phi.finite() && moment.finite() && trace.finite(), "adapt left something not finite");

    Buffer<T> v0(2 * tasks * parameters), v_moment0(2 * tasks * moments * parameters), d_scale(2 * tasks * parameters);
    std::vector<double> d_rate(2 * tasks * steps * 2, 0.0);
    const std::vector<Halves> halves{{kBoth, kBoth}, {kBoth, kGenerator}};
    Buffer<T> pull_workspace(
        cpu::pull_workspace(program, storage, halves, true, true, static_cast<int>(steps), threads));
    cpu::PullCall<T> p;
    p.tasks = tasks, p.steps = static_cast<int>(steps), p.threads = threads;
    p.batches = a.batches, p.schedule = a.schedule, p.halves = halves, p.rates = true;
    p.valid = valid.data(), p.saved = saved.data(), p.v = v.data();
    p.v0 = v0.data(), p.v_moment0 = v_moment0.data();
    p.d_rate = d_rate.data(), p.d_scale = d_scale.data(), p.workspace = pull_workspace.data();
    cpu::pullback(kernels, program, storage, p);
    expect(v0.finite() && v_moment0.finite() && d_scale.finite(), "the pull-back left something not finite");

    // Without rates, summed over tasks: the directions are then v itself.
    Buffer<T> sums(2 * parameters), sum_moments(2 * moments * parameters);
    Buffer<T> sum_workspace(
        cpu::pull_workspace(program, storage, halves, false, false, static_cast<int>(steps), threads));
    std::vector<double> weight(tasks);
    for (int64_t t = 0; t < tasks; ++t) weight[t] = 1.0 - 0.5 * double(t);
    p.rates = false, p.d_rate = nullptr, p.d_scale = nullptr;
    p.weight = weight.data(), p.v0 = sums.data(), p.workspace = sum_workspace.data();
    p.v_moment0 = sum_moments.data();
    cpu::pullback(kernels, program, storage, p);
    const double eps = sizeof(T) == 4 ? 1e-4 : 1e-11;
    double off = 0, size = 0;
    for (int64_t c = 0; c < 2; ++c)
      for (int64_t i = 0; i < parameters; ++i) {
        double expected = 0;
        for (int64_t t = 0; t < tasks; ++t) expected += weight[t] * v0[(c * tasks + t) * parameters + i];
        off += std::pow(sums[c * parameters + i] - expected, 2), size += expected * expected;
      }
    expect(std::sqrt(off) <= eps * (1 + std::sqrt(size)),
           "sums over tasks are off by " + std::to_string(std::sqrt(off)));
    for (const auto* b : {&phi, &moment, &trace, &saved, &workspace, &v0, &v_moment0, &d_scale, &pull_workspace, &sums,
                          &sum_moments, &sum_workspace})
      expect(b->guarded(), "a sentinel was overwritten");
    return {std::move(phi), std::move(moment), std::move(v0), std::move(v_moment0), std::move(d_rate), std::move(sums)};
  }

  // Energy distance and both losses, on the first step's real batch.
  Buffer<T> meta_gradient(const std::string& storage_text, int threads, bool second_order) {
    const StorageSchedule storage = schedule_storage(Storage::parse(storage_text), static_cast<int>(steps));
    const Game& game = program.game();
    Buffer<T> query(tasks * 2 * game.reals * features), gradient(parameters), trace(tasks * steps * cpu::kTrace, T(0));
    for (int64_t i = 0; i < query.size(); ++i) query[i] = real[i % real.size()];
    std::vector<double> value(tasks);
    std::vector<uint8_t> valid(tasks);
    cpu::MetaCall<T> m;
    m.tasks = tasks, m.steps = static_cast<int>(steps), m.threads = threads;
    m.batches = batches(0), m.schedule = schedule();
    m.phi0 = phi0.data(), m.phi0_task = parameters;
    m.objective = {3, {1.0, 0.5}, 2 * game.reals, query.data(), nullptr, 1};
    m.second_order = second_order;
    m.gradient = gradient.data(), m.value = value.data(), m.trace = trace.data(), m.valid = valid.data();
    Buffer<T> workspace(cpu::meta_workspace(program, storage, m));
    m.workspace = workspace.data();
    cpu::meta_gradient(kernels, program, storage, m);
    for (uint8_t ok : valid) expect(ok == 1, "a task of the meta-gradient became invalid");
    for (const auto* b : {&gradient, &trace, &workspace, &query}) expect(b->guarded(), "a sentinel was overwritten");
    return gradient;
  }
};

// images: samples have extents
Game random_game(bool alternating, const std::vector<Optimiser>& optimisers, bool images) {
  Game game;
  static const Loss smooth[] = {Loss::nonsaturating, Loss::saturating, Loss::least_squares, Loss::relativistic};
  game.loss = smooth[draw(0, 3)];
  game.fakes = static_cast<int>(draw(1, 5));
  game.reals = static_cast<int>(draw(1, 5));
  game.alternating = alternating;
  game.optimisers = optimisers;
  game.eps = 1e-2;
  if (draw(0, 2) == 0) {
    game.penalty = {static_cast<PenaltyKind>(draw(1, 4)), 0.5, static_cast<int>(draw(1, 2))};
    if (game.penalty.between()) game.reals = game.fakes;
  }
  if (images && draw(0, 1)) game.augmentation = {draw(0, 1) > 0, draw(0, 1) > 0, draw(0, 1) > 0};
  if (draw(0, 2) == 0) game.instance_noise = 0.2;
  return game;
}

// Alone and with a schedule that chooses.
const std::vector<std::vector<Optimiser>> kOptimisers{
    {Optimiser::sgd},
    {Optimiser::momentum},
    {Optimiser::rmsprop},
    {Optimiser::adam},
    {Optimiser::extragradient},
    {Optimiser::sgd, Optimiser::normalised},
    {Optimiser::sgd, Optimiser::momentum, Optimiser::nesterov, Optimiser::rmsprop, Optimiser::adam,
     Optimiser::optimistic, Optimiser::extragradient}};

// What a case is called.
inline std::string describe(const std::string& engine, const Plan& plan, const Game& game) {
  std::string text = engine + (game.alternating ? " alternating" : " simultaneous") + " " +
                     name(game.optimisers.back()) + " of " + std::to_string(game.optimisers.size()) + " loss " +
                     std::to_string(static_cast<int>(game.loss)) + " fakes " + std::to_string(game.fakes) + " reals " +
                     std::to_string(game.reals) + " penalty " + std::to_string(static_cast<int>(game.penalty.kind)) +
                     " every " + std::to_string(game.penalty.every) + " augmented " +
                     std::to_string(game.augmentation.numbers(1)) + " noise " + std::to_string(game.instance_noise);
  for (const Network* net : {&plan.generator, &plan.discriminator})
    for (const PlanRow& row : net->rows)
      text += row.kind == LayerKind::linear ? " " + std::to_string(row.in_features()) + (row.bias < 0 ? "-" : "+") +
                                                  std::to_string(row.out_features())
                                            : " f" + std::to_string(static_cast<int>(row.activation));
  return text;
}

}  // namespace
