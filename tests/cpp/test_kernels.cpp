// Every kernel of every instruction set that this machine executes, float and double, against plain loops in double.
// Outputs start as NaN between sentinels. Bounds follow from the sums' own sizes: a few eps of sum |a b|.
#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <random>

#include "buffer.h"
#include "check.h"
#include "cpu/kernels.h"
#include "every_isa.h"
#include "formula_values.h"

using namespace pymgan;
using namespace pymgan::cpu;

namespace {

std::mt19937 generator(7);

int below(int n) { return static_cast<int>(generator() % n); }
double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(generator); }

// Small integers give exact results, whatever the order; the others stay away from kinks at 0.
double draw(bool integers) {
  if (integers) return below(7) - 3;
  const double x = uniform(-1, 1);
  return x < 0 ? x - 0.05 : x + 0.05;
}

// [rows][ld] with zero columns from `columns` on.
template <class T>
std::unique_ptr<Buffer<T>> matrix(int rows, int columns, bool integers) {
  const int64_t ld = padded(columns);
  auto b = std::make_unique<Buffer<T>>(rows * ld);
  b->fill([&](int64_t i) { return i % ld < columns ? draw(integers) : 0.0; });
  return b;
}

template <class T>
constexpr double kEps = std::numeric_limits<T>::epsilon();

// What an epilogue should give, and how far off rounding may take it when acc itself may be `slack` off.
struct Expected {
  double out, bound;
};
Expected expected(const Case& c, Apply apply, double acc, double slack, double ref_a, double q, double g, double eps) {
  switch (apply) {
    case Apply::store:
      return {acc, slack};
    case Apply::act: {
      const double h = f_of(c, 0, acc);
      return {h, 2 * slack + 6 * eps * (std::abs(h) + 0.1)};  // |f'| <= 2 for all
    }
    case Apply::chain:
    case Apply::chain2:
      break;
  }
  const double first = f_of(c, 1, ref_a), second = apply == Apply::chain2 ? f_of(c, 2, ref_a) * q * g : 0;
  return {first * acc + second,
          2 * slack + 16 * eps * ((std::abs(first) + 1) * std::abs(acc) + std::abs(second) + std::abs(q * g))};
}

template <class T>
class Tests {
 public:
  Tests(const Kernels<T>& kernels)
      : k_(kernels), name_(std::string(kernels.name) + (sizeof(T) == 4 ? " f32" : " f64")) {}

  void run() {
    for (int rows : {1, 2, 3, 8, 17, 20, 40, 63})
      for (int columns : {1, 2, 4, 5, 16, 17, 48, 63})
        for (int depth : {1, 2, 3, 16, 20, 65}) product(rows, columns, depth, below(2));
    for (int i = 0; i < 60; ++i) product(1 + below(70), 1 + below(70), 1 + below(70), below(2));
    for (int rows : {1, 2, 3, 4, 16, 17, 20, 63, 64})
      for (int columns : {1, 2, 17, 64})
        for (int depth : {1, 2, 7, 20}) outer(rows, columns, depth, below(2));
    for (const Case& c : kCases)
      for (Apply apply : {Apply::store, Apply::act, Apply::chain, Apply::chain2}) elementwise(c, apply);
    for (Loss loss : kLosses)
      for (auto [fakes, reals] : {std::pair{1, 1}, {8, 8}, {3, 17}, {20, 20}, {33, 5}}) head(loss, fakes, reals);
    for (int64_t n : {1, 3, 16, 48, 131, 1008}) updates(n);
    reductions();
    layouts();
    extremes();
  }

 private:
  std::string what(const std::string& kernel) const { return name_ + " " + kernel; }

  // Weights [outputs][inputs] in one of the forms that a term may read.
  enum class Form { panels, dots_rows, dots_panels };

