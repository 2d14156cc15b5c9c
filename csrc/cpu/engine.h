// The contract's calls on the cpu: tasks in parallel on all cores, every buffer passed in. Pointers carry their shapes;
// T tasks, K inner steps, P parameters in torch's flat order, C cotangents, B samples.
//
// Results do not depend on the number of threads: a task is computed by one thread, and nothing is shared between
// tasks.
#pragma once

#include <cstdint>
#include <vector>

#include "../program.h"
#include "../schedule.h"
#include "distance.h"
#include "kernels.h"

namespace pymgan::cpu {

// The real batches and noise of every task and step; strides in elements, 0 to share.
template <class T>
struct Batches {
  const T* real = nullptr;  // [T,K,reals,features], or the pool [N,features]
  int64_t real_task = 0, real_step = 0;
  const int32_t* indices = nullptr;  // [T,K,reals] rows of the pool; null: no pool
  int64_t index_task = 0, index_step = 0;
  const T* noise = nullptr;  // [T,K,fakes,latent]; null: drawn from (seed, task, step)
  int64_t noise_task = 0, noise_step = 0;
  uint64_t seed = 0;
  const int64_t* tasks = nullptr;  // [T] global numbers
  const int64_t* count = nullptr;  // [T] inner steps done before the call
};

template <class T>
struct InnerSchedule {
  const double* rate = nullptr;     // [T,K,2]
  const uint8_t* active = nullptr;  // [T,K,2]; null: all
  const T* scale = nullptr;         // [P]; null: 1
  const uint8_t* kind = nullptr;    // [T,K] which of the game's optimisers; null: the first
  const int32_t* number = nullptr;  // [T,K,2] of each update since the player's moments were zero; null: no moments
};

template <class T>
struct AdaptCall {
  int64_t tasks = 0;
  int steps = 0, threads = 1;
  Batches<T> batches;
  InnerSchedule<T> schedule;
  const T* phi0 = nullptr;       // [T,P]
  int64_t phi0_task = 0;         // stride between tasks; 0: shared
  const T* moment0 = nullptr;    // [T,moments,P]; null: zero
  const T* spectral0 = nullptr;  // [T,U] u of D's spectral norms
  // outputs
  T* phi = nullptr;          // [T,P]
  T* moment = nullptr;       // [T,moments,P]
  T* spectral = nullptr;     // [T,U]
  T* trace = nullptr;        // [T,K,8], zeroed by the caller
  uint8_t* valid = nullptr;  // [T]
  int64_t* done = nullptr;   // [T] steps completed
  T* saved = nullptr;        // [T][saved_elements]; null: nothing is kept
  T* workspace = nullptr;    // [adapt_workspace]
};

template <class T>
struct PullCall {
  int64_t tasks = 0;
  int steps = 0, threads = 1;
  Batches<T> batches;
  InnerSchedule<T> schedule;
  std::vector<Halves> halves;  // [C]
  bool rates = false;
  const double* weight = nullptr;  // [T]: v0, v_moment0 and d_scale are summed over tasks, [C,P], in their order
  uint8_t* valid = nullptr;        // [T]: the others give zeros; with weight, cleared where v0 is not finite
  T* saved = nullptr;              // of the adapt call
  const T* v = nullptr;            // [C,T,P]
  const T* v_moment = nullptr;     // [C,T,moments,P]; null: zero
  // outputs
  T* v0 = nullptr;           // [C,T,P]; with weight without T, and so are the two others of its kind
  T* v_moment0 = nullptr;    // [C,T,moments,P]; may be null
  double* d_rate = nullptr;  // [C,T,K,2], zeroed by the caller; with `rates`
  T* d_scale = nullptr;      // [C,T,P]; may be null
  T* workspace = nullptr;    // [pull_workspace]
};

template <class T>
struct GradientsCall {
  int64_t tasks = 0;
  int threads = 1;
  bool full = false;
  Batches<T> batches;      // K axis absent: strides of the step are not used
  const T* phi = nullptr;  // [T,P]
  int64_t phi_task = 0;
  const T* spectral = nullptr;  // [T,U]
  // outputs
  T* gradient = nullptr;   // [1 or 2,T,P]
  T* trace = nullptr;      // [T,8], zeroed by the caller: the losses
  T* workspace = nullptr;  // [gradients_workspace]
};

template <class T>
struct GenerateCall {
  int64_t tasks = 0;
  int batch = 0, threads = 1;
  const T* phi = nullptr;  // [T,P]
  int64_t phi_task = 0;
  const T* z = nullptr;          // [T,B,latent]
  const T* cotangent = nullptr;  // [T,B,features] of the samples: the call is then the pull-back
  // outputs
  T* out = nullptr;        // [T,B,features], or [T,P] with the discriminator's half zero
  T* workspace = nullptr;  // [generate_workspace]
};

// See distance.h.
template <class T>
struct DistanceCall {
  int64_t tasks = 0;
  int a_count = 0, b_count = 0, features = 0, threads = 1;
  double epsilon = kDistanceEpsilon;
  const T* a = nullptr;  // [T,a_count,features]
  const T* b = nullptr;  // [T,b_count,features]
  // outputs
  double* value = nullptr;  // [T]
  T* cotangent = nullptr;   // [T,a_count,features]
};

// What phi_K is asked for on a query set. Each player descends the energy distance between G's samples and the query
// (if `samples` is not 0) plus its own loss on the query times its weight. Q is a multiple of the game's reals where a
// loss counts: the loss is then the mean over such parts.
template <class T>
struct Objective {
  int samples = 0;           // G's, in the energy distance
  double losses[2] = {};     // weights of L_G and L_D
  int queries = 0;           // Q
  const T* query = nullptr;  // [T,Q,features]
  const T* noise = nullptr;  // [T,noise_rows,latent]; null: drawn from (seed, task, step K, stream)
  uint32_t stream = 0;

