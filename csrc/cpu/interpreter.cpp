#include "interpreter.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "finite.h"
#include "form_rows.h"
#include "noise.h"
#include "relative.h"

namespace pymgan::cpu {
namespace {

template <class T>
class Interpreter {
 public:
  Interpreter(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame)
      : kernels(kernels),
        layout(program.layout()),
        game(program.game()),
        moments(program.moments()),
        procedure(procedure),
        frame(frame) {
    find_slots();
    look_ahead();
  }

  void run() {
    for (const Instr& i : procedure.code) {
      // An update carries an inactive player's parameters over.
      if (!(i.players & frame.active) && i.op != Op::update) continue;
      execute(i);
      if (!frame.valid) return;
    }
  }

 private:
  // Where every slot begins; null where the caller has none.
  void find_slots() {
    auto set = [&](Slot slot, const T* start) { slots_[static_cast<int>(slot)] = const_cast<T*>(start); };
    set(Slot::temp, frame.arena);
    set(Slot::residual, frame.residual);
    set(Slot::phi, frame.phi);  // read only by construction
    set(Slot::phi_next, frame.phi_next);
    set(Slot::moment, frame.moment);  // read only
    set(Slot::moment_next, frame.moment_next);
    set(Slot::rate_scale, frame.rate_scale);  // read only
    set(Slot::cotangent, frame.cotangent);
    set(Slot::v_moment, frame.v_moment);
    set(Slot::d_scale, frame.d_scale);
    set(Slot::gradient, frame.gradient);
  }
  void look_ahead() {
    const int64_t bytes = frame.ahead.elements * sizeof(T);
    ahead_.at = reinterpret_cast<const char*>(frame.ahead.start);
    ahead_.end = ahead_.at + bytes;
    ahead_.lines_per_flop = bytes / 64.0 / static_cast<double>(procedure.flops);
    fetch_ = bytes > 0 ? &ahead_ : nullptr;
  }
  T* base(const Value& v) const {
    T* start = slots_[static_cast<int>(v.slot)];
    return start ? start + v.offset : nullptr;
  }

  const Value& value(const Ref& r) const { return procedure.values[r.value]; }
  T* at(const Ref& r) const {
    T* start = r ? base(value(r)) : nullptr;
    return start ? start + r.offset : nullptr;
  }
  T* bias_at(const Ref& r) const {
    T* start = r && r.bias_offset >= 0 ? base(value(r)) : nullptr;
    return start ? start + r.bias_offset : nullptr;
  }
  int64_t pad(int64_t n) const { return layout.target.pad(n); }
  int64_t ld(const Ref& r) const { return pad(value(r).columns); }
  int64_t player_size(Player p) const { return layout.size[index(p)]; }

  // A player's part of a parameter-shaped value.
  T* part(const Ref& r, Player p) const {
    T* start = at(r);
    return start && value(r).player < 0 ? start + layout.start[index(p)] : start;
  }

  Epilogue<T> epilogue(const Instr& i) const {
    Epilogue<T> e;
    e.apply = i.apply;
    e.activation = i.activation;
    e.attributes[0] = static_cast<T>(i.attributes[0]);
    e.attributes[1] = static_cast<T>(i.attributes[1]);
    e.ld = pad(i.columns);
    e.ref = at(i.ref);
    e.q = at(i.q);
    e.g = at(i.g);
    e.out = at(i.out);
    e.pre = at(i.pre);
    return e;
  }

  // `weight`: one tensor of a parameter vector, or its transposed copy (tensor_back).
  Term<T> term(const Instr& i, const Ref& a, const Ref& weight) const {
    Term<T> t;
    if (!a) return t;
    const Tensor& w = layout.tensors[weight.tensor];
    const bool transposed = value(weight).shape == Shape::rows;
    t.a = at(a);
    t.a_row = ld(a);
    t.b = at(weight);
    t.depth = i.depth;
    if (!i.adjoint) {  // out [n] = W [n][k] a [k]
      if (w.by_rows)
        t.access = Access::dots, t.b_panel = kLanes, t.b_row = pad(w.k);
      else
        t.b_panel = int64_t{w.k} * kLanes, t.b_row = kLanes;
    } else if (transposed) {  // out [k] = W^T a [n], panels of W^T
      t.b_panel = int64_t{w.n} * kLanes, t.b_row = kLanes;
    } else if (w.by_rows) {  // rows of W are what a broadcast of a [n] multiplies
      t.b_panel = kLanes, t.b_row = pad(w.k);
    } else {  // few inputs: dot products along n
      t.access = Access::dots, t.b_panel = int64_t{w.k} * kLanes, t.b_row = kLanes;
    }
    return t;
  }

