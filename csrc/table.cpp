// print(engine.program): a Procedure as a table a person can read.
#include <cstdio>
#include <sstream>

#include "program.h"

namespace pymgan {
namespace {

std::string text(const Procedure& p, const Ref& r) {
  const Value& v = p.values[r.value];
  std::string s = v.name;
  if (r.tensor >= 0 && v.shape == Shape::parameters) s += "[" + std::to_string(r.tensor) + "]";
  if (r.row > 0) s += "+" + std::to_string(r.row);
  return s;
}

const char* const kApply[] = {"", "f", "f'", "f'+f''"};
const char* const kActivation[] = {"",     "leaky_relu", "relu", "elu",       "silu",      "softplus",
                                   "tanh", "sigmoid",    "gelu", "gelu_tanh", "min(0, .)", "1/sqrt"};

std::string formula(const Procedure& p, const Instr& i) {
  auto t = [&](const Ref& r) { return text(p, r); };
  std::string s;
  switch (i.op) {
    case Op::product: {
      const std::string back = i.adjoint ? "" : "^T";
      if (i.a0) {
        s = t(i.a0) + " " + t(i.b0) + back;
        if (i.bias) s += " + bias";
        if (i.scale) s.insert(0, t(i.scale) + " (").push_back(')');
      }
      if (i.a1) s += (s.empty() ? "" : " + ") + t(i.a1) + " " + t(i.b1) + back;
      break;
    }
    case Op::diagonal:
      s = t(i.b0) + " " + t(i.a0);
      if (i.bias) s += " + bias";
      if (i.scale) s.insert(0, t(i.scale) + " (").push_back(')');
      if (i.a1) s += " + " + t(i.b1) + " " + t(i.a1);
      break;
    case Op::fixed:
      s = "map " + std::to_string(i.map) + (i.adjoint ? "^T " : " ") + t(i.a0);
      break;
    case Op::outer:
      s = t(i.b0) + "^T " + t(i.a0);
      if (i.a1) s += " + " + t(i.b1) + "^T " + t(i.a1);
      if (i.out.bias_offset >= 0) s += ", bias";
      break;
    case Op::combine:
      if (i.a0) s = t(i.a0) + " " + t(i.b0);
      if (i.a1) s += (s.empty() ? "" : " + ") + t(i.a1) + " " + t(i.b1);
      break;
    case Op::elementwise:
      s = t(i.a0);
      if (i.b0) s += " " + t(i.b0);
      if (i.scale) s.insert(0, t(i.scale) + " ");
      if (i.a1) s += " + " + t(i.a1);
      break;
    case Op::augment:
      s = (i.adjoint ? "A^T(" : i.bias ? "A + b(" : "A(") + t(i.a0) + ") by " + t(i.b0);
      break;
    case Op::row_dot:
      s = "<" + t(i.a0) + ", " + t(i.b0) + ">";
      break;
    default:
      if (i.scale) s = t(i.scale) + " ";
      for (const Ref* r : {&i.a0, &i.moment, &i.theta, &i.v})
        if (*r) s += (s.empty() || s.back() == ' ' ? "" : ", ") + t(*r);
  }
  if (i.apply != Apply::store) {
    s = std::string(kApply[static_cast<int>(i.apply)]) + std::string(i.order, '\'') + "[" +
        kActivation[static_cast<int>(i.activation)] + "](" + s + ")";
    if (i.ref && i.apply != Apply::act) s += " at " + t(i.ref);
  }
  return s;
}

}  // namespace

std::string Procedure::table() const {
  std::ostringstream out;
  char line[512];
  std::snprintf(line, sizeof line, "%s: %zu instructions, %.3f MFLOP, %.1f kB moved, arena %lld elements\n",
                name.c_str(), code.size(), flops * 1e-6, bytes * 1e-3, static_cast<long long>(arena));
  out << line;
  std::snprintf(line, sizeof line, "%4s %-3s %-16s %-11s %-22s %10s %9s  %s\n", "#", "who", "op", "shape", "to",
                "kFLOP", "arena", "from");
  out << line;
  for (size_t n = 0; n < code.size(); ++n) {
    const Instr& i = code[n];
    const char* who = i.players == kBoth ? "GD" : i.players == kGenerator ? "G" : "D";
    std::string shape = std::to_string(i.rows) + "x" + std::to_string(i.columns), to, arena;
    bool first = true;
    visit_operands(i, [&](const Ref& r, bool written) {
      if (!written) return;
      to += (first ? "" : ", ") + text(*this, r);
      if (first && values[r.value].slot == Slot::temp) arena = std::to_string(values[r.value].offset);
      first = false;
    });
    if (i.accumulate) to += " +=";
    std::snprintf(line, sizeof line, "%4zu %-3s %-16s %-11s %-22s %10.1f %9s  ", n, who, pymgan::name(i.op),
                  shape.c_str(), to.c_str(), i.flops * 1e-3, arena.c_str());
    out << line << formula(*this, i) << '\n';
  }
  return out.str();
}

}  // namespace pymgan
