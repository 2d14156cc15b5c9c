#include "interpreter.h"

#include <algorithm>
#include <cmath>

namespace pymgan::cpu {
namespace {

template <class T>
class Interpreter {
 public:
  Interpreter(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame)
      : kernels(kernels), layout(program.layout()), game(program.game()), procedure(procedure), frame(frame) {}

  void run() {
    for (const Instr& i : procedure.code) {
      // An update carries an inactive player's parameters over.
      if (!(i.players & frame.active) && i.op != Op::update) continue;
      execute(i);
      if (!frame.valid) return;
    }
  }

 private:
  T* base(const Value& v) const {
    switch (v.slot) {
      case Slot::temp:
        return frame.arena + v.offset;
      case Slot::residual:
        return frame.residual + v.offset;
      case Slot::phi:
        return const_cast<T*>(frame.phi);  // read only by construction
      case Slot::phi_next:
        return frame.phi_next;
      case Slot::moment:
        return frame.moment;
      case Slot::rate_scale:
        return const_cast<T*>(frame.rate_scale);
      case Slot::cotangent:
        return frame.cotangent + v.index * layout.total;
      case Slot::v_moment:
        return frame.v_moment + v.index * layout.total;
      case Slot::d_scale:
        return frame.d_scale ? frame.d_scale + v.index * layout.total : nullptr;
      case Slot::gradient:
        return frame.gradient + v.index * layout.total;
      case Slot::statistics:
        return nullptr;
    }
    return nullptr;
  }

  const Value& value(Ref r) const { return procedure.values[r.value]; }
  T* at(Ref r) const { return r ? base(value(r)) + r.offset : nullptr; }
  T* bias_at(Ref r) const { return r && r.bias_offset >= 0 ? base(value(r)) + r.bias_offset : nullptr; }
  int64_t pad(int64_t n) const { return layout.target.pad(n); }
  int64_t ld(Ref r) const { return pad(value(r).columns); }
  int64_t player_size(Player p) const { return layout.size[index(p)]; }

  // A player's part of a parameter-shaped value.
  T* part(Ref r, Player p) const {
    T* start = at(r);
    return start && value(r).player < 0 ? start + layout.start[index(p)] : start;
  }

  Epilogue<T> epilogue(const Instr& i) const {
    Epilogue<T> e;
    e.apply = i.apply;
    e.activation = i.activation;
    e.attributes[0] = static_cast<T>(i.attributes[0]);
    e.attributes[1] = static_cast<T>(i.attributes[1]);
    e.ld = pad(i.columns);
    e.ref = at(i.ref);
    e.q = at(i.q);
    e.g = at(i.g);
    e.out = at(i.out);
    e.pre = at(i.pre);
    return e;
  }

  // `weight`: one tensor of a parameter vector, or its transposed copy (tensor_back).
  Term<T> term(const Instr& i, Ref a, Ref weight) const {
    Term<T> t;
    if (!a) return t;
    const Tensor& w = layout.tensors[weight.tensor];
    const bool transposed = value(weight).shape == Shape::rows;
    t.a = at(a);
    t.a_row = ld(a);
    t.b = at(weight);
    t.depth = i.depth;
    if (!i.adjoint) {  // out [n] = W [n][k] a [k]
      if (w.by_rows)
        t.access = Access::dots, t.b_panel = kLanes, t.b_row = pad(w.k);
      else
        t.b_panel = int64_t{w.k} * kLanes, t.b_row = kLanes;
    } else if (transposed) {  // out [k] = W^T a [n], panels of W^T
      t.b_panel = int64_t{w.n} * kLanes, t.b_row = kLanes;
    } else if (w.by_rows) {  // rows of W are what a broadcast of a [n] multiplies
      t.b_panel = kLanes, t.b_row = pad(w.k);
    } else {  // few inputs: dot products along n
      t.access = Access::dots, t.b_panel = int64_t{w.k} * kLanes, t.b_row = kLanes;
    }
    return t;
  }

  void product(const Instr& i) const {
    Product<T> p;
    p.rows = i.rows;
    p.columns = i.columns;
    p.term0 = term(i, i.a0, i.b0);
    p.term1 = term(i, i.a1, i.b1);
    p.bias = bias_at(i.bias);
    p.scale = at(i.scale);
    p.dot = at(i.dot_out ? i.dot : Ref{});
    p.dot_out = at(i.dot_out);
    p.epilogue = epilogue(i);
    kernels.product(p);
  }

