// Every instruction set that this machine can execute; the others must refuse to be chosen.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

#include "check.h"
#include "cpu/kernels.h"

template <class Body>
void for_every_isa(const Body& body) {
  int count;
  const pymgan::cpu::Isa* sets = pymgan::cpu::isas(&count);
  for (int i = 0; i < count; ++i) {
    if (sets[i].supported()) {
      body(sets[i]);
      std::printf("%s: done\n", sets[i].name);
      continue;
    }
    std::printf("%s: not executable here, skipped\n", sets[i].name);
    bool refused = false;
    try {
      pymgan::cpu::chosen_isa(sets[i].name);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    check::that(refused, std::string(sets[i].name) + ": a set that is not executable must be refused");
  }
}
