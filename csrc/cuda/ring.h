// A warp's ring of shared memory, through which the blocks (blocks.h) of a weight in global memory come while it
// multiplies those before. A warp fills and reads its own, so that no warp waits for another.
//
// In memory: a barrier for each slot, the parities of their phases, and the slots. All lanes of the warp do the same.
#pragma once

#include "blocks.h"
#include "copies.h"

namespace pymgan::cuda::inline PYMGAN_SIDE {

inline constexpr int kMostSlots = 4;  // of a ring
inline constexpr int kRingHead = 12;  // floats before them
static_assert(kRingHead * sizeof(float) >= kMostSlots * sizeof(Barrier) + sizeof(uint32_t) && kRingHead % 4 == 0);

// Floats of a ring for this many blocks.
constexpr int ring_size(int blocks) { return kRingHead + blocks * kBlockSize; }

struct RingMemory {
  float* start;

  PYMGAN_DEVICE Barrier* barrier(int slot) const { return reinterpret_cast<Barrier*>(start) + slot; }
  PYMGAN_DEVICE uint32_t* parities() const { return reinterpret_cast<uint32_t*>(barrier(kMostSlots)); }
  PYMGAN_DEVICE float* block(int i) const { return start + kRingHead + i * kBlockSize; }
};

// While the warp works on a tile, which has this many blocks side by side; they are full.
template <int kSlotBlocks>
class Ring {
 public:
  PYMGAN_DEVICE Ring(Copies& copies, RingMemory memory, int slots) : copies_(copies), memory_(memory), slots_(slots) {}

  // The tile is of the rows from `first` on of a weight, or with `adjoint` the columns: the blocks along the
  // contraction, of one vector and then of another (null: there is none).
  PYMGAN_DEVICE void start(const Blocks& blocks, bool adjoint, int first, const float* one, const float* two) {
    const int at = adjoint ? first * kBlock : first * blocks.ld;
    from_ = (one ? one : two) + at;
    then_ = one && two ? two + at : nullptr;
    chunks_ = left_ = (adjoint ? blocks.n : blocks.ld) / kBlock;
    parities_ = *memory_.parities();
    for (int i = 0; i < slots_; ++i)
      if (adjoint)
        fill<true>(i, blocks.ld);
      else
        fill<false>(i, blocks.ld);
  }

  // The next of them have arrived: from at() on they lie, until end(), when all lanes have read them.
  PYMGAN_DEVICE void begin() {
    copies_.wait(memory_.barrier(now_), parities_ >> now_ & 1);
    parities_ ^= 1u << now_;
  }
  PYMGAN_DEVICE const float* at() const { return Copies::near(memory_.block(now_ * kSlotBlocks)); }
  template <bool kAdjoint>
  PYMGAN_DEVICE void end(int ld) {
    copies_.have_read();
    fill<kAdjoint>(now_, ld);
    now_ = now_ + 1 == slots_ ? 0 : now_ + 1;
  }

  // All that was asked for has been read; the next tile may use this memory.
  PYMGAN_DEVICE void stop() {
    copies_.close();
    one_lane([&] { *memory_.parities() = parities_; });
    copies_.have_read();
  }

 private:
  // A free slot, with the next blocks; after the last nothing.
  template <bool kAdjoint>
  PYMGAN_DEVICE void fill(int slot, int ld) {
    if (left_ == 0) return;
    const int right = kBlockSize, down = kBlock * ld;  // from a block to the next
    constexpr int bytes = kBlockSize * sizeof(float);
    Barrier* barrier = memory_.barrier(slot);
    copies_.announce(barrier, kSlotBlocks * bytes);
    for (int i = 0; i < kSlotBlocks; ++i)
      copies_.copy(memory_.block(slot * kSlotBlocks + i), from_ + i * (kAdjoint ? right : down), bytes, barrier);
    copies_.sent(barrier);
    from_ += kAdjoint ? down : right;
    if (--left_ == 0 && then_) from_ = then_, then_ = nullptr, left_ = chunks_;
  }

  Copies& copies_;
  RingMemory memory_;
  int slots_;
  uint32_t parities_ = 0;  // of the phases to come
  int now_ = 0;
  const float *from_ = nullptr, *then_ = nullptr;
  int chunks_ = 0, left_ = 0;
};

// The rings of a block's warps, one after the other.
class Rings {
 public:
  // memory: [kWarps][ring_size(blocks)], shared; blocks: 0: there are none
  PYMGAN_DEVICE Rings(Block& block, float* memory, int blocks) : copies_(block), memory_(memory), blocks_(blocks) {
    if (blocks_ == 0) return;
    each_warp([&](int warp) {
      const RingMemory own = of(warp);
      for (int slot = 0; slot < kMostSlots; ++slot) copies_.init(own.barrier(slot));
      one_lane([&] { *own.parities() = 0; });
      copies_.have_read();
    });
  }

  // Whether they have two slots or more of so many blocks.
  PYMGAN_DEVICE bool have(int slot_blocks) const { return blocks_ >= 2 * slot_blocks; }
  PYMGAN_DEVICE void see_writes() { copies_.see_writes(); }
  // Of the warp that works on i.
  template <int kSlotBlocks>
  PYMGAN_DEVICE Ring<kSlotBlocks> ring(int i) {
    const int slots = blocks_ / kSlotBlocks;
    return {copies_, of(warp_of(i)), slots < kMostSlots ? slots : kMostSlots};
  }

 private:
  PYMGAN_DEVICE RingMemory of(int warp) const { return {memory_ + warp * ring_size(blocks_)}; }

  Copies copies_;
  float* memory_;
  int blocks_;
};

}  // namespace pymgan::cuda::inline PYMGAN_SIDE