  struct Weight {
    std::unique_ptr<Buffer<T>> packed;
    Doubles b;  // [depth][columns]
    Term<T> term;
  };
  Weight weight(int depth, int columns, Form form, bool integers) {
    Weight w;
    w.b.resize(depth * columns);
    for (double& x : w.b) x = static_cast<T>(draw(integers));
    w.term.depth = depth;
    if (form == Form::panels) {
      w.term.b_panel = int64_t{depth} * kLanes;
      w.term.b_row = kLanes;
      w.packed = std::make_unique<Buffer<T>>(padded(columns) * depth);
    } else if (form == Form::dots_rows) {
      w.term.access = Access::dots;
      w.term.b_panel = kLanes;
      w.term.b_row = padded(depth);
      w.packed = std::make_unique<Buffer<T>>(padded(depth) * columns);
    } else {
      w.term.access = Access::dots;
      w.term.b_panel = int64_t{columns} * kLanes;
      w.term.b_row = kLanes;
      w.packed = std::make_unique<Buffer<T>>(padded(depth) * columns);
    }
    w.packed->fill([](int64_t) { return 0.0; });
    for (int p = 0; p < depth; ++p)
      for (int n = 0; n < columns; ++n) {
        int64_t at = (n / kLanes) * w.term.b_panel + p * w.term.b_row + n % kLanes;
        if (form != Form::panels) at = (p / kLanes) * w.term.b_panel + n * w.term.b_row + p % kLanes;
        (*w.packed)[at] = static_cast<T>(w.b[p * columns + n]);
      }
    w.term.b = w.packed->get();
    return w;
  }

  void product(int rows, int columns, int depth, bool integers) {
    const int64_t ld = padded(columns);
    const int depth1 = 1 + below(40);
    const bool first = below(5) > 0, second = !first || below(2);
    auto form = [&] {
      if (columns > kNarrow) return Form::panels;
      const Form forms[] = {Form::panels, Form::dots_rows, Form::dots_panels};
      return forms[below(3)];
    };
    auto a0 = matrix<T>(rows, depth, integers), a1 = matrix<T>(rows, depth1, integers);
    Weight b0 = weight(depth, columns, form(), integers), b1 = weight(depth1, columns, form(), integers);
    b0.term.a = a0->get();
    b0.term.a_row = padded(depth);
    b1.term.a = a1->get();
    b1.term.a_row = padded(depth1);
    auto bias = matrix<T>(1, columns, integers), scale = matrix<T>(1, rows, integers),
         dot = matrix<T>(rows, columns, integers);
    auto ref_a = matrix<T>(rows, columns, integers), q = matrix<T>(rows, columns, integers),
         g = matrix<T>(rows, columns, integers);
    const Case& c = kCases[below(std::size(kCases))];
    Buffer<T> ref(rows * ld), out(rows * ld), pre(rows * ld), dot_out(rows * kLanes);
    ref.fill([&](int64_t i) {
      return from_output(c.activation, c.attributes) ? f_of(c, 0, (*ref_a)[i]) : double((*ref_a)[i]);
    });
    dot_out.fill([](int64_t i) { return i % 5; });

    Product<T> p;
    p.rows = rows;
    p.columns = columns;
    if (first) p.term0 = b0.term;
    if (second) p.term1 = b1.term;
    if (first && below(2)) p.bias = bias->get();
    if (first && below(2)) p.scale = scale->get();
    if (first && below(2)) p.dot = dot->get(), p.dot_out = dot_out.get();
    Epilogue<T>& e = p.epilogue;
    e.apply = static_cast<Apply>(below(4));
    e.activation = c.activation;
    e.attributes[0] = static_cast<T>(c.attributes[0]);
    e.attributes[1] = static_cast<T>(c.attributes[1]);
    e.ld = ld;
    if (e.apply >= Apply::chain) e.ref = ref.get();
    if (e.apply == Apply::chain2 && below(3)) e.q = q->get(), e.g = g->get();
    e.out = out.get();
    if (below(2)) e.pre = pre.get();
    k_.product(p);

    const std::string name = what("product") + " " + std::to_string(rows) + "x" + std::to_string(columns) + "x" +
                             std::to_string(depth) + " apply " + std::to_string(static_cast<int>(e.apply)) + " " +
                             c.name;
    for (int m = 0; m < rows; ++m) {
      double dots = 0, dots_size = 0, found = 0;
      for (int l = 0; l < kLanes; ++l) dots += (m * kLanes + l) % 5, found += dot_out[m * kLanes + l];
      for (int64_t n = 0; n < ld; ++n) {
        double acc = 0, size = 0;
        auto add = [&](Buffer<T>& a, const Weight& w, double by) {
          for (int i = 0; n < columns && i < w.term.depth; ++i) {
            const double x = by * a[m * w.term.a_row + i] * w.b[i * columns + n];
            acc += x;
            size += std::abs(x);
          }
        };
        if (first) {
          add(*a0, b0, 1);
          if (p.bias) acc += (*bias)[n], size += std::abs((*bias)[n]);
          if (p.dot) dots += (*dot)[m * ld + n] * acc, dots_size += std::abs((*dot)[m * ld + n]) * size;
          if (p.scale) acc *= (*scale)[m], size *= std::abs((*scale)[m]);
        }
        if (second) add(*a1, b1, 1);
        const int64_t at = m * ld + n;
        const double slack = integers ? 0 : (std::sqrt(depth + depth1) + 4) * kEps<T> * size;
        const bool bent = e.apply == Apply::chain2 && e.q;
        const Expected x = expected(c, e.apply, acc, slack, (*ref_a)[at], bent ? double((*q)[at]) : 0,
                                    bent ? double((*g)[at]) : 0, kEps<T>);
        check::near(out[at], x.out, x.bound, name);
        if (e.pre) check::near(pre[at], acc, slack, name + " pre");
      }
      const double allowed = integers ? 0 : (std::sqrt(depth + columns) + 4) * kEps<T> * (dots_size + 80);
      if (p.dot) check::near(found, dots, allowed, name + " dot");
    }
  }

