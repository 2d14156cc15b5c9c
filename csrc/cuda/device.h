// Launches on a device: one for a whole call, a block a task. All memory is the caller's.
#pragma once

#include <cstdint>

#include "launch.h"

namespace pymgan::cuda {

// Bytes of shared memory that a block of the kernel may have for its temps on this device; throws std::runtime_error.
int64_t shared_bytes(int device);

// On a stream of the device (cudaStream_t); every pointer of launch and call is the device's. Temps live in shared
// memory where `launch.arena_shared` says so, which shared_bytes() must allow. Throws std::runtime_error.
void adapt(const Launch& launch, const cpu::AdaptCall<float>& call, void* stream);
void pullback(const Launch& launch, const PullArguments& call, void* stream);
void gradients(const Launch& launch, const cpu::GradientsCall<float>& call, void* stream);
void generate(const Launch& launch, const cpu::GenerateCall<float>& call, void* stream);
void noise(const NoiseCall& call, void* stream);

}  // namespace pymgan::cuda
