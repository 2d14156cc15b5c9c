// What Python calls things; an unknown name throws std::invalid_argument.
#pragma once

#include <string>
#include <vector>

#include "augmentation.h"
#include "plan.h"

namespace pymgan {

Activation activation_of(const std::string& name);
Loss loss_of(const std::string& name);
PenaltyKind penalty_of(const std::string& name);
Augmentation augmentation_of(const std::vector<std::string>& names);

}  // namespace pymgan
