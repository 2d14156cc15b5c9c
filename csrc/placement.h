// Where the temporary values of a procedure lie in its arena.
#pragma once

#include <cstdint>
#include <vector>

#include "program.h"

namespace pymgan {

struct Placement {
  std::vector<int64_t> offset;  // of every value; -1: no temp, or one without use
  int64_t arena = 0;            // elements
  bool fits = true;             // false: a value is larger than a slice
};

// First fit over live intervals, largest early: an instruction's inputs and outputs never share memory. With a slice,
// no value lies across a multiple of it.
Placement place(const Procedure& procedure, int64_t slice = 0);

}  // namespace pymgan
