// From the contract's calls to launches: which lists a call executes, and where its buffers lie.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "records.h"

namespace pymgan::cuda {

inline PullArguments arguments(const cpu::PullCall<float>& call) {
  PullArguments a;
  a.tasks = call.tasks, a.batches = call.batches, a.schedule = call.schedule, a.rates = call.rates;
  a.weight = call.weight, a.valid = call.valid, a.saved = call.saved, a.v = call.v, a.v_moment = call.v_moment;
  a.v0 = call.v0, a.v_moment0 = call.v_moment0, a.d_rate = call.d_rate, a.d_scale = call.d_scale;
  return a;
}

// A task's buffer, for reports.
struct BufferNote {
  std::string name;
  int64_t elements = 0;
  bool shared = false;
};

struct Plotted {
  Launch launch;
  std::vector<BufferNote> buffers;
};

// A launch whose constants are bytes that the caller keeps in the memory where it runs.
class Prepared {
 public:
  explicit Prepared(std::function<Plotted(Image&)> plot) : plot_(std::move(plot)) {
    Image image;
    Plotted plotted = plot_(image);
    launch_ = plotted.launch, buffers_ = std::move(plotted.buffers);
    constants_ = image.bytes();
  }
  const std::vector<char>& constants() const { return constants_; }
  const std::vector<BufferNote>& buffers() const { return buffers_; }
  int64_t workspace() const { return launch_.places.each; }  // elements of a task
  // base: where the constants are.
  void place(const char* base) {
    Image image(base);
    launch_ = plot_(image).launch;
  }
  // With a workspace of [tasks][workspace].
  Launch at(float* workspace) const {
    Launch launch = launch_;
    launch.workspace = workspace;
    return launch;
  }

 private:
  std::function<Plotted(Image&)> plot_;
  std::vector<char> constants_;
  std::vector<BufferNote> buffers_;
  Launch launch_;
};

// Elements of shared memory for a task's buffers: if the temps fit into the first, that many, so that a multiprocessor
// holds several blocks; else the second, if they fit there; else a team works on the task, and its blocks have the
// second each for a part of the temps, if they fit there; else none. Rings for weights in global memory take of what is
// left, or where the temps are not in one block, of what is left of half a multiprocessor's.
struct SharedRoom {
  int64_t wanted = 0, most = 0;
  int32_t team = 1;
  int64_t half = 0;
  bool rings = false;
};

// What a meta-gradient's launch depends on.
struct MetaShape {
  int steps = 0, samples = 0, queries = 0;
  double losses[2] = {};
  bool second_order = true, rates = false, scaled = false;
};

class Launches {
 public:
  Launches(const Plan& plan, const Game& game, Precision precision = Precision::float32);

  Program& program() { return program_; }
  int64_t saved_elements(const StorageSchedule& storage, int steps) const;

  Prepared adapt(const StorageSchedule& storage, int steps, SharedRoom room);
  Prepared pullback(const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates, bool scaled,
                    int steps, SharedRoom room);
  Prepared meta_gradient(const StorageSchedule& storage, const MetaShape& shape, SharedRoom room);
  Prepared gradients(bool full, SharedRoom room) { return list(&Launch::gradients, program_.gradients(full), room); }
  Prepared generate(int batch, bool vjp, SharedRoom room) {
    return vjp ? list(&Launch::generate_vjp, program_.generate_vjp(batch), room)
               : list(&Launch::generate, program_.generate(batch), room);
  }

 private:
  class Lists;
  class Plot;
  void find_flat();
  Launch start(Image& image) const;
  void add_steps(Launch& l, const StorageSchedule& storage, int steps, Lists& lists, Image& image);
  void add_pulls(Launch& l, const StorageSchedule& storage, const std::vector<Halves>& halves, bool rates, bool scaled,
                 Lists& lists, Image& image);
  void place_pull(Launch& l, const StorageSchedule& storage, bool rates, Plot& plot) const;
  Prepared list(Listing Launch::* which, const Procedure& procedure, SharedRoom room);
  int64_t snapshot() const {
    return program_.layout().total * (1 + program_.moments()) + program_.layout().spectral_size;
  }

  Program program_;
  Encoding encoding_;
  Precision precision_;
  std::vector<int32_t> flat_;  // of every packed element its place in torch's phi; -1: padding
  std::vector<uint8_t> kinds_;
};

}  // namespace pymgan::cuda