  void outer(const Instr& i) const {
    const Tensor& w = layout.tensors[i.out.tensor];
    OuterProduct<T> p;
    auto term = [&](Ref h, Ref delta, int rows) {
      OuterTerm<T> t;
      if (!h) return t;
      if (w.by_rows) std::swap(h, delta);
      t.a = at(h), t.a_ld = ld(h), t.b = at(delta), t.b_ld = ld(delta), t.depth = rows;
      return t;
    };
    p.term0 = term(i.a0, i.b0, i.rows0);
    p.term1 = term(i.a1, i.b1, i.rows1);
    p.accumulate = i.accumulate;
    p.out = at(i.out);
    p.rows = w.by_rows ? w.n : w.k;
    p.columns = w.by_rows ? w.k : w.n;
    p.out_panel = w.by_rows ? kLanes : int64_t{w.k} * kLanes;
    p.out_row = w.by_rows ? pad(w.k) : kLanes;
    kernels.outer(p);
    // Here B is h, whose padding is an activation of zero, not zero.
    if (w.by_rows)
      for (int n = 0; n < w.n; ++n) std::fill(p.out + n * p.out_row + w.k, p.out + (n + 1) * p.out_row, T{0});
    if (T* bias = bias_at(i.out)) kernels.column_sum(at(i.b0), i.rows0, ld(i.b0), bias, i.accumulate);
  }

  void head(const Instr& i) {
    T stats[6];
    Head<T> h;
    h.loss = game.loss;
    h.smoothing = static_cast<T>(game.smoothing);
    h.fakes = i.fakes;
    h.reals = i.reals;
    h.score = at(i.a0);
    h.score_ld = ld(i.a0);
    h.c_g = at(i.c_g);
    h.c_d = at(i.c_d);
    h.cc_g = at(i.cc_g);
    h.cc_d = at(i.cc_d);
    h.stats = i.stats ? stats : nullptr;
    kernels.head(h);
    if (!i.stats) return;
    bool finite = true;
    if (i.index & kGenerator) {
      finite &= std::isfinite(stats[0]);
      if (frame.trace) frame.trace[0] = stats[0];
    }
    if (i.index & kDiscriminator) {
      finite &= std::isfinite(stats[1]);
      if (frame.trace) {
        frame.trace[1] = stats[1];
        std::copy(stats + 2, stats + 6, frame.trace + 4);
      }
    }
    frame.valid &= finite;
  }

  void check(const Instr& i) {
    double norm2 = 0;
    Update<T> u;
    u.n = player_size(i.player);
    u.gradient = at(i.a0);
    u.norm2 = &norm2;
    kernels.update(u);
    if (frame.trace) frame.trace[2 + index(i.player)] = static_cast<T>(std::sqrt(norm2));
    frame.valid &= std::isfinite(norm2);
  }

  void update(const Instr& i) const {
    const int p = index(i.player);
    const bool active = (frame.active & (p == 0 ? kGenerator : kDiscriminator)) != 0;
    const T* theta = part(i.theta, i.player);
    T* out = part(i.out, i.player);
    if (!active) {
      if (out && out != theta) std::copy_n(theta, player_size(i.player), out);
      return;
    }
    Update<T> u;
    u.n = player_size(i.player);
    u.rate = static_cast<T>(frame.rate[p]);
    u.momentum = static_cast<T>(game.momentum);
    u.gradient = at(i.a0);
    u.scale = frame.rate_scale ? part(i.rate_scale, i.player) : nullptr;
    u.theta = theta;
    u.moment = part(i.moment, i.player);
    u.theta_out = out;
    kernels.update(u);
  }

