// Copies from global to shared memory that go on while a warp computes, and the barriers (mbarrier) that say when they
// have arrived. On sm_90 they are bulk copies, which one lane asks for, of any multiple of 16 bytes; before, each lane
// asks for 16 bytes at a time. Either way a barrier's phase is over when all that was announced has arrived.
//
// On the host a copy is put off: at once its target becomes NaN, and what was asked for comes at a random moment, at
// the latest when somebody waits for it. A wait that is missing, or a target that is written anew before it was read,
// then gives NaN; a wait for what nobody has asked for, which would never end, an exception.
#pragma once

#include "block.h"

#ifndef __CUDACC__
#include <cstring>
#include <limits>
#endif

namespace pymgan::cuda::inline PYMGAN_SIDE {

#ifdef __CUDACC__

struct alignas(8) Barrier {
  uint64_t state;
};

// All functions are for a whole warp, whose lanes are together, with the same arguments.
class Copies {
 public:
  explicit __device__ Copies(Block&) {}

  // Before anything else. The first phase has parity 0, the next 1, and so on in turn.
  static __device__ __forceinline__ void init(Barrier* barrier) {
    one_lane([&] {
#if __CUDA_ARCH__ >= 900
      constexpr uint32_t arrivals = 1;  // whoever asks
#else
      constexpr uint32_t arrivals = kWarp;  // every lane's copies
#endif
      asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared(barrier)), "r"(arrivals) : "memory");
#if __CUDA_ARCH__ >= 900
      // The copy engine must see it, too.
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    });
    __syncwarp();
  }

  // What this kernel's threads have written to global memory, before a barrier of the block or team, may be copied.
  static __device__ __forceinline__ void see_writes() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
  }

  // The phase waits for this many bytes, of the copies that follow; then the copies; then sent().
  static __device__ __forceinline__ void announce(Barrier* barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
    one_lane([&] {
      asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared(barrier)), "r"(bytes) : "memory");
    });
#endif
  }
  // to, from: 16-byte aligned; from: global memory; bytes: a multiple of 16
  static __device__ __forceinline__ void copy(float* to, const float* from, int bytes, Barrier* barrier) {
    const uint32_t target = shared(to);
    const size_t source = __cvta_generic_to_global(from);
#if __CUDA_ARCH__ >= 900
    // The target is this block's own, named as the cluster knows it.
    one_lane([&] {
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
          "l"(source), "r"(bytes), "r"(shared(barrier))
          : "memory");
    });
#else
    for (int i = threadIdx.x % kWarp * 16; i < bytes; i += kWarp * 16)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target + i), "l"(source + i) : "memory");
#endif
  }
  static __device__ __forceinline__ void sent(Barrier* barrier) {
#if __CUDA_ARCH__ < 900
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared(barrier)) : "memory");
#endif
  }

  // Until the phase of this parity is over. Every lane waits: what has arrived is seen by those who did.
  static __device__ __forceinline__ void wait(Barrier* barrier, uint32_t parity) {
    uint32_t over;
    do {
#if __CUDA_ARCH__ >= 900
      asm volatile("{.reg .pred over; mbarrier.try_wait.parity.shared.b64 over, [%1], %2; selp.u32 %0, 1, 0, over;}"
                   : "=r"(over)
                   : "r"(shared(barrier)), "r"(parity)
                   : "memory");
#else
      asm volatile("{.reg .pred over; mbarrier.test_wait.parity.shared.b64 over, [%1], %2; selp.u32 %0, 1, 0, over;}"
                   : "=r"(over)
                   : "r"(shared(barrier)), "r"(parity)
                   : "memory");
#endif
    } while (!over);
  }

  // What every lane has read may be written anew by copies that any lane asks for from here on.
  static __device__ __forceinline__ void have_read() { __syncwarp(); }

  // Nobody leaves while copies are under way.
  static __device__ __forceinline__ void close() {}

  // p, which is in this block's shared memory, as the compiler is told.
  static __device__ __forceinline__ const float* near(const float* p) {
    __builtin_assume(__isShared(p));
    return p;
  }

 private:
  static __device__ __forceinline__ uint32_t shared(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
  }
};

#else

struct alignas(8) Barrier {
  int32_t bytes;      // announced and not arrived
  uint16_t arrivals;  // missing
  uint8_t parity;     // of the phase that is going on
  uint8_t ready;
};

class Copies {
 public:
  explicit Copies(Block& block) : random_(block.draw()) {}

  static void init(Barrier* barrier) { *barrier = {0, 1, 0, kReady}; }
  static void see_writes() {}

  void announce(Barrier* barrier, int bytes) {
    check(barrier);
    if (barrier->arrivals == 0) throw std::logic_error("[cuda] a phase of a barrier was announced twice");
    barrier->bytes += bytes, --barrier->arrivals;
    turn(barrier);
    some();
  }
  void copy(float* to, const float* from, int bytes, Barrier* barrier) {
    check(barrier);
    if (bytes <= 0 || bytes % 16 != 0 || reinterpret_cast<std::uintptr_t>(to) % 16 != 0 ||
        reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
      throw std::logic_error("[cuda] expected whole and aligned quads to copy");
    for (size_t i = 0; i < bytes / sizeof(float); ++i) to[i] = std::numeric_limits<float>::quiet_NaN();
    under_way_.push_back({to, from, bytes, barrier});
    some();
  }
  void sent(Barrier*) { some(); }
  void wait(Barrier* barrier, uint32_t parity) {
    check(barrier);
    some();
    while (barrier->parity == parity) {
      std::vector<size_t> own;
      for (size_t i = 0; i < under_way_.size(); ++i)
        if (under_way_[i].barrier == barrier) own.push_back(i);
      if (own.empty()) throw std::logic_error("[cuda] a wait that would never end");
      arrive(own[random_() % own.size()]);
    }
  }
  void have_read() {}
  static const float* near(const float* p) { return p; }

  void close() const {
    if (!under_way_.empty()) throw std::logic_error("[cuda] nobody has waited for a copy");
  }

 private:
  struct Copy {
    float* to;
    const float* from;
    int bytes;
    Barrier* barrier;
  };
  static constexpr uint8_t kReady = 0x5a;

  static void check(const Barrier* barrier) {
    if (barrier->ready != kReady) throw std::logic_error("[cuda] a barrier was not initialised");
  }
  void some() {
    while (!under_way_.empty() && random_() % 2) arrive(random_() % under_way_.size());
  }
  void arrive(size_t i) {
    const Copy c = under_way_[i];
    under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(i));
    std::memcpy(c.to, c.from, c.bytes);
    c.barrier->bytes -= c.bytes;
    if (c.barrier->bytes < 0) throw std::logic_error("[cuda] more has arrived than was announced");
    turn(c.barrier);
  }
  static void turn(Barrier* barrier) {
    if (barrier->arrivals == 0 && barrier->bytes == 0) barrier->arrivals = 1, barrier->parity ^= 1;
  }

  std::vector<Copy> under_way_;
  std::minstd_rand random_;
};

#endif

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
