// What the operands of one Procedure's instructions mean for one task, and what its run carries along.
#pragma once

#include <algorithm>
#include <cmath>

#include "interpreter.h"

namespace pymgan::cpu {

template <class T>
class Operands {
 public:
  Operands(const Kernels<T>& kernels, const Program& program, const Procedure& procedure, Frame<T>& frame)
      : kernels(kernels),
        layout(program.layout()),
        game(program.game()),
        moments(program.moments()),
        procedure(procedure),
        frame(frame) {
    find_slots();
    look_ahead();
  }

  const Value& value(const Ref& r) const { return procedure.values[r.value]; }
  T* at(const Ref& r) const {
    T* start = r ? base(value(r)) : nullptr;
    return start ? start + r.offset : nullptr;
  }
  T* bias_at(const Ref& r) const {
    T* start = r && r.bias_offset >= 0 ? base(value(r)) : nullptr;
    return start ? start + r.bias_offset : nullptr;
  }
  int64_t pad(int64_t n) const { return layout.target.pad(n); }
  int64_t ld(const Ref& r) const { return pad(value(r).columns); }
  int64_t player_size(Player p) const { return layout.size[index(p)]; }

  // A player's part of a parameter-shaped value.
  T* part(const Ref& r, Player p) const {
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

  // One of the player's moments, or of their cotangents.
  T* vector(const Ref& r, int number, Player p) const { return r ? part(r, p) + number * layout.total : nullptr; }

  T rate(Player p) const { return static_cast<T>(frame.rate[index(p)]); }
  // A loss that is not finite ends the task, if the player is active.
  void judge(Player p, double loss) const { frame.valid &= !active(p) || std::isfinite(loss); }
  bool active(Player p) const { return frame.active & (p == Player::generator ? kGenerator : kDiscriminator); }

  const Kernels<T>& kernels;
  const Layout& layout;
  const Game& game;
  const int moments;
  const Procedure& procedure;
  Frame<T>& frame;
  Ahead* ahead = nullptr;   // what the next step will touch; null: nothing
  GradientSums<T> sums[2];  // of fused updates, by player

 private:
  // Where every slot begins; null where the caller has none.
  void find_slots() {
    auto set = [&](Slot slot, const T* start) { slots_[static_cast<int>(slot)] = const_cast<T*>(start); };
    set(Slot::temp, frame.arena);
    set(Slot::residual, frame.residual);
    set(Slot::phi, frame.phi);  // read only by construction
    set(Slot::phi_next, frame.phi_next);
    set(Slot::moment, frame.moment);  // read only
    set(Slot::moment_next, frame.moment_next);
    set(Slot::spectral, frame.spectral);  // read only
    set(Slot::spectral_next, frame.spectral_next);
    set(Slot::rate_scale, frame.rate_scale);  // read only
    set(Slot::cotangent, frame.cotangent);
    set(Slot::v_moment, frame.v_moment);
    set(Slot::d_scale, frame.d_scale);
    set(Slot::gradient, frame.gradient);
  }
  void look_ahead() {
    const int64_t bytes = frame.ahead.elements * sizeof(T);
    ahead_.at = reinterpret_cast<const char*>(frame.ahead.start);
    ahead_.end = ahead_.at + bytes;
    ahead_.lines_per_flop = bytes / 64.0 / static_cast<double>(std::max<int64_t>(procedure.flops, 1));
    ahead = bytes > 0 ? &ahead_ : nullptr;
  }
  T* base(const Value& v) const {
    T* start = slots_[static_cast<int>(v.slot)];
    return start ? start + v.offset : nullptr;
  }

  T* slots_[kSlots] = {};
  Ahead ahead_;
};

}  // namespace pymgan::cpu