  void outer(int rows, int columns, int depth, bool integers) {
    const int depth1 = 1 + below(30);
    const bool second = below(2), accumulate = below(2), by_rows = rows <= kNarrow && below(2);
    auto a0 = matrix<T>(depth, rows, integers), a1 = matrix<T>(depth1, rows, integers);
    auto b0 = matrix<T>(depth, columns, integers), b1 = matrix<T>(depth1, columns, integers);
    Buffer<T> out(rows * padded(columns));
    if (accumulate) out.fill([](int64_t i) { return i % 7; });
    OuterProduct<T> p;
    p.rows = rows;
    p.columns = columns;
    p.term0 = {a0->get(), padded(rows), b0->get(), padded(columns), depth};
    if (second) p.term1 = {a1->get(), padded(rows), b1->get(), padded(columns), depth1};
    p.accumulate = accumulate;
    p.out = out.get();
    p.out_panel = by_rows ? kLanes : int64_t{rows} * kLanes;
    p.out_row = by_rows ? padded(columns) : kLanes;
    const bool descend = !accumulate && below(2);
    Buffer<T> theta(rows * padded(columns)), gradient(rows * padded(columns));
    GradientSums<T> sums;
    if (descend) {
      p.out = gradient.get();
      k_.outer(p);
      p.out = out.get();
      theta.fill([&](int64_t) { return draw(integers); });
      p.theta = theta.get(), p.rate = T(0.25), p.sums = &sums;
    }
    k_.outer(p);
    if (descend) {
      double squares = 0, expected = 0;
      for (double s : sums.squares) squares += s;
      for (int64_t i = 0; i < rows * padded(columns); ++i) expected += double(gradient[i]) * gradient[i];
      check::near(squares, expected, integers ? 0 : 1e-6 * expected, what("outer") + " squares");
      for (T s : sums.spoilt) check::near(s, 0, 0, what("outer") + " spoilt");
      theta[rows * padded(columns) - 1] = std::numeric_limits<T>::infinity();
      k_.outer(p);
      check::that(std::isnan(sums.spoilt[kLanes - 1]), what("outer") + " does not see an infinite parameter");
      theta[rows * padded(columns) - 1] = 0;
      k_.outer(p);
    }
    for (int m = 0; m < rows; ++m)
      for (int64_t n = 0; n < padded(columns); ++n) {
        const int64_t at = (n / kLanes) * p.out_panel + m * p.out_row + n % kLanes;
        double acc = accumulate ? at % 7 : 0, size = acc;
        auto add = [&](const OuterTerm<T>& t) {
          for (int i = 0; i < t.depth; ++i) {
            const double x = double(t.a[i * t.a_ld + m]) * t.b[i * t.b_ld + n];
            acc += x;
            size += std::abs(x);
          }
        };
        add(p.term0);
        if (second) add(p.term1);
        if (descend) acc = double(theta[at]) - 0.25 * acc, size += std::abs(theta[at]);
        check::near(
            out[at], acc, integers ? 0 : (std::sqrt(depth + depth1) + 2) * kEps<T> * size,
            what("outer") + " " + std::to_string(rows) + "x" + std::to_string(columns) + "x" + std::to_string(depth));
      }
  }