  WindowShape shape_of(const Window& w) const {
    return {w.in_sites,       w.out_sites,        w.taps,
            w.from.data(),    w.groups.data(),    static_cast<int>(w.groups.size()),
            w.numbers.data(), w.first_pair.data()};
  }

  void window_product(const Instr& i) {
    const Windows& windows = layout.windows[i.window];
    const Tensor& w = layout.tensors[(i.b0 ? i.b0 : i.b1).tensor];
    const Window& window = i.adjoint ? windows.back : windows.forward;
    WindowProduct<T> p;
    p.window = shape_of(window);
    p.samples = i.rows;
    p.columns = i.adjoint ? w.k : w.n;
    p.channels = i.depth;
    auto term = [&](const Ref& a, const Ref& b) {
      WindowTerm<T> t;
      if (!a) return t;
      t.a = at(a), t.a_sample = ld(a), t.a_ld = layout.site_ld(window.in_sites, p.channels), t.b = at(b);
      return t;
    };
    p.term0 = term(i.a0, i.b0);
    p.term1 = term(i.a1, i.b1);
    p.bias = bias_at(i.bias);
    p.bias_site = w.bias_sites > 1 ? w.bias_ld : 0;
    p.scale = at(i.scale);
    p.dot = at(i.dot_out ? i.dot : Ref{});
    p.dot_out = at(i.dot_out);
    p.scratch = at(i.scratch);
    p.out_ld = layout.site_ld(window.out_sites, p.columns);
    p.epilogue = epilogue(i);
    kernels.window_product(p);
  }

  void product(const Instr& i) {
    if (i.window >= 0) return window_product(i);
    Product<T> p;
    p.ahead = fetch_;
    p.rows = i.rows;
    p.columns = i.columns;
    p.term0 = term(i, i.a0, i.b0);
    p.term1 = term(i, i.a1, i.b1);
    p.bias = bias_at(i.bias);
    p.scale = at(i.scale);
    p.dot = at(i.dot_out ? i.dot : Ref{});
    p.dot_out = at(i.dot_out);
    p.epilogue = epilogue(i);
    kernels.product(p);
  }

  void outer(const Instr& i) {
    const Tensor& w = layout.tensors[i.out.tensor];
    OuterProduct<T> p;
    p.ahead = fetch_;
    p.accumulate = i.accumulate;
    p.out = at(i.out);
    p.rows = w.by_rows ? w.n : w.k;
    p.columns = w.by_rows ? w.k : w.n;
    p.out_panel = w.by_rows ? kLanes : int64_t{w.inputs()} * kLanes;
    p.out_row = w.by_rows ? pad(w.inputs()) : kLanes;
    T* scratch = at(i.scratch);
    if (i.theta && !w.by_rows) {
      p.theta = at(i.theta);
      p.scale = at(i.rate_scale);
      p.rate = rate(i.player);
      p.sums = &sums_[index(i.player)];
    } else if (i.theta) {
      p.out = scratch;
    }
    if (i.window >= 0)
      window_outer(i, w, p);
    else
      flat_outer(i, w, p);
    if (w.by_rows) {
      // Here B is h, whose padding is an activation of zero, not zero.
      for (int n = 0; n < w.n; ++n) std::fill(p.out + n * p.out_row + w.inputs(), p.out + (n + 1) * p.out_row, T{0});
      const int64_t size = layout.packed_weight_size(w);
      if (i.theta) descend(i.player, size, scratch, at(i.theta), at(i.rate_scale), at(i.out)), scratch += size;
    }
    T* bias = bias_at(i.out);
    if (!bias) return;
    bias_gradient(i, w, i.theta ? scratch : bias);
    if (i.theta) descend(i.player, layout.packed_bias_size(w), scratch, bias_at(i.theta), bias_at(i.rate_scale), bias);
  }