  void adjoint(const Instr& i) const {
    const int p = index(i.player);
    T* w = at(i.out);
    if (!(frame.active & (p == 0 ? kGenerator : kDiscriminator))) {
      std::fill_n(w, player_size(i.player), T{0});
      return;
    }
    UpdateAdjoint<T> u;
    u.n = player_size(i.player);
    u.rate = static_cast<T>(frame.rate[p]);
    u.momentum = static_cast<T>(game.momentum);
    u.scale = frame.rate_scale ? part(i.rate_scale, i.player) : nullptr;
    u.moved = part(i.moved, i.player);
    u.v = part(i.v, i.player);
    u.v_moment = part(i.v_moment, i.player);
    u.w = w;
    if (i.moved) {
      u.d_rate = frame.d_rate ? frame.d_rate + i.index * frame.d_rate_stride + p : nullptr;
      u.d_scale = frame.d_scale ? part(i.d_scale, i.player) : nullptr;
    }
    kernels.update_adjoint(u);
  }

  // [rows][columns] of the caller's into padded rows.
  void copy_in(const Instr& i, const T* source, const int32_t* picked) const {
    T* out = at(i.out);
    const int64_t stride = ld(i.out);
    for (int r = 0; r < i.rows; ++r) {
      const T* row = source + (picked ? picked[r] : r) * int64_t{i.columns};
      std::fill(std::copy_n(row, i.columns, out + r * stride), out + (r + 1) * stride, T{0});
    }
  }

  void execute(const Instr& i) {
    switch (i.op) {
      case Op::noise:
        if (frame.noise)
          copy_in(i, frame.noise, nullptr);
        else
          kernels.noise(frame.key, i.rows, i.columns, ld(i.out), at(i.out));
        break;
      case Op::load:
        copy_in(i, frame.real, frame.rows);
        break;
      case Op::input:
        copy_in(i, frame.input[i.index], nullptr);
        break;
      case Op::output: {
        const T* source = at(i.a0);
        for (int r = 0; r < i.rows; ++r)
          std::copy_n(source + r * ld(i.a0), i.columns, frame.output + r * int64_t{i.columns});
        break;
      }
      case Op::fill: {
        const bool vector = value(i.out).shape == Shape::vector;
        std::fill_n(at(i.out), vector ? i.rows : i.rows * ld(i.out), T{0});
        break;
      }
      case Op::spread: {
        T* out = at(i.out);
        const T* source = at(i.a0);
        const int64_t stride = ld(i.out);
        std::fill_n(out, i.rows * stride, T{0});
        for (int r = 0; r < i.rows; ++r) out[r * stride] = source ? source[r] : T{1};
        break;
      }
      case Op::product:
        product(i);
        break;
      case Op::outer:
        outer(i);
        break;
      case Op::elementwise: {
        Elementwise<T> e;
        e.rows = i.rows;
        e.src = at(i.a0);
        e.scale = at(i.scale);
        e.epilogue = epilogue(i);
        kernels.elementwise(e);
        break;
      }
      case Op::row_dot:
        kernels.row_dot(at(i.a0), at(i.b0), i.rows, ld(i.a0), at(i.out), false);
        break;
      case Op::combine: {
        T* out = at(i.out);
        const T *a0 = at(i.a0), *b0 = at(i.b0), *a1 = at(i.a1), *b1 = at(i.b1);
        for (int r = 0; r < i.rows; ++r)
          out[r] = (a0 && r < i.rows0 ? a0[r] * b0[r] : T{0}) + (a1 ? a1[r] * b1[r] : T{0});
        break;
      }
      case Op::head:
        head(i);
        break;
      case Op::transpose: {
        const Tensor& w = layout.tensors[i.a0.tensor];
        kernels.transpose(at(i.a0), w.n, w.k, at(i.out));
        break;
      }
      case Op::copy:
        std::copy_n(part(i.a0, i.player), player_size(i.player), part(i.out, i.player));
        break;
      case Op::check:
        check(i);
        break;
      case Op::update:
        update(i);
        break;
      case Op::adjoint:
        adjoint(i);
        break;
    }
  }

  const Kernels<T>& kernels;
  const Layout& layout;
  const Game& game;
  const Procedure& procedure;
  Frame<T>& frame;
};

}  // namespace

template <class T>
void execute(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame) {
  Interpreter<T>(kernels, program, procedure, frame).run();
}

template void execute(const Kernels<float>&, const Program&, const Procedure&, Frame<float>&);
template void execute(const Kernels<double>&, const Program&, const Procedure&, Frame<double>&);

}  // namespace pymgan::cpu
