// The counter-based noise of every instruction set against an independent Philox, and that against published answers.
#include <array>
#include <cmath>
#include <limits>

#include "buffer.h"
#include "check.h"
#include "cpu/kernels.h"
#include "every_isa.h"

using namespace pymgan::cpu;

namespace {

template <class T>
class Tests {
 public:
  explicit Tests(const Kernels<T>& kernels)
      : k_(kernels), name_(std::string(kernels.name) + (sizeof(T) == 4 ? " f32" : " f64")) {}

  // An independent Philox: the published known answers hold for it (test_philox).
  void noise() {
    for (auto [rows, columns] : {std::pair{1, 1}, {3, 5}, {8, 32}, {20, 33}, {64, 2}, {7, 100}}) {
      const NoiseKey key{0x123456789abcdefull, (uint64_t{3} << 32) + 77, (uint64_t{1} << 33) + 5, 2};
      const int64_t ld = padded(columns);
      Buffer<T> out(rows * ld);
      k_.noise(key, rows, columns, ld, out.get());
      for (int m = 0; m < rows; ++m)
        for (int n = 0; n < ld; ++n) {
          const double wanted = n < columns ? normal(key, m * columns + n) : 0;
          check::near(out[m * ld + n], wanted, 4 * std::numeric_limits<T>::epsilon() * (1 + std::abs(wanted)),
                      what("noise"));
        }
    }
    Buffer<T> many(20000 * kLanes);
    k_.noise({11, 0, 0, 0}, 20000, kLanes, kLanes, many.get());
    double mean = 0, square = 0, fourth = 0;
    for (int64_t i = 0; i < many.size(); ++i)
      mean += many[i], square += std::pow(many[i], 2), fourth += std::pow(many[i], 4);
    const double n = many.size();
    check::near(mean / n, 0, 5 / std::sqrt(n), what("noise mean"));
    check::near(square / n, 1, 5 * std::sqrt(2 / n), what("noise variance"));
    check::near(fourth / n, 3, 5 * std::sqrt(96 / n), what("noise kurtosis"));
  }

 public:
  static std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
      c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1, uint32_t(p0)};
    }
    return c;
  }

  static double normal(const NoiseKey& key, int i) {
    const auto w =
        philox({uint32_t(i / 4), uint32_t(key.step), uint32_t(key.step >> 32) ^ (key.stream << 16), uint32_t(key.task)},
               uint32_t(key.seed), uint32_t(key.seed >> 32) + uint32_t(key.task >> 32));
    const int pair = i % 4 / 2 * 2;
    auto u = [](uint32_t x) { return ((x >> 9) + 0.5) * std::pow(2.0, -23); };
    const double r = std::sqrt(-2 * std::log(u(w[pair]))), a = 2 * std::acos(-1.0) * u(w[pair + 1]);
    return i % 2 ? r * std::sin(a) : r * std::cos(a);
  }

 private:
  std::string what(const std::string& kernel) const { return name_ + " " + kernel; }

  const Kernels<T>& k_;
  std::string name_;
};

void test_philox() {  // Random123's known answers
  using Words = std::array<uint32_t, 4>;
  check::that(Tests<float>::philox({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
              "philox of zeros");
  const uint32_t f = 0xffffffff;
  check::that(Tests<float>::philox({f, f, f, f}, f, f) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
              "philox of ones");
}

}  // namespace

int main() {
  test_philox();
  for_every_isa([](const Isa& set) {
    Tests<float>(set.f32()).noise();
    Tests<double>(set.f64()).noise();
  });
  return check::report();
}
