// The kernels of spectral norms: dot products and a packed weight as one matrix, against plain loops in double.
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "buffer.h"
#include "check.h"
#include "cpu/kernels.h"
#include "every_isa.h"

using namespace pymgan::cpu;

namespace {

std::mt19937 generator(11);
double draw() { return std::uniform_real_distribution<double>(-1, 1)(generator); }

template <class T>
class Tests {
 public:
  explicit Tests(const Kernels<T>& kernels)
      : k_(kernels), name_(std::string(kernels.name) + (sizeof(T) == 4 ? " f32" : " f64")) {}

  void run() {
    for (int64_t n : {16, 32, 48, 1024, 1040, 16 * 1000}) dot(n);
    for (int n : {1, 2, 3, 4, 5, 16, 17, 40})
      for (int k : {1, 2, 7, 16, 17, 63}) matrix(n, k);
  }

 private:
  static constexpr double kEps = std::numeric_limits<T>::epsilon();

  // Element (n, k) of a weight [rows][inputs], as kernels.h says.
  static int64_t at(int n, int k, int rows, int inputs) {
    return narrow(rows) ? n * padded(inputs) + k : (int64_t{n / kLanes} * inputs + k) * kLanes + n % kLanes;
  }
  static int64_t size(int rows, int inputs) { return narrow(rows) ? rows * padded(inputs) : padded(rows) * inputs; }

  void dot(int64_t n) {
    Buffer<T> x(n), y(n);
    x.fill([](int64_t) { return draw(); });
    y.fill([](int64_t) { return draw(); });
    double wanted = 0, sizes = 0;
    for (int64_t i = 0; i < n; ++i) wanted += double(x[i]) * y[i], sizes += std::abs(double(x[i]) * y[i]);
    check::near(k_.dot(x.get(), y.get(), n), wanted, 20 * kEps * sizes, name_ + " dot of " + std::to_string(n));
  }

  void matrix(int rows, int inputs) {
    const std::string what = name_ + " " + std::to_string(rows) + "x" + std::to_string(inputs) + " ";
    const int64_t all = size(rows, inputs);
    Buffer<T> w(all), b(all), out(all), u(padded(rows)), v(padded(inputs)), y(padded(rows)), x(padded(inputs));
    for (Buffer<T>* weight : {&w, &b, &out}) {
      weight->fill([](int64_t) { return 0.0; });
      for (int n = 0; n < rows; ++n)
        for (int k = 0; k < inputs; ++k) (*weight)[at(n, k, rows, inputs)] = static_cast<T>(draw());
    }
    u.fill([&](int64_t i) { return i < rows ? draw() : 0.0; });
    v.fill([&](int64_t i) { return i < inputs ? draw() : 0.0; });
    const WeightMatrix<T> m{rows, inputs, narrow(rows), w.get()};
    k_.matrix_times(m, v.get(), y.get());
    k_.transposed_matrix_times(m, u.get(), x.get());
    for (int64_t n = 0; n < padded(rows); ++n) {
      double wanted = 0;
      for (int k = 0; n < rows && k < inputs; ++k) wanted += double(w[at(n, k, rows, inputs)]) * v[k];
      check::near(y[n], wanted, 2 * kEps * inputs, what + "W v");
    }
    for (int64_t k = 0; k < padded(inputs); ++k) {
      double wanted = 0;
      for (int n = 0; k < inputs && n < rows; ++n) wanted += double(w[at(n, k, rows, inputs)]) * u[n];
      check::near(x[k], wanted, 2 * kEps * rows, what + "W^T u");
    }
    for (bool accumulate : {false, true})
      for (bool two : {false, true}) {
        const Doubles before = out.copy();
        RankOne<T> p;
        p.n = rows, p.k = inputs, p.by_rows = narrow(rows), p.accumulate = accumulate;
        p.of_a = static_cast<T>(0.5), p.of_b = static_cast<T>(-0.25), p.of_uv = static_cast<T>(2);
        p.a = w.get(), p.b = two ? b.get() : nullptr, p.u = u.get(), p.v = v.get(), p.out = out.get();
        k_.rank_one(p);
        Doubles wanted(all, 0.0);
        for (int n = 0; n < rows; ++n)
          for (int k = 0; k < inputs; ++k) {
            const int64_t i = at(n, k, rows, inputs);
            wanted[i] = (accumulate ? before[i] : 0) + 0.5 * w[i] - (two ? 0.25 * b[i] : 0) + 2.0 * u[n] * v[k];
          }
        for (int64_t i = 0; i < all; ++i) check::near(out[i], wanted[i], 16 * kEps, what + "rank one");
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