  void flat_outer(const Instr& i, const Tensor& w, OuterProduct<T>& p) {
    auto term = [&](Ref h, Ref delta, int rows) {
      OuterTerm<T> t;
      if (!h) return t;
      if (w.by_rows) std::swap(h, delta);
      t.a = at(h), t.a_ld = ld(h), t.b = at(delta), t.b_ld = ld(delta), t.depth = rows;
      return t;
    };
    p.term0 = term(i.a0, i.b0, i.rows0);
    p.term1 = term(i.a1, i.b1, i.rows1);
    kernels.outer(p);
  }

  void window_outer(const Instr& i, const Tensor& w, const OuterProduct<T>& update) {
    const Window &window = layout.windows[i.window].forward, &of_b = w.by_rows ? layout.windows[i.window].back : window;
    const WindowShape of_b_shape = shape_of(of_b);
    const int64_t in_ld = layout.site_ld(window.in_sites, w.k), out_ld = layout.site_ld(window.out_sites, w.n);
    WindowOuter<T> p;
    p.window = shape_of(window);
    p.update = update;
    p.out_tap = w.by_rows ? w.k : int64_t{w.k} * kLanes;
    if (narrow(update.rows) && of_b.uniform()) p.of_b = &of_b_shape;
    auto term = [&](const Ref& h, const Ref& delta, int samples) {
      WindowOuterTerm<T> t;
      if (!h) return t;
      t.a = at(h), t.a_sample = ld(h), t.a_ld = in_ld, t.a_site = window.pair_in.data();
      t.b = at(delta), t.b_sample = ld(delta), t.b_ld = out_ld, t.b_site = window.pair_out.data();
      t.samples = samples;
      if (w.by_rows) {
        std::swap(t.a, t.b), std::swap(t.a_sample, t.b_sample), std::swap(t.a_ld, t.b_ld);
        std::swap(t.a_site, t.b_site);
      }
      return t;
    };
    p.term0 = term(i.a0, i.b0, i.rows0);
    p.term1 = term(i.a1, i.b1, i.rows1);
    (w.by_rows && w.k % kLanes != 0 ? kernels.window_outer_few : kernels.window_outer)(p);
  }

  void bias_gradient(const Instr& i, const Tensor& w, T* out) {
    const Ref& delta = i.b0;
    if (i.window < 0 || w.bias_sites > 1) return kernels.column_sum(at(delta), i.rows0, ld(delta), out, i.accumulate);
    const int sites = layout.windows[i.window].forward.out_sites;
    const int64_t between = layout.site_ld(sites, w.n);
    if (sites == 1 || between % kLanes == 0)
      return kernels.column_sum(at(delta), i.rows0 * sites, sites == 1 ? ld(delta) : between, out, i.accumulate);
    T sums[kNarrow] = {};
    if (kLanes % between == 0) {  // lanes of whole vectors, whose padding is zero
      alignas(64) T lanes[kLanes];
      kernels.column_sum(at(delta), i.rows0 * ld(delta) / kLanes, kLanes, lanes, false);
      for (int n = 0; n < kLanes; ++n) sums[n % between] += lanes[n];
    } else {
      sum_sites(at(delta), {w.n, sites, static_cast<int>(between)}, i.rows0, ld(delta), sums);
    }
    for (int n = 0; n < kLanes; ++n) out[n] = (i.accumulate ? out[n] : T{0}) + (n < w.n ? sums[n] : T{0});
  }

  // What a fused update of plain SGD does, for a gradient in memory.
  void descend(Player player, int64_t n, const T* gradient, const T* theta, const T* scale, T* out) {
    Update<T> u;
    double norm2 = 0;
    u.n = n;
    u.rate = rate(player);
    u.gradient = gradient;
    u.theta = theta;
    u.scale = scale;
    u.theta_out = out;
    u.norm2 = &norm2;
    kernels.update(u);
    GradientSums<T>& sums = sums_[index(player)];
    sums.squares[0] += norm2;
    if (!finite(kernels, out, n)) sums.spoilt[0] = std::numeric_limits<T>::quiet_NaN();
  }

