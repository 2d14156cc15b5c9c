#include "builder.h"

#include <algorithm>
#include <utility>

namespace pymgan {

Builder::Builder(std::string name, const Layout& l, int moments) : layout(l), moments_(moments) {
  procedure_.name = std::move(name);
}

Ref Builder::add(Value value) {
  procedure_.values.push_back(std::move(value));
  Ref r;
  r.value = static_cast<int>(procedure_.values.size()) - 1;
  return r;
}

Ref Builder::rows(const std::string& name, int rows, int columns) {
  Value v;
  v.name = name;
  v.rows = rows;
  v.columns = columns;
  v.elements = rows * layout.target.pad(columns);
  return add(std::move(v));
}

Ref Builder::vector(const std::string& name, int rows) {
  Value v;
  v.name = name;
  v.shape = Shape::vector;
  v.rows = rows;
  v.columns = 1;
  v.elements = layout.target.pad(rows);
  return add(std::move(v));
}

Ref Builder::statistics(const std::string& name) {
  Value v;
  v.name = name;
  v.slot = Slot::statistics;
  v.shape = Shape::vector;
  v.rows = 6;
  v.columns = 1;
  v.elements = layout.target.pad(6);
  v.offset = 0;
  return add(std::move(v));
}

Ref Builder::scratch(const std::string& name, int64_t elements) {
  Value v;
  v.name = name;
  v.shape = Shape::vector;
  v.rows = static_cast<int>(elements);
  v.columns = 1;
  v.elements = elements;
  return add(std::move(v));
}

void Builder::through_window(Instr& product, int window) {
  product.window = window;
  if (window < 0 || !layout.target.packed) return;
  // Rows of a tile, each with what its site sees, for both terms; and as much of a narrow weight.
  const Windows& w = layout.windows[window];
  const int64_t row = layout.target.pad((product.adjoint ? w.back : w.forward).most_taps * product.depth);
  product.scratch = scratch("window", 2 * (kWindowTile + layout.target.narrow) * row);
}

Ref Builder::parameters(const std::string& name, Player player) {
  Value v;
  v.name = name;
  v.shape = Shape::parameters;
  v.player = index(player);
  v.elements = layout.size[index(player)];
  return add(std::move(v));
}

Ref Builder::external(Slot slot, const std::string& name, int i) { return external(slot, name, i, 1); }

Ref Builder::moments(Slot slot, const std::string& name, int i) {
  return moments_ > 0 ? external(slot, name, i, moments_) : Ref{};
}

Ref Builder::external(Slot slot, const std::string& name, int i, int vectors) {
  for (size_t at = 0; at < procedure_.values.size(); ++at)
    if (const Value& v = procedure_.values[at]; v.slot == slot && v.index == i) {
      Ref r;
      r.value = static_cast<int>(at);
      return r;
    }
  Value v;
  v.name = name;
  v.slot = slot;
  v.shape = Shape::parameters;
  v.index = i;
  v.elements = vectors * layout.total;
  v.offset = i * v.elements;
  return add(std::move(v));
}

Ref Builder::kept(Ref r) {
  if (keep == Keep::none) return r;
  Value& v = procedure_.values[r.value];
  if (keep == Keep::read) {
    v.slot = Slot::residual;
    if (residuals)
      if (auto at = residuals->find(v.name); at != residuals->end()) v.offset = at->second;
  } else if (auto at = residuals->find(v.name); at != residuals->end()) {
    v.slot = Slot::residual;
    v.offset = at->second;
  }
  return r;
}

Ref Builder::tensor(Ref r, int t) const {
  const Value& v = value(r);
  const Tensor& tensor = layout.tensors[t];
  const int64_t base = v.player < 0 ? layout.start[index(tensor.player)] : 0;
  r.tensor = t;
  r.offset = base + tensor.packed_weight;
  r.bias_offset = tensor.bias < 0 ? -1 : base + tensor.packed_bias;
  return r;
}

Ref Builder::tensor_back(Ref r, int t) {
  const Tensor& tensor = layout.tensors[t];
  const bool linear = tensor.window < 0;
  if (!layout.target.packed || (linear && (tensor.by_rows || tensor.k <= layout.target.narrow)))
    return this->tensor(r, t);
  auto [at, fresh] = transposed_.try_emplace({r.value, t});
  if (fresh) {
    Value v;
    v.name = value(r).name + "." + std::to_string(t) + "^T";
    v.rows = tensor.n;
    v.columns = tensor.inputs();
    Tensor back = tensor;  // the roles of inputs and outputs are exchanged
    std::swap(back.n, back.k);
    back.by_rows = back.n <= layout.target.narrow;
    v.elements = layout.target.pad(layout.packed_weight_size(back));
    Instr instr;
    instr.op = Op::transpose;
    instr.a0 = this->tensor(r, t);
    instr.rows = tensor.n;
    instr.columns = tensor.inputs();
    instr.out = add(std::move(v));
    instr.out.tensor = t;
    at->second = instr.out;
    // Recorded parameters are read back; what is transposed for a pull-back is transposed there.
    // Whoever is active may come to use it.
    const bool was_primal = std::exchange(primal, false);
    const uint8_t was_players = std::exchange(players, kBoth);
    emit(instr);
    primal = was_primal;
    players = was_players;
  }
  return at->second;
}

void Builder::forget_transposed(Ref r) {
  std::erase_if(transposed_, [&](const auto& entry) { return entry.first.first == r.value; });
}

Instr& Builder::emit(Instr instr) {
  if (primal && keep == Keep::read) {
    bool all_kept = true;
    visit_operands(instr, [&](const Ref& r, bool written) {
      all_kept &= !written || &r == &instr.scratch || value(r).slot == Slot::residual;
    });
    if (all_kept) return dropped_ = std::move(instr);
  }
  instr.players = players;
  procedure_.code.push_back(std::move(instr));
  return procedure_.code.back();
}

void Builder::drop_dead_code() {
  auto& values = procedure_.values;
  std::vector<bool> needed(values.size(), false);
  for (size_t i = 0; i < values.size(); ++i)
    needed[i] = values[i].slot != Slot::temp && !(values[i].slot == Slot::residual && keep == Keep::read);
  std::vector<Instr> kept;
  for (auto it = procedure_.code.rbegin(); it != procedure_.code.rend(); ++it) {
    Instr instr = *it;
    bool effect = instr.op == Op::output || instr.op == Op::check;
    visit_operands(instr, [&](Ref& r, bool written) {
      if (!written) return;
      if (needed[r.value]) effect = true;
    });
    if (!effect) continue;
    for (Ref* r : {&instr.pre, &instr.dot_out, &instr.c_g, &instr.c_d, &instr.cc_g, &instr.cc_d, &instr.stats})
      if (*r && !needed[r->value]) *r = Ref{};
    if (instr.op == Op::product && !instr.pre && !needed[instr.out.value]) {
      instr.a1 = instr.b1 = instr.out = Ref{};  // only the directional derivative of the score is wanted
      instr.apply = Apply::store;
      instr.ref = instr.q = instr.g = Ref{};
    }
    visit_operands(instr, [&](Ref& r, bool) { needed[r.value] = true; });
    kept.push_back(std::move(instr));
  }
  std::reverse(kept.begin(), kept.end());
  procedure_.code = std::move(kept);
}

// First fit over live intervals, largest early: an instruction's inputs and outputs never share memory.
void Builder::place_values() {
  auto& values = procedure_.values;
  const int end = static_cast<int>(procedure_.code.size());
  std::vector<std::pair<int, int>> live(values.size(), {end, -1});
  for (int i = 0; i < end; ++i)
    visit_operands(procedure_.code[i], [&](const Ref& r, bool) {
      live[r.value].first = std::min(live[r.value].first, i);
      live[r.value].second = std::max(live[r.value].second, i);
    });
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(values.size()); ++i)
    if (values[i].slot == Slot::temp && live[i].second >= 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a].elements > values[b].elements; });
  std::vector<int> placed;
  for (int i : order) {
    const int64_t size = (values[i].elements + 15) / 16 * 16;
    int64_t at = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (int j : placed) {
        const bool overlap = live[i].first <= live[j].second && live[j].first <= live[i].second;
        const int64_t other = values[j].offset, other_end = other + (values[j].elements + 15) / 16 * 16;
        if (overlap && at < other_end && other < at + size) {
          at = other_end;
          moved = true;
        }
      }
    }
    values[i].offset = at;
    procedure_.arena = std::max(procedure_.arena, at + size);
    placed.push_back(i);
  }
}