  bool plays() const { return losses[0] != 0 || losses[1] != 0; }
  int cotangents() const { return plays() ? 2 : 1; }
};

// adapt, the objective and pullback of one task after the other on each thread: what a pull-back reads is still in the
// cache, and memory grows with the threads instead of the tasks.
template <class T>
struct MetaCall {
  int64_t tasks = 0;
  int steps = 0, threads = 1;
  Batches<T> batches;
  InnerSchedule<T> schedule;
  const T* phi0 = nullptr;       // [T,P]
  int64_t phi0_task = 0;         // stride between tasks; 0: shared
  const T* spectral0 = nullptr;  // [T,U] u of D's spectral norms
  Objective<T> objective;
  bool second_order = true;  // false: v_0 is taken to be v_K
  bool rates = false;
  // outputs
  T* gradient = nullptr;     // [P], each player's own descent: the mean over valid tasks, added in their order
  double* value = nullptr;   // [T]: the energy distance, or else L_G + L_D, weighted; NaN for a task that failed before
  T* trace = nullptr;        // [T,K,8], zeroed by the caller
  uint8_t* valid = nullptr;  // [T]: its steps, its value and its v_0 are finite
  double* d_rate = nullptr;  // [C,T,K,2], zeroed by the caller; with `rates`
  T* workspace = nullptr;    // [meta_workspace]
};

// Elements of the caller's buffers.
int64_t saved_elements(const Program& program, const StorageSchedule& storage, int steps);  // one task
int64_t adapt_workspace(const Program& program, int64_t threads);
int64_t pull_workspace(Program& program, const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates,
                       bool scaled, int steps, int64_t threads);
int64_t gradients_workspace(Program& program, bool full, int64_t threads);
int64_t generate_workspace(Program& program, int batch, bool vjp, int64_t threads);
template <class T>
int64_t meta_workspace(Program& program, const StorageSchedule& storage, const MetaCall<T>& call);

template <class T>
void adapt(const Kernels<T>& kernels, const Program& program, const StorageSchedule& storage, const AdaptCall<T>& call);
template <class T>
void pullback(const Kernels<T>& kernels, Program& program, const StorageSchedule& storage, const PullCall<T>& call);
template <class T>
void gradients(const Kernels<T>& kernels, Program& program, const GradientsCall<T>& call);
template <class T>
void generate(const Kernels<T>& kernels, Program& program, const GenerateCall<T>& call);
template <class T>
void meta_gradient(const Kernels<T>& kernels, Program& program, const StorageSchedule& storage,
                   const MetaCall<T>& call);
template <class T>
void distance(const DistanceCall<T>& call);

}  // namespace pymgan::cpu
