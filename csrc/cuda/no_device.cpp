// A build without nvcc.
#include <stdexcept>

#include "launcher.h"

namespace pymgan::cuda {

std::vector<std::string> device_targets() { return {}; }

std::unique_ptr<Launcher> device_launcher(int) {
  throw std::runtime_error("[cuda] expected a build with nvcc, got one without its kernels");
}

}  // namespace pymgan::cuda