  void elementwise(const Case& c, Apply apply) {
    for (bool in_place : {false, true}) {
      const int rows = 5, columns = 19;
      const int64_t ld = padded(columns), size = rows * ld;
      Buffer<T> src(size), ref_a(size), ref(size), q(size), g(size), out(size), pre(size);
      const double reach = sizeof(T) == 4 ? 12 : 30;
      auto away = [&](double x) {
        return std::abs(2 * x - 1) < 0.01 || std::abs(x) < 0.01 ? x + 0.03 : x;
      };  // from kinks
      src.fill([&](int64_t) { return away(uniform(-reach, reach)); });
      ref_a.fill([&](int64_t) { return away(uniform(-3, 3)); });
      q.fill([&](int64_t) { return draw(false); });
      g.fill([&](int64_t) { return draw(false); });
      ref.fill(
          [&](int64_t i) { return from_output(c.activation, c.attributes) ? f_of(c, 0, ref_a[i]) : double(ref_a[i]); });
      auto scale = matrix<T>(1, rows, false);
      const Doubles source = src.copy();
      Elementwise<T> e;
      e.rows = rows;
      e.src = src.get();
      e.scale = in_place ? nullptr : scale->get();
      e.epilogue = {apply,
                    c.activation,
                    {static_cast<T>(c.attributes[0]), static_cast<T>(c.attributes[1])},
                    ld,
                    nullptr,
                    nullptr,
                    nullptr,
                    in_place ? src.get() : out.get(),
                    in_place ? nullptr : pre.get()};
      if (apply >= Apply::chain) e.epilogue.ref = ref.get();
      if (apply == Apply::chain2) e.epilogue.q = q.get(), e.epilogue.g = g.get();
      k_.elementwise(e);
      for (int64_t i = 0; i < size; ++i) {
        const double acc = e.scale ? double(static_cast<T>(static_cast<T>(source[i]) * (*scale)[i / ld])) : source[i];
        const Expected x = expected(c, apply, acc, 0, ref_a[i], apply == Apply::chain2 ? double(q[i]) : 0,
                                    apply == Apply::chain2 ? double(g[i]) : 0, kEps<T>);
        check::near(e.epilogue.out[i], x.out, x.bound,
                    what("elementwise") + " " + c.name + " apply " + std::to_string(int(apply)));
        if (e.epilogue.pre) check::near(pre[i], acc, 0, what("elementwise pre"));
      }
    }
  }

  void head(Loss loss, int fakes, int reals) {
    const int batch = fakes + reals;
    const T e = below(2) ? T(0.1) : T(0);
    Buffer<T> score(batch * kLanes), c_g(batch), c_d(batch), cc_g(batch), cc_d(batch), stats(6);
    for (int i = 0; i < batch; ++i) score[i * kLanes] = static_cast<T>(uniform(-4, 4));  // the other columns stay NaN
    Head<T> h;
    h.loss = loss;
    h.smoothing = e;
    h.fakes = fakes;
    h.reals = reals;
    h.score = score.get();
    h.c_g = c_g.get();
    h.c_d = c_d.get();
    h.cc_g = cc_g.get();
    h.cc_d = cc_d.get();
    h.stats = stats.get();
    k_.head(h);
    double wanted[6] = {};
    const std::string name = what("head") + " " + std::to_string(static_cast<int>(loss));
    for (int i = 0; i < batch; ++i) {
      const double s = score[i * kLanes], n = i < fakes ? fakes : reals, eps = 8 * kEps<T> * 5 / n;
      const char* d = i < fakes ? "d_fake" : "d_real";
      const bool fake = i < fakes;
      check::near(c_d[i], loss_of(loss, d, 1, s, e) / n, eps, name + " c_d");
      check::near(cc_d[i], loss_of(loss, d, 2, s, e) / n, eps, name + " cc_d");
      check::near(c_g[i], fake ? loss_of(loss, "g", 1, s, e) / n : 0, eps, name + " c_g");
      check::near(cc_g[i], fake ? loss_of(loss, "g", 2, s, e) / n : 0, eps, name + " cc_g");
      if (fake) wanted[0] += loss_of(loss, "g", 0, s, e) / n;
      wanted[1] += loss_of(loss, d, 0, s, e) / n;
      wanted[fake ? 2 : 4] += s / n;
    }
    for (int i = 0; i < batch; ++i) {
      const bool fake = i < fakes;
      const double d = score[i * kLanes] - wanted[fake ? 2 : 4];
      wanted[fake ? 3 : 5] += d * d / (fake ? fakes : reals);
    }
    wanted[3] = std::sqrt(wanted[3]);
    wanted[5] = std::sqrt(wanted[5]);
    for (int i = 0; i < 6; ++i) check::near(stats[i], wanted[i], 8 * kEps<T> * 10, name + " stats");
    Head<T> nothing = h;
    nothing.c_g = nothing.c_d = nothing.cc_g = nothing.cc_d = nothing.stats = nullptr;
    k_.head(nothing);
  }