  T rate(Player p) const { return static_cast<T>(frame.rate[index(p)]); }
  bool active(Player p) const { return frame.active & (p == Player::generator ? kGenerator : kDiscriminator); }

  void head(const Instr& i) {
    T stats[6];
    Head<T> h;
    h.loss = game.loss;
    h.smoothing = static_cast<T>(game.smoothing);
    h.fakes = i.fakes;
    h.reals = i.reals;
    h.score = at(i.a0);
    h.score_ld = ld(i.a0);
    h.c_g = at(i.c_g);
    h.c_d = at(i.c_d);
    h.cc_g = at(i.cc_g);
    h.cc_d = at(i.cc_d);
    h.stats = i.stats ? stats : nullptr;
    if (game.relative()) {
      // The relative scores stand beside the scores, which the trace wants.
      T* relative = at(i.scratch);
      for (int r = 0; r < i.rows; ++r) relative[r] = h.score[r * h.score_ld];
      to_relative(relative, i.fakes, i.reals);
      T of_scores[6];
      Head<T> plain = h;
      plain.c_g = plain.c_d = plain.cc_g = plain.cc_d = nullptr;
      plain.stats = of_scores;
      kernels.head(plain);
      h.score = relative, h.score_ld = 1;
      kernels.head(h);
      std::copy(of_scores + 2, of_scores + 6, stats + 2);
      for (T* c : {h.c_g, h.c_d})
        if (c) from_relative(c, i.fakes, i.reals);
    } else {
      kernels.head(h);
    }
    if (!i.stats) return;
    bool finite = true;
    if (i.index & kGenerator) {
      finite &= std::isfinite(stats[0]);
      if (frame.trace) frame.trace[0] = stats[0];
    }
    if (i.index & kDiscriminator) {
      finite &= std::isfinite(stats[1]);
      if (frame.trace) {
        frame.trace[1] = stats[1];
        std::copy(stats + 2, stats + 6, frame.trace + 4);
      }
    }
    frame.valid &= finite;
  }

  void combine(const Instr& i) {
    T* out = at(i.out);
    const T *a0 = at(i.a0), *b0 = at(i.b0), *a1 = at(i.a1);
    if (a1)
      kernels.row_dot(at(i.b1), nullptr, i.rows, ld(i.b1), out, false);
    else
      std::fill_n(out, i.rows, T{0});
    const bool relative = i.fakes > 0;
    if (a1 && relative) to_relative(out, i.fakes, i.reals);
    for (int r = 0; a1 && r < i.rows; ++r) out[r] *= a1[r];
    if (a0 && relative) {
      T* change = at(i.scratch);
      std::fill(std::copy_n(b0, i.rows0, change), change + i.rows, T{0});
      to_relative(change, i.fakes, i.reals);
      for (int r = 0; r < i.rows; ++r) out[r] += a0[r] * change[r];
    } else {
      for (int r = 0; a0 && r < i.rows0; ++r) out[r] += a0[r] * b0[r];
    }
    if (relative) from_relative(out, i.fakes, i.reals);
  }

  void penalty(const Instr& i) {
    PenaltyHead<T> h;
    h.kind = game.penalty.kind;
    h.weight = static_cast<T>(game.penalty.weight * game.penalty.every);
    h.rows = i.rows;
    h.norm2 = at(i.a0);
    h.c = at(i.c_d);
    h.k = at(i.cc_d);
    kernels.penalty(h);
    if (!i.stats) return;
    if (frame.trace) frame.trace[1] += static_cast<T>(h.value);
    frame.valid &= std::isfinite(h.value);
  }

