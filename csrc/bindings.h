// What Python sees of the compiled core beside its engines. Only bindings*.cpp and this header know pybind11.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "program.h"

// Plans, games, programs and what they consist of.
void bind_program(pybind11::module_& m);
// The formulas as nested tuples, for engines that are not compiled from them.
void bind_formulas(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);

std::vector<pymgan::Halves> halves_of(const std::vector<std::string>& support, const std::vector<std::string>& keep);
