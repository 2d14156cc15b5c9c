// Sums over tasks, in the order of the tasks whichever thread has computed them, so that threads change no bit.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "../layout.h"
#include "../program.h"

namespace pymgan::cpu {

// Adds vectors [V][total] of every task to sums of the same shape. Each shard has a turn of its own: threads follow
// each other through the shards, one task behind the other.
template <class T>
class TaskSum {
 public:
  // kept: of each of the V vectors, which halves are summed.
  TaskSum(const Layout& layout, const std::vector<uint8_t>& kept) {
    for (int v = 0; v < static_cast<int>(kept.size()); ++v)
      for (Player p : kPlayers)
        if (kept[v] & (p == Player::generator ? kGenerator : kDiscriminator)) {
          const int64_t start = v * layout.total + layout.start[index(p)];
          for (int64_t at = 0; at < layout.size[index(p)]; at += kPiece)
            pieces_.emplace_back(start + at, std::min(kPiece, layout.size[index(p)] - at));
        }
  }

  // Waits until the tasks before `task` have been added. A weight of 0 leaves the task out, whatever its values.
  void add(int64_t task, double weight, const T* values, T* sums) {
    const T by = static_cast<T>(weight);
    for (int shard = 0; shard < kShards; ++shard) {
      std::atomic<int64_t>& turn = turns_[shard];
      for (int64_t now; (now = turn.load(std::memory_order_acquire)) != task;)
        turn.wait(now, std::memory_order_acquire);
      for (size_t i = shard; weight != 0 && i < pieces_.size(); i += kShards) {
        const auto [start, size] = pieces_[i];
        T* sum = sums + start;
        const T* value = values + start;
        for (int64_t n = 0; n < size; ++n) sum[n] += by * value[n];
      }
      turn.store(task + 1, std::memory_order_release);
      turn.notify_all();
    }
  }

 private:
  static constexpr int kShards = 8;
  static constexpr int64_t kPiece = 4096;
  std::vector<std::pair<int64_t, int64_t>> pieces_;  // start, size
  std::array<std::atomic<int64_t>, kShards> turns_{};
};

}  // namespace pymgan::cpu
