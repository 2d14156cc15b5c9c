// The threads that work on a task, in phases: those of a block, or of a team of blocks (a cluster), whose buffers are
// then in global memory or in a shared memory that is known to all. Code between two barriers is a function of the
// element that a thread works on; code outside of phases is the same for all threads, which each execute it on a GPU.
// What is computed there may come from sums (below), never from memory that a phase has yet to write.
//
// The same headers compile for the host. A phase is then a loop over its elements in a random order, so that a phase
// that reads what it writes itself, which wants a barrier, gives other results from run to run.
//
// What is compiled on both sides has names of its own on each (PYMGAN_SIDE): nvcc leaves host functions of these names,
// too, that end the process.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include <cooperative_groups.h>
#define PYMGAN_SIDE on_device
#define PYMGAN_DEVICE __device__ __forceinline__
#define PYMGAN_DEVICE_CALL __device__ __noinline__  // what is compiled once
#define PYMGAN_UNROLL _Pragma("unroll")
#define PYMGAN_LOOP _Pragma("unroll 1")
#else
#include <functional>
#include <random>
#include <stdexcept>
#include <vector>
#define PYMGAN_SIDE on_host
#define PYMGAN_DEVICE inline
#define PYMGAN_DEVICE_CALL inline
#define PYMGAN_UNROLL
#define PYMGAN_LOOP
#endif

namespace pymgan::cuda {
struct Code;
}

namespace pymgan::cuda::inline PYMGAN_SIDE {

inline constexpr int kWarp = 32;
inline constexpr int kThreads = 256;  // of a block
inline constexpr int kWarps = kThreads / kWarp;

inline constexpr int kMostBlocks = 8;  // of a team: what a cluster may have anywhere

#ifdef __CUDACC__

class Block {
 public:
  // partial: [2 kWarps], shared; codes: [2], shared; blocks: of the team, of which this is number `rank`
  __device__ Block(double* partial, Code* codes, int blocks, int rank)
      : partial_(partial), codes_(codes), blocks_(blocks), rank_(rank) {}

  __device__ __forceinline__ Code* codes() const { return codes_; }

  // A phase: f(i) for i < n.
  template <class F>
  __device__ __forceinline__ void each(int n, F f) {
    for (int i = rank_ * kThreads + threadIdx.x; i < n; i += blocks_ * kThreads) f(i);
    barrier();
  }

  // A phase: n floats, a multiple of four, from global memory to the block's shared memory, all on their way at a time.
  __device__ __forceinline__ void fetch(int n, const float* from, float* to) const {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    for (int i = threadIdx.x * 4; i < n; i += kThreads * 4)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared + i * 4), "l"(from + i) : "memory");
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
  }

  __device__ __forceinline__ int warp_count() const { return blocks_ * kWarps; }

  // What another block of the team has in its shared memory where this one has `own`.
  __device__ __forceinline__ float* of_rank(float* own, int rank) const {
#if __CUDA_ARCH__ >= 900
    return cooperative_groups::this_cluster().map_shared_rank(own, rank);
#else
    return own;
#endif
  }

  // Whether this is in global memory, not in the shared memory of a block of the team.
  __device__ __forceinline__ bool is_far(const float* p) const { return __isGlobal(p); }

  // A phase in which a whole warp works on each i < n: f(i), with fragments (fragments.h) or warp sums inside.
  template <class F>
  __device__ __forceinline__ void warps(int n, F f) {
    PYMGAN_LOOP
    for (int i = rank_ * kWarps + threadIdx.x / kWarp; i < n; i += blocks_ * kWarps) f(i);
    barrier();
  }

  // The sum of f(i) over i < n, for everyone, in an order of its own that is always the same.
  template <class F>
  __device__ __forceinline__ double sum(int n, F f) {
    double own = 0;
    for (int i = rank_ * kThreads + threadIdx.x; i < n; i += blocks_ * kThreads) own += f(i);
    return reduce(own);
  }

  // A phase in which a whole warp works on each i < n, and the sum of f(i), which all of its lanes return.
  template <class F>
  __device__ __forceinline__ double warps_sum(int n, F f) {
    double own = 0;
    PYMGAN_LOOP
    for (int i = rank_ * kWarps + threadIdx.x / kWarp; i < n; i += blocks_ * kWarps) {
      const double found = f(i);
      if (threadIdx.x % kWarp == 0) own += found;
    }
    return reduce(own);
  }

  // The sum of what every thread has of its own; of two such numbers.
  __device__ __forceinline__ double reduce(double own) {
    double none = 0;
    reduce(own, none);
    return own;
  }
  __device__ __forceinline__ void reduce(double& own, double& other) {
    for (int step = kWarp / 2; step > 0; step /= 2) {
      own += __shfl_xor_sync(0xffffffffu, own, step);
      other += __shfl_xor_sync(0xffffffffu, other, step);
    }
    const int warp = threadIdx.x / kWarp;
    if (threadIdx.x % kWarp == 0) partial_[warp] = own, partial_[kWarps + warp] = other;
    barrier();
    own = other = 0;
    for (int block = 0; block < blocks_; ++block) {
      const double* partial = of(block);
      for (int warp = 0; warp < kWarps; ++warp) own += partial[warp], other += partial[kWarps + warp];
    }
    barrier();
  }

 private:
  __device__ __forceinline__ void barrier() {
#if __CUDA_ARCH__ >= 900
    if (blocks_ > 1) return cooperative_groups::this_cluster().sync();
#endif
    __syncthreads();
  }
  // A block's partial sums.
  __device__ __forceinline__ const double* of(int block) const {
#if __CUDA_ARCH__ >= 900
    if (blocks_ > 1) return cooperative_groups::this_cluster().map_shared_rank(partial_, block);
#endif
    return partial_;
  }

  double* partial_;
  Code* codes_;
  int blocks_, rank_;
};

