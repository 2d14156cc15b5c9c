#include "interpreter.h"

#include <algorithm>

#include "form_rows.h"
#include "instr_augment.h"
#include "instr_products.h"
#include "instr_scores.h"
#include "instr_spectral.h"
#include "instr_updates.h"
#include "noise.h"
#include "operands.h"

namespace pymgan::cpu {
namespace {

template <class T>
class Interpreter {
 public:
  Interpreter(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame)
      : o(kernels, program, procedure, frame), products(o), scores(o), augments(o), updates(o), spectral(o) {}

  void run() {
    for (const Instr& i : o.procedure.code) {
      // An update carries an inactive player's parameters over, and a step without players has its power iteration.
      if (!(i.players & o.frame.active) && i.op != Op::update && i.op != Op::spectral_iterate) continue;
      execute(i);
      if (!o.frame.valid) return;
    }
  }

 private:
  void copy_in(const Instr& i, const Form& form, const T* source, const int32_t* picked) const {
    rows_in(form, source, picked, i.rows, o.ld(i.out), o.at(i.out));
  }

  void noise(const Instr& i) const {
    const Form& form = o.layout.z;
    if (o.frame.noise) return copy_in(i, form, o.frame.noise, nullptr);
    if (form.flat()) return o.kernels.noise(o.frame.key, i.rows, form.features(), o.ld(i.out), o.at(i.out));
    dense_noise(o.kernels, o.frame.key, i.rows, form.features(), o.at(i.scratch),
                o.at(i.scratch) + i.rows * padded(form.features()));
    copy_in(i, form, o.at(i.scratch) + i.rows * padded(form.features()), nullptr);
  }

  void fixed(const Instr& i) const {
    const FixedMaps& maps = o.layout.maps[i.map];
    const FixedMap& map = i.adjoint ? maps.back : maps.forward;
    FixedProduct<T> p;
    p.rows = i.rows;
    p.blocks = map.blocks.data();
    p.block_count = static_cast<int>(map.blocks.size());
    p.x = o.at(i.a0), p.x_ld = o.ld(i.a0);
    p.out = o.at(i.out), p.out_ld = o.ld(i.out);
    o.kernels.fixed_map(p);
  }

  void softmax(const Instr& i) const {
    const Groups& groups = o.layout.groups[i.map];
    Softmax<T> p;
    p.rows = i.rows;
    p.elements = i.columns;
    p.groups = groups.count;
    p.of = groups.of.data();
    p.x = o.at(i.a0);
    p.out = o.at(i.out);
    p.ld = o.ld(i.out);
    p.most = o.at(i.scratch);
    p.sums = p.most + groups.count;
    o.kernels.softmax(p);
  }

  void execute(const Instr& i) {
    switch (i.op) {
      case Op::noise:
        if (i.index == 0)
          noise(i);
        else
          augments.instance_noise(i);
        break;
      case Op::load:
        copy_in(i, o.layout.x, o.frame.real, o.frame.rows);
        break;
      case Op::input:
        copy_in(i, i.index == 0 ? o.layout.z : o.layout.x, o.frame.input[i.index], nullptr);
        break;
      case Op::output:
        rows_out(o.layout.x, o.at(i.a0), i.rows, o.ld(i.a0), o.frame.output);
        break;
      case Op::fill: {
        const Value& v = o.value(i.out);
        const int64_t parts = v.shape == Shape::vector ? i.rows : i.rows * o.ld(i.out);
        std::fill_n(o.at(i.out), v.shape == Shape::parameters ? v.elements : parts, T{0});
        break;
      }
      case Op::add:
        updates.add(i);
        break;
      case Op::spread:
        spread(o.at(i.a0), i.rows, o.ld(i.out), o.at(i.out));
        break;
      case Op::rate: {
        T* out = o.at(i.out);
        const T* source = o.at(i.a0);
        const bool moves = o.active(i.player);
        for (int r = 0; r < i.rows; ++r) out[r] = moves ? -o.rate(i.player) * (source ? source[r] : T{1}) : T{0};
        break;
      }
      case Op::product:
        products.product(i);
        break;
      case Op::diagonal:
        products.diagonal(i);
        break;
      case Op::fixed:
        fixed(i);
        break;
      case Op::softmax:
        softmax(i);
        break;
      case Op::outer:
        products.outer(i);
        break;
      case Op::elementwise: {
        Elementwise<T> e;
        e.rows = i.rows;
        e.src = o.at(i.a0);
        e.times = o.at(i.b0);
        e.plus = o.at(i.a1);
        e.order = i.order;
        e.scale = o.at(i.scale);
        e.epilogue = o.epilogue(i);
        o.kernels.elementwise(e);
        break;
      }
      case Op::row_dot:
        o.kernels.row_dot(o.at(i.a0), o.at(i.b0), i.rows, o.ld(i.a0), o.at(i.out), false);
        break;
      case Op::combine:
        scores.combine(i);
        break;
      case Op::mix:
        scores.mix(i);
        break;
      case Op::draw:
        augments.draw(i);
        break;
      case Op::augment:
        augments.augment(i);
        break;
      case Op::penalty:
        scores.penalty(i);
        break;
      case Op::head:
        scores.head(i);
        break;
      case Op::transpose: {
        const Tensor& w = o.layout.tensors[i.a0.tensor];
        if (w.window < 0)
          o.kernels.transpose(o.at(i.a0), w.n, w.k, o.at(i.out));
        else
          o.kernels.window_transpose(o.at(i.a0), w.n, w.taps, w.k, o.at(i.out));
        break;
      }
      case Op::check:
        updates.check(i);
        break;
      case Op::spectral_iterate:
        spectral.iterate(i);
        break;
      case Op::spectral_weights:
        spectral.weights(i);
        break;
      case Op::spectral_tangent:
        spectral.tangent(i);
        break;
      case Op::spectral_adjoint:
        spectral.adjoint(i);
        break;
      case Op::update:
        updates.update(i);
        break;
      case Op::adjoint:
        updates.adjoint(i);
        break;
    }
  }

  Operands<T> o;
  Products<T> products;
  Scores<T> scores;
  Augments<T> augments;
  Updates<T> updates;
  SpectralNorms<T> spectral;
};

}  // namespace

template <class T>
void execute(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame) {
  Interpreter<T>(kernels, program, procedure, frame).run();
}

template void execute(const Kernels<float>&, const Program&, const Procedure&, Frame<float>&);
template void execute(const Kernels<double>&, const Program&, const Procedure&, Frame<double>&);

}  // namespace pymgan::cpu