  void updates(int64_t n) {
    for (Optimiser kind : kOptimisers)
      for (int mask = 0; mask < 16; mask += n > 200 ? 5 : 1) updates(n, kind, mask & 1, mask & 2, mask & 4, mask & 8);
  }

  void updates(int64_t n, Optimiser kind, bool first, bool scaled, bool in_place, bool rates) {
    const int moments = moments_of(kind);
    Buffer<T> gradient(n), scale(n), theta(n), out(n), v(n), w(n), d_scale(n);
    Buffer<T> m0(n), m1(n), next0(n), next1(n), v0(n), v1(n);
    for (Buffer<T>* b : {&gradient, &scale, &theta, &v, &m0, &m1, &v0, &v1})
      b->fill([](int64_t) { return draw(false); });
    for (Buffer<T>* b : {&m0, &m1})  // they may be squares
      for (int64_t i = 0; i < n; ++i) (*b)[i] = std::abs((*b)[i]);
    d_scale.fill([](int64_t i) { return i % 3; });
    const Doubles f = gradient.copy(), t = theta.copy(), vs[] = {v0.copy(), v1.copy()};
    const double rate = static_cast<T>(0.13);
    formulas::Knobs<T> knobs{};
    knobs.momentum = knobs.beta1 = T(0.875), knobs.rest1 = T(0.125), knobs.beta2 = T(0.9375), knobs.rest2 = T(0.0625);
    knobs.bias1 = T(0.5), knobs.bias2 = T(0.25), knobs.eps = T(0.125), knobs.past = first ? T(0) : T(1);
    double wanted_norm = 0, along = 0;
    for (int64_t i = 0; i < n; ++i) wanted_norm += f[i] * f[i];
    const double norm = std::sqrt(wanted_norm + knobs.eps);
    for (int64_t i = 0; i < n; ++i) along -= rate * (scaled ? scale[i] : 1) * v[i] * f[i] / norm;
    auto exact = [&](const char* part, int64_t i) {
      return optimiser_of(kind, part,
                          {{"F", f[i]},
                           {"m0", first ? 0 : m0[i]},
                           {"m1", first ? 0 : m1[i]},
                           {"momentum", 0.875},
                           {"beta1", 0.875},
                           {"rest1", 0.125},
                           {"beta2", 0.9375},
                           {"rest2", 0.0625},
                           {"bias1", 0.5},
                           {"bias2", 0.25},
                           {"eps", 0.125},
                           {"past", first ? 0 : 1},
                           {"norm", norm},
                           {"along", along},
                           {"a", -rate * (scaled ? scale[i] : 1) * v[i]},
                           {"v0", vs[0][i]},
                           {"v1", vs[1][i]}});
    };
    auto close = [&](double got, double wanted, const char* part) {
      check::near(got, wanted, 40 * kEps<T> * (1 + std::abs(wanted)), what(std::string(name(kind)) + " " + part));
    };

    double norm2 = std::nan("");
    Update<T> u;
    u.n = n;
    u.kind = kind;
    u.rate = static_cast<T>(rate);
    u.knobs = knobs;
    u.gradient = gradient.get();
    u.scale = scaled ? scale.get() : nullptr;
    u.theta = theta.get();
    if (!first) u.moment[0] = m0.get(), u.moment[1] = m1.get();
    u.moment_out[0] = next0.get(), u.moment_out[1] = next1.get();
    u.theta_out = in_place ? theta.get() : out.get();
    u.norm2 = &norm2;
    k_.update(u);
    for (int64_t i = 0; i < n; ++i) {
      close(u.theta_out[i], t[i] - rate * (scaled ? scale[i] : 1) * exact("direction", i), "theta");
      if (moments > 0) close(next0[i], exact("m0", i), "m0");
      if (moments > 1) close(next1[i], exact("m1", i), "m1");
    }
    check::near(norm2, wanted_norm, 1e-13 * n, what("norm2"));
    Update<T> only_norm;
    only_norm.n = n;
    only_norm.gradient = gradient.get();
    only_norm.norm2 = &norm2;
    norm2 = 0;
    k_.update(only_norm);
    check::near(norm2, wanted_norm, 1e-13 * n, what("norm2 alone"));

    double d_rate = 0.5, wanted_rate = 0.5;
    UpdateAdjoint<T> a;
    a.n = n;
    a.kind = kind;
    a.rate = u.rate;
    a.knobs = knobs;
    a.first = first;
    a.scale = u.scale;
    if (rates || adjoint_reads_gradient(kind)) {
      a.gradient = gradient.get();
      if (!first) a.moment[0] = m0.get(), a.moment[1] = m1.get();
    }
    a.v = v.get();
    a.v_moment[0] = v0.get(), a.v_moment[1] = v1.get();
    a.w = w.get();
    if (rates) a.d_rate = &d_rate, a.d_scale = d_scale.get();
    k_.update_adjoint(a);
    for (int64_t i = 0; i < n; ++i) {
      const double s = scaled ? scale[i] : 1, direction = exact("direction", i);
      wanted_rate -= s * direction * v[i];
      close(w[i], exact("w", i), "w");
      for (int m = 0; m < 2; ++m) {
        const double wanted = m >= moments ? vs[m][i] : first ? 0 : exact(m == 0 ? "v0" : "v1", i);
        close((m == 0 ? v0 : v1)[i], wanted, "cotangent of a moment");
      }
      if (rates) close(d_scale[i], i % 3 - rate * direction * v[i], "d_scale");
    }
    if (rates) check::near(d_rate, wanted_rate, 20 * kEps<T> * n, what("adjoint d_rate"));
  }