// Inside of `warps`: the sum of f(i) over i < n, for every lane.
template <class F>
__device__ __forceinline__ float warp_sum(int n, F f) {
  float own = 0;
  for (int i = threadIdx.x % kWarp; i < n; i += kWarp) own += f(i);
  for (int step = kWarp / 2; step > 0; step /= 2) own += __shfl_xor_sync(0xffffffffu, own, step);
  return own;
}

// Inside of `warps`: f(i) for i < n, by the lane that also has i elsewhere.
template <class F>
__device__ __forceinline__ void lanes(int n, F f) {
  for (int i = threadIdx.x % kWarp; i < n; i += kWarp) f(i);
}

// Inside of `warps`: f() by one lane.
template <class F>
__device__ __forceinline__ void one_lane(F f) {
  if (threadIdx.x % kWarp == 0) f();
}

// Inside of `warps`: the warp of the block that works on i.
__device__ __forceinline__ int warp_of(int) { return threadIdx.x / kWarp; }

// f(warp) by each warp of the block, without a barrier.
template <class F>
__device__ __forceinline__ void each_warp(F f) {
  f(threadIdx.x / kWarp);
}

#else

class Block {
 public:
  // memory: the shared memory of each block of the team, `shared` elements each, one after the other
  Block(uint64_t seed, const float* memory, int64_t shared, int team)
      : random_(seed), memory_(memory), shared_(shared), team_(team) {}

  float* of_rank(float* own, int rank) const { return own + rank * shared_; }
  bool is_far(const float* p) const {
    return std::less<>()(p, memory_) || !std::less<>()(p, memory_ + team_ * shared_);
  }
  uint64_t draw() { return random_(); }

  Code* codes() const { return nullptr; }

  template <class F>
  void each(int n, F f) {
    // i -> (first + i * step) mod n meets every element once if step and n have no common factor.
    if (n <= 0) return;
    int64_t step = 1 + static_cast<int64_t>(random_() % n);
    while (common_factor(step, n) != 1) step = step % n + 1;
    int64_t at = static_cast<int64_t>(random_() % n);
    for (int i = 0; i < n; ++i, at = (at + step) % n) f(static_cast<int>(at));
  }

  void fetch(int n, const float* from, float* to) {
    if (n % 4 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0 ||
        reinterpret_cast<std::uintptr_t>(to) % 16 != 0)
      throw std::logic_error("[cuda] expected whole and aligned quads to fetch");
    each(n, [&](int i) { to[i] = from[i]; });
  }

  int warp_count() const { return kWarps; }

  template <class F>
  void warps(int n, F f) {
    each(n, f);
  }

  template <class F>
  double warps_sum(int n, F f) {
    std::vector<double> found(n);
    each(n, [&](int i) { found[i] = f(i); });
    double sum = 0;
    for (double x : found) sum += x;
    return sum;
  }

  double reduce(double own) { return own; }
  void reduce(double&, double&) {}

  template <class F>
  double sum(int n, F f) {
    double partial[kThreads] = {};
    for (int i = 0; i < n; ++i) partial[i % kThreads] += f(i);
    for (int half = kThreads / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
    return partial[0];
  }

 private:
  static int64_t common_factor(int64_t a, int64_t b) {
    while (b != 0) {
      const int64_t rest = a % b;
      a = b, b = rest;
    }
    return a;
  }
  std::minstd_rand random_;
  const float* memory_;
  int64_t shared_;
  int team_;
};

template <class F>
float warp_sum(int n, F f) {
  float partial[kWarp] = {};
  for (int i = 0; i < n; ++i) partial[i % kWarp] += f(i);
  for (int step = kWarp / 2; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) partial[i] += partial[i + step];
  return partial[0];
}

template <class F>
void lanes(int n, F f) {
  for (int i = 0; i < n; ++i) f(i);
}

template <class F>
void one_lane(F f) {
  f();
}

inline int warp_of(int i) { return i % kWarps; }

template <class F>
void each_warp(F f) {
  for (int warp = 0; warp < kWarps; ++warp) f(warp);
}

#endif

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
