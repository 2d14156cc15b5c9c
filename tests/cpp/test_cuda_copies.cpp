// The host's emulation of copies that go on while a warp computes: it must find what would go wrong on a device.
#include <cmath>
#include <stdexcept>
#include <string>

#include "check.h"
#include "cuda/ring.h"

using namespace pymgan::cuda;

namespace {

struct alignas(16) Memory {
  float from[8] = {1, 2, 3, 4, 5, 6, 7, 8}, to[8] = {};
  Barrier barrier{};
};

template <class F>
void throws(const std::string& what, F f) {
  std::string said;
  try {
    f();
  } catch (const std::logic_error& error) {
    said = error.what();
  }
  check::that(said.find(what) != std::string::npos, "expected '" + what + "', got '" + said + "'");
}

// What is seen of a copy before somebody waits: NaN or all of it, each now and then.
void before_a_wait() {
  int early = 0, late = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Block block(1 + seed * 7919, nullptr, 0, 1);
    Copies copies(block);
    Memory m;
    copies.init(&m.barrier);
    copies.announce(&m.barrier, 32);
    copies.copy(m.to, m.from, 16, &m.barrier);
    copies.copy(m.to + 4, m.from + 4, 16, &m.barrier);
    copies.sent(&m.barrier);
    for (int i = 0; i < 8; ++i) (m.to[i] == m.from[i] ? early : late) += 1, check::that(m.to[i] != 0, "expected NaN");
    copies.wait(&m.barrier, 0);
    for (int i = 0; i < 8; ++i) check::that(m.to[i] == m.from[i], "it had not arrived after the wait");
    copies.close();
  }
  check::that(early > 0 && late > 0, "expected copies that arrive at once, and others that do not");
}

void mistakes() {
  Block block(1, nullptr, 0, 1);
  Memory m;
  throws("not initialised", [&] { Copies(block).wait(&m.barrier, 0); });
  Copies::init(&m.barrier);
  throws("never end", [&] { Copies(block).wait(&m.barrier, 0); });
  Copies(block).wait(&m.barrier, 1);  // the phase before the first is over
  throws("aligned", [&] { Copies(block).copy(m.to, m.from + 1, 16, &m.barrier); });
  throws("aligned", [&] { Copies(block).copy(m.to, m.from, 8, &m.barrier); });
  throws("nobody has waited", [&] {
    for (;;) {  // until one is late
      Copies copies(block);
      Copies::init(&m.barrier);
      copies.announce(&m.barrier, 16);
      copies.copy(m.to, m.from, 16, &m.barrier);
      copies.close();
    }
  });
  throws("more has arrived", [&] {
    Copies copies(block);
    Copies::init(&m.barrier);
    copies.announce(&m.barrier, 16);
    copies.copy(m.to, m.from, 32, &m.barrier);
    copies.wait(&m.barrier, 0);
  });
  throws("never end", [&] {
    Copies copies(block);
    Copies::init(&m.barrier);
    copies.announce(&m.barrier, 32);
    copies.copy(m.to, m.from, 16, &m.barrier);
    copies.wait(&m.barrier, 0);
  });
  throws("announced twice", [&] {
    Copies copies(block);
    Copies::init(&m.barrier);
    copies.announce(&m.barrier, 16);
    copies.announce(&m.barrier, 16);
  });
}

// Every element of a weight has a place of its own, and a block's are one piece.
void places() {
  for (int n : {1, 15, 16, 32, 48})
    for (int ld : {4, 16, 20, 48}) {
      const Blocks blocks{n, ld};
      std::vector<int> seen(n * ld, 0);
      for (int row = 0; row < n; ++row)
        for (int column = 0; column < ld; ++column) {
          const int at = blocks.at(row, column);
          check::that(at >= 0 && at < n * ld && ++seen[at] == 1, "an element's place");
          const int block = row / kBlock * (ld / kBlock) + column / kBlock;
          if (blocks.blocked()) check::that(at / kBlockSize == block, "a block is not in one piece");
          if (column % 4 > 0) check::that(at == blocks.at(row, column - 1) + 1, "a quad is not in one piece");
          if (column >= kBlock)
            check::that(at == blocks.at(row, column - kBlock) + kBlock * blocks.along(), "the same, a block before");
          if (row % 4 > 0) check::that(at == blocks.at(row - 1, column) + blocks.down(), "the row before");
        }
    }
}

}  // namespace

int main() {
  before_a_wait();
  mistakes();
  places();

  return check::report();
}