  // Uniform numbers: where a standard normal lies in its distribution.
  void mix(const Instr& i) const {
    T *u = at(i.c_g), *rest = at(i.c_d);
    NoiseKey key = frame.key;
    key.stream = kMixStream;
    kernels.noise(key, 1, i.rows, padded(i.rows), u);
    for (int r = 0; r < i.rows; ++r) {
      const double uniform = 0.5 * std::erfc(-static_cast<double>(u[r]) * std::sqrt(0.5));
      u[r] = static_cast<T>(uniform);
      if (rest) rest[r] = static_cast<T>(1 - uniform);
    }
  }

  void check(const Instr& i) {
    double norm2 = 0;
    bool finite = true;
    if (i.a0) {
      norm2 = squares(kernels, at(i.a0), player_size(i.player));
    } else {
      const GradientSums<T>& sums = sums_[index(i.player)];
      for (int l = 0; l < kLanes; ++l) norm2 += sums.squares[l], finite &= sums.spoilt[l] == 0;
    }
    if (frame.trace) frame.trace[2 + index(i.player)] = static_cast<T>(std::sqrt(norm2));
    frame.valid &= finite && std::isfinite(norm2);
  }

  void update(const Instr& i) {
    const T* theta = part(i.theta, i.player);
    T* out = part(i.out, i.player);
    const int64_t n = player_size(i.player);
    if (!active(i.player)) {
      if (out && out != theta) std::copy_n(theta, n, out);
      if (!i.a0) frame.valid &= finite(kernels, theta, n);
      carry_moments(i, 0);
      return;
    }
    if (!i.a0) return;
    Update<T> u;
    u.n = n;
    u.kind = frame.kind;
    u.rate = rate(i.player);
    u.knobs = knobs(i.player);
    u.gradient = at(i.a0);
    u.scale = part(i.rate_scale, i.player);
    u.theta = theta;
    u.theta_out = out;
    for (int m = 0; m < moments_of(frame.kind); ++m) {
      u.moment[m] = first(i.player) ? nullptr : vector(i.moment, m, i.player);
      u.moment_out[m] = vector(i.moment_next, m, i.player);
    }
    kernels.update(u);
    carry_moments(i, moments_of(frame.kind));
  }

  // Those from number `from` on stay as they are.
  void carry_moments(const Instr& i, int from) const {
    if (!i.moment || !i.moment_next) return;
    for (int m = from; m < moments; ++m) {
      const T* before = vector(i.moment, m, i.player);
      T* after = vector(i.moment_next, m, i.player);
      if (before != after) std::copy_n(before, player_size(i.player), after);
    }
  }

  // One of the player's moments, or of their cotangents.
  T* vector(const Ref& r, int number, Player p) const { return r ? part(r, p) + number * layout.total : nullptr; }
  // There are no moments from before.
  bool first(Player p) const { return frame.number[index(p)] == 1; }

  formulas::Knobs<T> knobs(Player p) const {
    auto rest = [](double beta, double power) { return static_cast<T>(1 - std::pow(beta, power)); };
    const auto [beta1, beta2] = game.betas;
    const double number = static_cast<double>(frame.number[index(p)]);
    formulas::Knobs<T> k{};
    k.momentum = static_cast<T>(game.momentum);
    k.beta1 = static_cast<T>(beta1), k.beta2 = static_cast<T>(beta2);
    k.rest1 = rest(beta1, 1), k.rest2 = rest(beta2, 1);
    k.bias1 = rest(beta1, number), k.bias2 = rest(beta2, number);
    k.eps = static_cast<T>(game.eps);
    k.past = first(p) ? 0 : 1;
    return k;
  }

  void adjoint(const Instr& i) const {
    const int p = index(i.player);
    T* w = at(i.out);
    if (!active(i.player)) {
      std::fill_n(w, player_size(i.player), T{0});
      return;
    }
    UpdateAdjoint<T> u;
    u.n = player_size(i.player);
    u.kind = frame.kind;
    u.rate = rate(i.player);
    u.knobs = knobs(i.player);
    u.first = first(i.player);
    u.gradient = at(i.a0);
    u.scale = part(i.rate_scale, i.player);
    u.v = part(i.v, i.player);
    for (int m = 0; m < moments_of(frame.kind); ++m) {
      u.moment[m] = u.first ? nullptr : vector(i.moment, m, i.player);
      u.v_moment[m] = vector(i.v_moment, m, i.player);
    }
    u.w = w;
    if (i.d_scale) {
      u.d_rate = frame.d_rate ? frame.d_rate + i.index * frame.d_rate_stride + p : nullptr;
      u.d_scale = part(i.d_scale, i.player);
    }
    kernels.update_adjoint(u);
  }

