// Writes a Procedure: makes values, emits instructions, then drops what nobody reads, lays the arena out by liveness
// and counts FLOPs and bytes.
#pragma once

#include <map>
#include <set>
#include <string>

#include "program.h"

namespace pymgan {

class Builder {
 public:
  // moments: of the optimisers
  Builder(std::string name, const Layout& layout, int moments = 0);

  const Layout& layout;
  uint8_t players = kBoth;  // tag of the instructions that follow

  // How values named by kept() are stored: everything in the arena; the ones in `residuals` kept; or read back from
  // there.
  enum class Keep { none, write, read };
  Keep keep = Keep::none;
  const std::map<std::string, int64_t>* residuals = nullptr;

  Ref rows(const std::string& name, int rows, int columns);
  Ref vector(const std::string& name, int rows);
  Ref statistics(const std::string& name);                          // of a head, for the trace
  Ref scratch(const std::string& name, int64_t elements);           // in the arena
  void through_window(Instr& product, int window);                  // makes its contraction one over the window's taps
  Ref parameters(const std::string& name, Player player);           // in the arena
  Ref external(Slot slot, const std::string& name, int index = 0);  // of both players
  Ref moments(Slot slot, const std::string& name, int index = 0);   // of both players, all that the optimisers have
  // A residual of the forward pass: a temp, or a slot in the residual block (see Keep).
  Ref kept(Ref value);
  bool primal = false;  // emit() is inside the primal computation: what it has kept already is not made again

  // One tensor of a parameter-shaped value.
  Ref tensor(Ref parameters, int tensor) const;
  // The same, as products with W want it: transposed into a temp once per version of the parameters.
  Ref tensor_back(Ref parameters, int tensor);
  void forget_transposed(Ref parameters);  // the parameters have changed

  Instr& emit(Instr instr);
  const Value& value(Ref r) const { return procedure_.values[r.value]; }

  Procedure finish();
  std::set<std::string> residuals_read() const;  // names, after finish()

 private:
  Ref add(Value value);
  Ref external(Slot slot, const std::string& name, int index, int vectors);
  void drop_dead_code();
  void place_values();
  void count();
  int64_t products_a_sample(const Instr& instr, const Ref& weight) const;

  int moments_;
  Procedure procedure_;
  Instr dropped_;
  std::map<std::pair<int, int>, Ref> transposed_;
};

// `r`, from row `row` on.
inline Ref from_row(Ref r, int row, const Layout& layout, int columns) {
  r.row += row;
  r.offset += row * layout.target.pad(columns);
  return r;
}

}  // namespace pymgan