// Products of one number with another that a weight takes for one sample.
int64_t Builder::products_a_sample(const Instr& instr, const Ref& weight) const {
  const Tensor& t = layout.tensors[weight.tensor];
  return int64_t{t.n} * t.k * (instr.window < 0 ? 1 : layout.windows[instr.window].forward.pairs());
}

void Builder::count() {
  for (Instr& instr : procedure_.code) {
    if (instr.op == Op::product) {
      const int64_t each = 2 * instr.rows * products_a_sample(instr, instr.b0 ? instr.b0 : instr.b1);
      instr.flops = (instr.a0 ? each : 0) + (instr.a1 ? each : 0);
    } else if (instr.op == Op::outer) {
      instr.flops = 2 * products_a_sample(instr, instr.out) * (instr.rows0 + (instr.a1 ? instr.rows1 : 0));
    }
    instr.bytes = 0;
    visit_operands(instr, [&](const Ref& r, bool) {
      const Value& v = value(r);
      const int64_t elements = r.tensor >= 0 ? int64_t{layout.tensors[r.tensor].n} * layout.tensors[r.tensor].inputs()
                               : v.shape == Shape::parameters
                                   ? v.elements
                                   : int64_t{std::max(1, std::min(instr.rows, v.rows))} * v.columns;
      instr.bytes += 4 * elements;
    });
    procedure_.flops += instr.flops;
    procedure_.bytes += instr.bytes;
  }
}

Procedure Builder::finish() {
  drop_dead_code();
  place_values();
  count();
  return procedure_;
}

std::set<std::string> Builder::residuals_read() const {
  std::set<std::string> names;
  for (const Instr& instr : procedure_.code)
    visit_operands(instr, [&](const Ref& r, bool) {
      if (value(r).slot == Slot::residual) names.insert(value(r).name);
    });
  return names;
}

}  // namespace pymgan