  void copy_in(const Instr& i, const Form& form, const T* source, const int32_t* picked) const {
    rows_in(form, source, picked, i.rows, ld(i.out), at(i.out));
  }

  void noise(const Instr& i) const {
    const Form& form = layout.z;
    if (frame.noise) return copy_in(i, form, frame.noise, nullptr);
    if (form.flat()) return kernels.noise(frame.key, i.rows, form.features(), ld(i.out), at(i.out));
    dense_noise(kernels, frame.key, i.rows, form.features(), at(i.scratch),
                at(i.scratch) + i.rows * padded(form.features()));
    copy_in(i, form, at(i.scratch) + i.rows * padded(form.features()), nullptr);
  }

  void execute(const Instr& i) {
    switch (i.op) {
      case Op::noise:
        noise(i);
        break;
      case Op::load:
        copy_in(i, layout.x, frame.real, frame.rows);
        break;
      case Op::input:
        copy_in(i, i.index == 0 ? layout.z : layout.x, frame.input[i.index], nullptr);
        break;
      case Op::output:
        rows_out(layout.x, at(i.a0), i.rows, ld(i.a0), frame.output);
        break;
      case Op::fill: {
        const bool vector = value(i.out).shape == Shape::vector;
        std::fill_n(at(i.out), vector ? i.rows : i.rows * ld(i.out), T{0});
        break;
      }
      case Op::spread:
        spread(at(i.a0), i.rows, ld(i.out), at(i.out));
        break;
      case Op::rate: {
        T* out = at(i.out);
        const T* source = at(i.a0);
        const bool moves = active(i.player);
        for (int r = 0; r < i.rows; ++r) out[r] = moves ? -rate(i.player) * (source ? source[r] : T{1}) : T{0};
        break;
      }
      case Op::product:
        product(i);
        break;
      case Op::outer:
        outer(i);
        break;
      case Op::elementwise: {
        Elementwise<T> e;
        e.rows = i.rows;
        e.src = at(i.a0);
        e.times = at(i.b0);
        e.plus = at(i.a1);
        e.order = i.order;
        e.scale = at(i.scale);
        e.epilogue = epilogue(i);
        kernels.elementwise(e);
        break;
      }
      case Op::row_dot:
        kernels.row_dot(at(i.a0), at(i.b0), i.rows, ld(i.a0), at(i.out), false);
        break;
      case Op::combine:
        combine(i);
        break;
      case Op::mix:
        mix(i);
        break;
      case Op::penalty:
        penalty(i);
        break;
      case Op::head:
        head(i);
        break;
      case Op::transpose: {
        const Tensor& w = layout.tensors[i.a0.tensor];
        if (w.window < 0)
          kernels.transpose(at(i.a0), w.n, w.k, at(i.out));
        else
          kernels.window_transpose(at(i.a0), w.n, w.taps, w.k, at(i.out));
        break;
      }
      case Op::check:
        check(i);
        break;
      case Op::update:
        update(i);
        break;
      case Op::adjoint:
        adjoint(i);
        break;
    }
  }

  const Kernels<T>& kernels;
  const Layout& layout;
  const Game& game;
  const int moments;
  const Procedure& procedure;
  Frame<T>& frame;

 private:
  T* slots_[kSlots] = {};
  Ahead ahead_;
  Ahead* fetch_ = nullptr;
  GradientSums<T> sums_[2];
};

}  // namespace

template <class T>
void execute(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame) {
  Interpreter<T>(kernels, program, procedure, frame).run();
}

template void execute(const Kernels<float>&, const Program&, const Procedure&, Frame<float>&);
template void execute(const Kernels<double>&, const Program&, const Procedure&, Frame<double>&);

}  // namespace pymgan::cpu
