// GFLOP/s of the product and outer kernels of every instruction set executable here, beside a loop of nothing but FMAs.
// Not a test. One thread; the best of several repeats: what the kernel can do, not what a busy machine lets it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "cpu/kernels.h"

using namespace pymgan;
using namespace pymgan::cpu;

namespace {

// Seconds of one call, the best of many batches.
double best_time(const std::function<void()>& f) {
  using Clock = std::chrono::steady_clock;
  auto run = [&](int n) {
    const auto start = Clock::now();
    for (int i = 0; i < n; ++i) f();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  int n = 1;
  while (run(n) < 2e-3) n *= 2;
  double best = 1e9;
  for (int i = 0; i < 25; ++i) best = std::min(best, run(n) / n);
  return best;
}

#if defined(__x86_64__)
#define PYMGAN_REGISTER(v) "+v"(v)
#else
#define PYMGAN_REGISTER(v) "+w"(v)
#endif
// Twelve independent chains of FMAs on vectors of the widest kind that an instruction set has.
#define PYMGAN_PEAK(name, target, bytes)                                                \
  target double name(int n) {                                                           \
    typedef float V __attribute__((vector_size(bytes)));                                \
    V acc[12];                                                                          \
    const V x = V{} + 1.0000001f, y = V{} + 1e-9f;                                      \
    _Pragma("GCC unroll 12") for (int j = 0; j < 12; ++j) acc[j] = y;                   \
    for (int i = 0; i < n; ++i) _Pragma("GCC unroll 12") for (int j = 0; j < 12; ++j) { \
        acc[j] = acc[j] * x + y;                                                        \
        asm("" : PYMGAN_REGISTER(acc[j]));                                              \
      }                                                                                 \
    V sum = y;                                                                          \
    _Pragma("GCC unroll 12") for (int j = 0; j < 12; ++j) sum += acc[j];                \
    return sum[0];                                                                      \
  }
#if defined(__x86_64__)
PYMGAN_PEAK(peak_avx512, __attribute__((target("avx512f"))), 64)
PYMGAN_PEAK(peak_avx2, __attribute__((target("avx2,fma"))), 32)
#endif
PYMGAN_PEAK(peak_16, , 16)

double peak(const char* isa) {
  double (*loop)(int) = peak_16;
  int lanes = 4;
#if defined(__x86_64__)
  if (!std::strcmp(isa, "avx512")) loop = peak_avx512, lanes = 16;
  if (!std::strcmp(isa, "avx2")) loop = peak_avx2, lanes = 8;
#endif
  const int n = 10000;
  volatile double sink = 0;
  const double t = best_time([&] { sink = sink + loop(n); });
  return 2.0 * 12 * lanes * n / t / 1e9;
}

float* floats(int64_t n) {
  auto* p = static_cast<float*>(std::aligned_alloc(64, (n * 4 + 63) / 64 * 64));
  for (int64_t i = 0; i < n; ++i) p[i] = static_cast<float>(i % 13) * 0.1f - 0.6f;
  return p;
}

}  // namespace

int main() {
  int count;
  const Isa* sets = isas(&count);
  float *a0 = floats(1 << 16), *a1 = floats(1 << 16), *b0 = floats(1 << 17), *b1 = floats(1 << 17),
        *out = floats(1 << 17);
  float *ref = floats(1 << 16), *scale = floats(256), *bias = floats(256), *dot = floats(1 << 16),
        *dot_out = floats(256 * kLanes);
  for (int i = 0; i < count; ++i) {
    if (!sets[i].supported()) continue;
    const Kernels<float>& k = sets[i].f32();
    const double top = peak(sets[i].name);
    std::printf("\n%s: FMA peak %.1f GFLOP/s (one thread); GFLOP/s and %% of that\n", sets[i].name, top);
    std::printf("%4s %9s | %12s %12s %12s %12s | %12s %12s\n", "M", "K x N", "one term", "act, bias", "two terms",
                "scale+dot+2", "outer", "outer two");
    for (int size : {64, 256})
      for (int rows : {20, 32, 40, 64}) {
        Product<float> p;
        p.rows = rows;
        p.columns = size;
        p.term0 = {a0, size, b0, int64_t{size} * kLanes, kLanes, size, Access::panels};
        p.epilogue.ld = size;
        p.epilogue.out = out;
        p.epilogue.attributes[0] = 0.2f;
        p.epilogue.activation = Activation::leaky_relu;
        const double flops = 2.0 * rows * size * size;
        std::vector<double> rate;
        auto add = [&](double terms, const std::function<void()>& f) {
          rate.push_back(terms * flops / best_time(f) / 1e9);
        };
        add(1, [&] { k.product(p); });
        p.epilogue.apply = Apply::act;
        p.bias = bias;
        add(1, [&] { k.product(p); });
        p.epilogue.apply = Apply::chain;
        p.epilogue.ref = ref;
        p.term1 = {a1, size, b1, int64_t{size} * kLanes, kLanes, size, Access::panels};
        add(2, [&] { k.product(p); });
        p.scale = scale;
        p.dot = dot;
        p.dot_out = dot_out;
        add(2, [&] { k.product(p); });
        OuterProduct<float> o;
        o.rows = o.columns = size;
        o.term0 = {a0, size, ref, size, rows};
        o.out = out;
        o.out_panel = int64_t{size} * kLanes;
        o.out_row = kLanes;
        add(1, [&] { k.outer(o); });
        o.term1 = {a1, size, dot, size, rows};
        add(2, [&] { k.outer(o); });
        std::printf("%4d %4dx%4d |", rows, size, size);
        for (size_t j = 0; j < rate.size(); ++j) {
          std::printf(" %6.1f (%2.0f%%)", rate[j], 100 * rate[j] / top);
          if (j == 3) std::printf(" |");
        }
        std::printf("\n");
      }
    // The small kernels, in nanoseconds a call.
    auto ns = [&](const char* name, const std::function<void()>& f) {
      std::printf("  %s %.0f ns;", name, best_time(f) * 1e9);
    };
    Product<float> score;
    score.rows = 64;
    score.columns = 1;
    score.term0 = {a0, 64, b0, kLanes, 64, 64, Access::dots};
    score.epilogue.ld = kLanes;
    score.epilogue.out = out;
    ns("score 64x64->1", [&] { k.product(score); });
    OuterProduct<float> thin;
    thin.rows = 1;
    thin.columns = 64;
    thin.term0 = {a0, kLanes, ref, 64, 64};
    thin.out = out;
    thin.out_panel = kLanes;
    thin.out_row = 64;
    ns("outer 1x64 over 64", [&] { k.outer(thin); });
    thin.rows = 2;
    thin.out_panel = 2 * kLanes;
    thin.out_row = kLanes;
    ns("outer 2x64 over 64", [&] { k.outer(thin); });
    Product<float> shallow;
    shallow.rows = 64;
    shallow.columns = 64;
    shallow.term0 = {a0, kLanes, b0, 2 * kLanes, kLanes, 2, Access::panels};
    shallow.epilogue.ld = 64;
    shallow.epilogue.out = out;
    ns("product 64x2->64", [&] { k.product(shallow); });
    ns("transpose 64x64", [&] { k.transpose(b0, 64, 64, out); });
    ns("transpose 256x256", [&] { k.transpose(b0, 256, 256, out); });
    ns("pack 256x256", [&] { k.pack(b0, 256, 256, out); });
    ns("unpack 256x256", [&] { k.unpack(b0, 256, 256, out); });
    ns("noise 32x16", [&] { k.noise({1, 2, 3, 0}, 32, 16, 16, out); });
    ns("column_sum 64x64", [&] { k.column_sum(a0, 64, 64, out, false); });
    ns("row_dot 64x64", [&] { k.row_dot(a0, a1, 64, 64, out, false); });
    Update<float> u;
    u.n = 1 << 13;
    u.rate = 1e-6f;
    u.gradient = a0;
    u.theta = a1;
    u.theta_out = a1;
    ns("update 8192", [&] { k.update(u); });
    double norm;
    u.norm2 = &norm;
    ns("with norm", [&] { k.update(u); });
    Elementwise<float> e;
    e.rows = 64;
    e.src = a0;
    e.epilogue.ld = 64;
    e.epilogue.out = out;
    e.epilogue.apply = Apply::act;
    e.epilogue.attributes[0] = 0.2f;
    e.epilogue.activation = Activation::leaky_relu;
    ns("leaky_relu 4096", [&] { k.elementwise(e); });
    e.epilogue.activation = Activation::tanh;
    ns("tanh 4096", [&] { k.elementwise(e); });
    Head<float> h;
    h.fakes = h.reals = 32;
    h.score = a0;
    h.c_g = out;
    h.c_d = out + 64;
    h.cc_g = out + 128;
    h.cc_d = out + 192;
    float stats[6];
    h.stats = stats;
    ns("head 32+32", [&] { k.head(h); });
    std::printf("\n");
  }
  return 0;
}
