// The instruction sets of this build (CMakeLists.txt defines PYMGAN_BUILT_*) and the choice among them.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

#define PYMGAN_DECLARE_ISA(isa) \
  namespace pymgan::cpu::isa {  \
  const Kernels<float>& f32();  \
  const Kernels<double>& f64(); \
  }

#ifdef PYMGAN_BUILT_avx512
PYMGAN_DECLARE_ISA(avx512)
#endif
#ifdef PYMGAN_BUILT_avx2
PYMGAN_DECLARE_ISA(avx2)
#endif
#ifdef PYMGAN_BUILT_v2
PYMGAN_DECLARE_ISA(v2)
#endif
#ifdef PYMGAN_BUILT_portable
PYMGAN_DECLARE_ISA(portable)
#endif

namespace pymgan::cpu {
namespace {

// __builtin_cpu_supports looks at what the operating system saves, too. The lists are the flags in CMakeLists.txt.
#ifdef PYMGAN_BUILT_avx512
bool has_avx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma");
}
#endif
#ifdef PYMGAN_BUILT_avx2
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif
#ifdef PYMGAN_BUILT_v2
bool has_v2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2");
}
#endif
#ifdef PYMGAN_BUILT_portable
bool always() { return true; }
#endif

const Isa kIsas[] = {
#ifdef PYMGAN_BUILT_avx512
    {"avx512", &has_avx512, &avx512::f32, &avx512::f64},
#endif
#ifdef PYMGAN_BUILT_avx2
    {"avx2", &has_avx2, &avx2::f32, &avx2::f64},
#endif
#ifdef PYMGAN_BUILT_v2
    {"v2", &has_v2, &v2::f32, &v2::f64},
#endif
#ifdef PYMGAN_BUILT_portable
    {"portable", &always, &portable::f32, &portable::f64},
#endif
};

std::string names(bool executable) {
  std::string all;
  for (const Isa& isa : kIsas)
    if (!executable || isa.supported()) all += (all.empty() ? "" : ", ") + std::string(isa.name);
  return all.empty() ? "none" : all;
}

}  // namespace

const Isa* isas(int* count) {
  *count = static_cast<int>(sizeof kIsas / sizeof kIsas[0]);
  return kIsas;
}

const Isa& chosen_isa(const char* requested) {
  const std::string known = "; this build has " + names(false) + ", this machine executes " + names(true);
  if (!requested || !*requested) requested = std::getenv("PYMGAN_ISA");
  const bool any = !requested || !*requested;
  for (const Isa& isa : kIsas) {
    if (any ? !isa.supported() : std::strcmp(isa.name, requested) != 0) continue;
    if (!isa.supported())
      throw std::invalid_argument("instruction set: this machine cannot execute '" + std::string(requested) + "'" +
                                  known);
    return isa;
  }
  if (any) throw std::invalid_argument("instruction set: none of this build runs on this machine" + known);
  throw std::invalid_argument("instruction set: expected one of this build, got '" + std::string(requested) + "'" +
                              known);
}

}  // namespace pymgan::cpu
