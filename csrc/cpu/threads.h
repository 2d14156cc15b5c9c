// Tasks over threads. Threads live for one call: nothing to shut down, and a fork is safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace pymgan::cpu {

// Calls body(task, thread) once for every task; which thread takes it must not matter to the result.
template <class Body>
void parallel_for(int64_t tasks, int threads, Body&& body) {
  const int64_t wanted = threads < tasks ? threads : tasks;
  if (wanted <= 1) {
    for (int64_t t = 0; t < tasks; ++t) body(t, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  auto work = [&](int thread) {
    for (int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(t, thread);
  };
  std::vector<std::jthread> others;
  others.reserve(wanted - 1);
  for (int i = 1; i < wanted; ++i) others.emplace_back(work, i);
  work(0);
}

}  // namespace pymgan::cpu