  void reductions() {
    for (int rows : {1, 2, 5, 16, 40})
      for (int columns : {1, 16, 17, 64, 100, 256})
        for (bool accumulate : {false, true}) {
          const int64_t ld = padded(columns);
          auto x = matrix<T>(rows, columns, false), y = matrix<T>(rows, columns, false);
          Buffer<T> dots(rows), sums(ld);
          if (accumulate) dots.fill([](int64_t i) { return i; }), sums.fill([](int64_t i) { return i; });
          k_.row_dot(x->get(), y->get(), rows, ld, dots.get(), accumulate);
          k_.column_sum(x->get(), rows, ld, sums.get(), accumulate);
          for (int m = 0; m < rows; ++m) {
            double wanted = accumulate ? m : 0;
            for (int64_t n = 0; n < ld; ++n) wanted += double((*x)[m * ld + n]) * (*y)[m * ld + n];
            check::near(dots[m], wanted, 4 * kEps<T> * (columns + m), what("row_dot"));
          }
          for (int64_t n = 0; n < ld; ++n) {
            double wanted = accumulate ? n : 0;
            for (int m = 0; m < rows; ++m) wanted += (*x)[m * ld + n];
            check::near(sums[n], wanted, 4 * kEps<T> * (rows + n), what("column_sum"));
          }
        }
  }

  void layouts() {
    for (int n : {1, 2, 3, 4, 5, 16, 17, 32, 63, 64})
      for (int k : {1, 2, 3, 15, 16, 20, 33, 64}) {
        const std::string size = " " + std::to_string(n) + "x" + std::to_string(k);
        Buffer<T> w(n * k), back(n * k), turned(padded(k) * n);
        w.fill([](int64_t i) { return i + 1; });
        Buffer<T> packed(narrow(n) ? n * padded(k) : padded(n) * k);
        k_.pack(w.get(), n, k, packed.get());
        k_.unpack(packed.get(), n, k, back.get());
        check::that(std::equal(w.get(), w.get() + n * k, back.get()), what("unpack") + size);
        double total = 0, wanted = n * k * (n * k + 1.0) / 2;
        for (int64_t i = 0; i < packed.size(); ++i) total += packed[i];
        check::that(total == wanted, what("pack: padding") + size);
        bool placed = true;
        for (int i = 0; i < n; ++i)
          for (int j = 0; j < k; ++j) {
            const int64_t at = narrow(n) ? i * padded(k) + j : (int64_t{i / kLanes} * k + j) * kLanes + i % kLanes;
            placed &= packed[at] == w[i * k + j];
          }
        check::that(placed, what("pack") + size);
        if (narrow(n)) continue;
        k_.transpose(packed.get(), n, k, turned.get());
        for (int i = 0; i < n; ++i)
          for (int j = 0; j < padded(k); ++j) {
            const T x = turned[(int64_t{j / kLanes} * n + i) * kLanes + j % kLanes];
            placed &= x == (j < k ? w[i * k + j] : T(0));
          }
        check::that(placed, what("transpose") + size);
      }
  }

