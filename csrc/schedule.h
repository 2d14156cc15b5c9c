// Storage modes: what a run of K inner steps keeps, and in which order its pull-back restores, repeats and pulls steps.
//
//   all       phi_k and every residual of every step; nothing is computed twice
//   phi       phi_k of every step; a step's forward passes are repeated once for all cotangents
//   every:S   phi_k of every S-th step; the steps of a segment are repeated first
//   nested    phi_0 only; halves are repeated recursively: log2(K) copies, K log2(K) / 2 repeated steps
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pymgan {

struct Storage {
  enum class Mode : uint8_t { all, phi, every, nested };
  Mode mode = Mode::phi;
  int every = 1;

  // "all", "phi", "every:S" or "nested"; throws std::invalid_argument.
  static Storage parse(const std::string& text);
  std::string text() const;
};

// Snapshots (phi and the optimiser's moment before a step) live in numbered slots, kept across the two calls or only
// within the pull-back.
struct Action {
  enum class Kind : uint8_t {
    step,  // phi of slot `from` -> step k -> slot `to`
    pull,  // pull back through step k, at the phi of slot `from`
  };
  Kind kind;
  int k, from, to;
};

struct StorageSchedule {
  int kept_slots = 0;             // in `saved`, filled by adapt: slot of step k is slot_of_step[k], -1: not kept
  int scratch_slots = 0;          // in the pull-back's workspace: numbers kept_slots ...
  std::vector<int> slot_of_step;  // [K + 1]
  std::vector<Action> pullback;
  int64_t repeated_steps() const;
};

StorageSchedule schedule_storage(const Storage& storage, int steps);

}  // namespace pymgan
