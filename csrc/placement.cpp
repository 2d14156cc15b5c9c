// The end of a Procedure's making: transposed weights, the arena, FLOPs and bytes.
#include "placement.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "graph.h"

namespace pymgan {

Procedure Graph::finish() {
  fuse();
  bring_transposed();
  place_values();
  count();
  return procedure_;
}

// Cotangents go through W as products with W want it: transposed into a temp once per version of the parameters. And
// products through a window get room for what a tile sees.
void Graph::bring_transposed() {
  std::map<std::pair<int, int>, Ref> transposed;
  std::vector<Instr> code;
  auto back = [&](Ref& r) {
    const Tensor& tensor = layout.tensors[r.tensor];
    if (!r || !layout.target.packed || (tensor.window < 0 && (tensor.by_rows || tensor.k <= layout.target.narrow)))
      return;
    auto [at, fresh] = transposed.try_emplace({r.value, r.tensor});
    if (fresh) {
      Value v;
      v.name = value(r).name + "." + std::to_string(r.tensor) + "^T";
      v.rows = tensor.n;
      v.columns = tensor.inputs();
      Tensor turned = tensor;  // the roles of inputs and outputs are exchanged
      std::swap(turned.n, turned.k);
      turned.by_rows = turned.n <= layout.target.narrow;
      v.elements = layout.target.pad(layout.packed_weight_size(turned));
      Instr instr;  // whoever is active may come to use it
      instr.op = Op::transpose;
      instr.a0 = r;
      instr.rows = tensor.n;
      instr.columns = tensor.inputs();
      instr.out = add_value(std::move(v));
      instr.out.tensor = r.tensor;
      at->second = instr.out;
      code.push_back(std::move(instr));
    }
    r = at->second;
  };
  for (Instr& instr : procedure_.code) {
    if (instr.op == Op::product && instr.adjoint) {
      if (instr.b0) back(instr.b0);
      if (instr.b1) back(instr.b1);
    }
    if (instr.op == Op::product && instr.window >= 0 && layout.target.packed) {
      // Rows of a tile, each with what its site sees, for both terms; and as much of a narrow weight.
      const Windows& w = layout.windows[instr.window];
      const int64_t row = layout.target.pad((instr.adjoint ? w.back : w.forward).most_taps * instr.depth);
      instr.scratch = scratch("window", 2 * (kWindowTile + layout.target.narrow) * row);
    }
    if (instr.op == Op::product && instr.dot_out && layout.target.tile > 0) {
      // Of each row, which may be one of several sites, and tile.
      const int sites = instr.window >= 0 ? layout.windows[instr.window].forward.out_sites : 1;
      const int tiles = (layout.tensors[instr.b0.tensor].n + layout.target.tile - 1) / layout.target.tile;
      instr.scratch = scratch("dots", int64_t{instr.rows} * sites * tiles);
    }
    if (instr.op == Op::softmax && layout.target.packed)
      instr.scratch = scratch("softmax", 2 * layout.groups[instr.map].count);
    if (instr.op == Op::diagonal && layout.target.packed)
      instr.scratch = scratch("numbers", 3 * layout.target.pad(instr.columns));
    visit_operands(instr, [&](const Ref& r, bool written) {
      if (written && value(r).shape == Shape::parameters)
        std::erase_if(transposed, [&](const auto& entry) { return entry.first.first == r.value; });
    });
    code.push_back(std::move(instr));
  }
  procedure_.code = std::move(code);
}

Placement place(const Procedure& procedure, int64_t slice) {
  const auto& values = procedure.values;
  const int end = static_cast<int>(procedure.code.size());
  auto size_of = [&](int i) { return (values[i].elements + 15) / 16 * 16; };
  std::vector<std::pair<int, int>> live(values.size(), {end, -1});
  for (int i = 0; i < end; ++i)
    visit_operands(procedure.code[i], [&](const Ref& r, bool) {
      live[r.value].first = std::min(live[r.value].first, i);
      live[r.value].second = std::max(live[r.value].second, i);
    });
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(values.size()); ++i)
    if (values[i].slot == Slot::temp && live[i].second >= 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a].elements > values[b].elements; });
  Placement p;
  p.offset.assign(values.size(), -1);
  std::vector<int> placed;
  for (int i : order) {
    const int64_t size = size_of(i);
    if (slice > 0 && size > slice) p.fits = false;
    int64_t at = 0;
    for (bool moved = true; moved;) {
      moved = false;
      if (slice > 0 && p.fits && at / slice != (at + size - 1) / slice) at = (at / slice + 1) * slice;
      for (int j : placed) {
        const bool overlap = live[i].first <= live[j].second && live[j].first <= live[i].second;
        const int64_t other = p.offset[j], other_end = other + size_of(j);
        if (overlap && at < other_end && other < at + size) {
          at = other_end;
          moved = true;
        }
      }
    }
    p.offset[i] = at;
    p.arena = std::max(p.arena, at + size);
    placed.push_back(i);
  }
  return p;
}

void Graph::place_values() {
  auto& values = procedure_.values;
  if (keep == Keep::read && residuals)
    for (const Instr& instr : procedure_.code)
      visit_operands(instr, [&](const Ref& r, bool) {
        if (value(r).slot == Slot::residual && value(r).offset < 0)
          throw std::logic_error("program: no step keeps " + value(r).name);
      });
  const Placement p = place(procedure_);
  for (size_t i = 0; i < values.size(); ++i)
    if (p.offset[i] >= 0) values[i].offset = p.offset[i];
  procedure_.arena = p.arena;
}

// Products of one number with another that a weight takes for one sample.
int64_t Graph::products_a_sample(const Instr& instr, const Ref& weight) const {
  const Tensor& t = layout.tensors[weight.tensor];
  return int64_t{t.n} * t.k * (instr.window < 0 ? 1 : layout.windows[instr.window].forward.pairs());
}

void Graph::count() {
  for (Instr& instr : procedure_.code) {
    if (instr.op == Op::product) {
      const int64_t each = 2 * instr.rows * products_a_sample(instr, instr.b0 ? instr.b0 : instr.b1);
      instr.flops = (instr.a0 ? each : 0) + (instr.a1 ? each : 0);
    } else if (instr.op == Op::outer && !layout.tensors[instr.out.tensor].diagonal()) {
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

std::set<std::string> Graph::residuals_read() const {
  std::set<std::string> names;
  for (const Instr& instr : procedure_.code)
    visit_operands(instr, [&](const Ref& r, bool) {
      if (value(r).slot == Slot::residual) names.insert(value(r).name);
    });
  return names;
}

}  // namespace pymgan
