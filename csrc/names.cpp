#include "names.h"

#include <map>
#include <stdexcept>

namespace pymgan {

Activation activation_of(const std::string& name) {
  static const std::map<std::string, Activation> names{
      {"identity", Activation::identity}, {"leaky_relu", Activation::leaky_relu},
      {"relu", Activation::relu},         {"elu", Activation::elu},
      {"silu", Activation::silu},         {"softplus", Activation::softplus},
      {"tanh", Activation::tanh},         {"sigmoid", Activation::sigmoid},
      {"gelu", Activation::gelu},         {"gelu_tanh", Activation::gelu_tanh}};
  if (auto at = names.find(name); at != names.end()) return at->second;
  throw std::invalid_argument("plan: unknown activation '" + name + "'");
}

Loss loss_of(const std::string& name) {
  static const std::map<std::string, Loss> names{
      {"nonsaturating", Loss::nonsaturating}, {"saturating", Loss::saturating},
      {"relativistic", Loss::relativistic},   {"hinge", Loss::hinge},
      {"least_squares", Loss::least_squares}, {"wasserstein", Loss::wasserstein}};
  if (auto at = names.find(name); at != names.end()) return at->second;
  std::string known;
  for (const auto& [key, value] : names) known += (known.empty() ? "" : ", ") + key;
  throw std::invalid_argument("loss: expected one of " + known + ", got '" + name + "'");
}

PenaltyKind penalty_of(const std::string& name) {
  static const std::map<std::string, PenaltyKind> names{{"none", PenaltyKind::none},
                                                        {"r1", PenaltyKind::r1},
                                                        {"r2", PenaltyKind::r2},
                                                        {"wgan_gp", PenaltyKind::wgan_gp},
                                                        {"zero_centred", PenaltyKind::zero_centred}};
  if (auto at = names.find(name); at != names.end()) return at->second;
  throw std::invalid_argument("penalty: unknown kind '" + name + "'");
}

Augmentation augmentation_of(const std::vector<std::string>& names) {
  static const std::map<std::string, bool Augmentation::*> known{{"brightness", &Augmentation::brightness},
                                                                 {"translation", &Augmentation::translation},
                                                                 {"cutout", &Augmentation::cutout}};
  Augmentation augmentation;
  for (const std::string& name : names) {
    const auto at = known.find(name);
    if (at == known.end()) throw std::invalid_argument("augment: unknown augmentation '" + name + "'");
    augmentation.*at->second = true;
  }
  return augmentation;
}

}  // namespace pymgan
