#include "disturbance.h"

namespace pymgan {

void Disturbance::draw() {
  const Layout& layout = graph_.layout;
  Instr instr;
  instr.fakes = game_.fakes;
  instr.reals = game_.reals;
  instr.rows = game_.fakes + game_.reals;
  auto emit = [&](Op op, const char* name, int columns) {
    instr.op = op;
    instr.columns = columns;
    instr.out = graph_.kept(graph_.rows(name, instr.rows, columns));
    graph_.emit(instr);
    return instr.out;
  };
  if (game_.augmentation.any())
    numbers_ = emit(Op::draw, "x.numbers", game_.augmentation.numbers(static_cast<int>(layout.sample.size()) - 1));
  if (game_.instance_noise == 0) return;
  instr.index = 1;
  if (const int size = layout.x.features(); !layout.x.flat())  // in torch's order
    instr.scratch = graph_.scratch("drawn", instr.rows * (layout.target.pad(size) + size));
  noise_ = emit(Op::noise, "x.noise", layout.x.stored());
}

NodeId Disturbance::apply(const std::string& name, NodeId samples, Tape& way) {
  NodeId given = samples;
  if (numbers_)
    way.push_back(given = graph_.augment(name + ".augmented", given, numbers_, false, game_.augmentation.brightness));
  if (noise_) {
    const NodeId noise = graph_.leaf(noise_, graph_.node(samples).rows, graph_.node(samples).columns);
    way.push_back(given = graph_.add(name + ".noisy", given, noise));
  }
  return given;
}

}  // namespace pymgan
