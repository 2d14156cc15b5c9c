// Epilogues: what happens to accumulated rows before they are stored (Apply in plan.h). One function for each
// activation and Apply; it is chosen once a kernel and then run on tiles.
#pragma once

#include "../formulas.h"
#include "simd_math.h"

namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE {
namespace {

// `rows` x `width` accumulators at src, which belong at `offset` of the epilogue's [M][ld] buffers. scale: [rows] or
// null. Reads of a vector come before its writes, so any output may be any input.
template <class T>
struct Block {
  const T* src;
  int64_t src_row;
  const T* scale;
  int64_t offset;
  int rows;
  int64_t width;                     // a multiple of kLanes
  const int64_t* offsets = nullptr;  // of every row, in place of `offset` and ld
};

template <class T>
using ApplyBlock = void (*)(const Epilogue<T>&, const Block<T>&);

template <class T, Apply kApply, class F, bool kSecond>
void apply_block(const Epilogue<T>& epilogue, const Block<T>& whole) {
  const Epilogue<T> e = epilogue;  // copies: the stores below cannot change them
  const Block<T> block = whole;
  const Vec<T> p0(e.attributes[0]), p1(e.attributes[1]);
  for (int m = 0; m < block.rows; ++m) {
    const T* src = block.src + m * block.src_row;
    const int64_t row = block.offsets ? block.offsets[m] + block.offset : block.offset + m * e.ld;
    for (int64_t n = 0; n < block.width; n += Vec<T>::kWidth) {
      const int64_t at = row + n;
      Vec<T> acc = Vec<T>::load(src + n);
      if (block.scale) acc = acc * Vec<T>::broadcast(block.scale + m);
      Vec<T> out = acc;
      if constexpr (kApply == Apply::act) out = F::value(acc, p0, p1);
      if constexpr (kApply == Apply::chain || kApply == Apply::chain2) {
        const auto d = F::derivatives(Vec<T>::load(e.ref + at), p0, p1);
        out = d.first * acc;
        // Rounded like the single operations, which it takes where a part of it is wanted elsewhere too.
        if constexpr (kSecond) out = out + d.second * (Vec<T>::load(e.q + at) * Vec<T>::load(e.g + at));
      }
      if (e.pre) acc.store(e.pre + at);
      if (e.out) out.store(e.out + at);
    }
  }
}

template <class T>
ApplyBlock<T> apply_of(const Epilogue<T>& e) {
  if (e.apply == Apply::store) return &apply_block<T, Apply::store, formulas::Identity, false>;
  return formulas::visit(e.activation, [&](auto f) -> ApplyBlock<T> {
    using F = decltype(f);
    if (e.apply == Apply::act) return &apply_block<T, Apply::act, F, false>;
    if (e.apply == Apply::chain2 && e.q && e.g) return &apply_block<T, Apply::chain2, F, true>;
    return &apply_block<T, Apply::chain, F, false>;
  });
}

// out = f^(order)(src)
template <class T, class F, int kOrder>
void derivative_block(const Epilogue<T>& epilogue, const Block<T>& whole) {
  const Epilogue<T> e = epilogue;
  const Block<T> block = whole;
  const Vec<T> p0(e.attributes[0]), p1(e.attributes[1]);
  for (int m = 0; m < block.rows; ++m)
    for (int64_t n = 0; n < block.width; n += Vec<T>::kWidth) {
      const auto d = F::derivatives(Vec<T>::load(block.src + m * block.src_row + n), p0, p1);
      (kOrder == 1 ? d.first : kOrder == 2 ? d.second : d.third).store(e.out + block.offset + m * e.ld + n);
    }
}

template <class T>
ApplyBlock<T> derivative_of(const Epilogue<T>& e, int order) {
  return formulas::visit(e.activation, [&](auto f) -> ApplyBlock<T> {
    using F = decltype(f);
    return order == 1   ? &derivative_block<T, F, 1>
           : order == 2 ? &derivative_block<T, F, 2>
                        : &derivative_block<T, F, 3>;
  });
}

// Epilogues of a few instructions, which a product runs on its accumulators before they are ever stored; `none` of
// these: the tile goes through a buffer and apply_of. Only float, and only what networks use most: each is one more
// copy of every tile.
enum class Fused : uint8_t { none, store, leaky_relu, relu, leaky_relu_chain };

// between: the product has something between its terms; fewer tiles are made for those.
template <class T>
Fused fused(const Epilogue<T>& e, bool between) {
  if (e.pre || !e.out) return Fused::none;
  if (e.apply == Apply::store) return Fused::store;
  const bool act = e.apply == Apply::act, bent = e.apply == Apply::chain2 && e.q && e.g;
  if (sizeof(T) != 4 || bent) return Fused::none;
  if (e.activation == Activation::leaky_relu && !(act && between))
    return act ? Fused::leaky_relu : Fused::leaky_relu_chain;
  if (e.activation == Activation::relu && act && !between) return Fused::relu;
  return Fused::none;
}

template <class T, Fused kFused>
PYMGAN_INLINE Vec<T> apply_fused(Vec<T> acc, Vec<T> p0, const T* ref) {
  if constexpr (kFused == Fused::leaky_relu) return formulas::LeakyReLU::value(acc, p0, p0);
  if constexpr (kFused == Fused::relu) return formulas::ReLU::value(acc, p0, p0);
  if constexpr (kFused == Fused::leaky_relu_chain)
    return formulas::LeakyReLU::derivatives(Vec<T>::load(ref), p0, p0).first * acc;
  return acc;
}

}  // namespace
}  // namespace pymgan::cpu::PYMGAN_ISA_NAMESPACE
