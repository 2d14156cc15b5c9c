// How samples differ from what D is given of them while it is trained: augmented, then with instance noise. Both are
// nodes between the samples and D, so that tangents and cotangents pass through them.
#pragma once

#include "derivatives.h"

namespace pymgan {

class Disturbance {
 public:
  Disturbance(Graph& graph, const Game& game) : graph_(graph), game_(game) {}

  // The step's numbers, for G's samples and then the real ones.
  void draw();
  // What D is given of the first of them; `name`: of that pass of D. `way` receives the nodes.
  NodeId apply(const std::string& name, NodeId samples, Tape& way);

 private:
  Graph& graph_;
  const Game& game_;
  Ref numbers_, noise_;  // of the augmentation; what is added after it
};

}  // namespace pymgan