  // Elementary functions over their whole range through the activations: relative error, infinities, NaN.
  void extremes() {
    const int columns = 4096;
    Buffer<T> src(columns), out(columns);
    auto apply = [&](Activation activation, T p0, T p1) {
      Elementwise<T> e;
      e.rows = 1;
      e.src = src.get();
      e.epilogue.apply = Apply::act;
      e.epilogue.activation = activation;
      e.epilogue.attributes[0] = p0;
      e.epilogue.attributes[1] = p1;
      e.epilogue.ld = columns;
      e.epilogue.out = out.get();
      k_.elementwise(e);
    };
    auto ulps = [&](const char* name, double allowed, const std::function<double(double)>& f) {
      double worst = 0, at = 0;
      for (int i = 0; i < columns; ++i) {
        const double wanted = f(src[i]), off = std::abs(out[i] - wanted);
        const double unit = std::max(kEps<T> * std::abs(wanted) / 2, double(std::numeric_limits<T>::denorm_min()));
        if (off / unit > worst) worst = off / unit, at = src[i];
      }
      check::near(worst, 0, allowed, what(name) + " half ulps at " + std::to_string(at));
    };
    const double reach[] = {1e-30, 1e-4, 0.3, 1, 10, 85};
    for (double r : reach) {
      src.fill([&](int64_t) { return uniform(-r, r); });
      apply(Activation::tanh, 0, 0);
      ulps("tanh", 3, [](double x) { return std::tanh(x); });
      apply(Activation::sigmoid, 0, 0);
      ulps("sigmoid", 6, [](double x) { return 1 / (1 + std::exp(-x)); });
      apply(Activation::elu, 1, 0);
      ulps("elu", 5, [](double x) { return x > 0 ? x : std::expm1(x); });
      apply(Activation::softplus, 1, 1000);
      ulps("softplus", 6, [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); });
    }
    src.fill([&](int64_t) { return uniform(-106, -80); });  // exp into the denormals and below
    apply(Activation::sigmoid, 0, 0);
    ulps("sigmoid below", 6, [](double x) { return 1 / (1 + std::exp(-x)); });
    const double infinity = std::numeric_limits<double>::infinity();
    const double inputs[] = {infinity, -infinity, 1e30, -1e30, std::nan(""), 0};
    for (int i = 0; i < columns; ++i) src[i] = static_cast<T>(inputs[i % 6]);
    const struct {
      Activation activation;
      double wanted[4];
    } cases[] = {{Activation::tanh, {1, -1, 1, -1}},
                 {Activation::sigmoid, {1, 0, 1, 0}},
                 {Activation::elu, {infinity, -1, double(T(1e30)), -1}},
                 {Activation::relu, {infinity, 0, double(T(1e30)), 0}},
                 {Activation::softplus, {infinity, 0, double(T(1e30)), 0}},
                 {Activation::leaky_relu, {infinity, -infinity, double(T(1e30)), -double(T(1e30))}}};
    for (const auto& c : cases) {
      apply(c.activation, 1, 20);
      for (int i = 0; i < 4; ++i)
        check::near(out[i], c.wanted[i], 0, what("limit of ") + std::to_string(int(c.activation)));
      check::that(std::isnan(out[4]), what("NaN must not be swallowed by ") + std::to_string(int(c.activation)));
    }
  }

  const Kernels<T>& k_;
  std::string name_;
};

}  // namespace

int main() {
  for_every_isa([](const Isa& set) {
    Tests<float>(set.f32()).run();
    Tests<double>(set.f64()).run();
  });
  return check::report();
}
