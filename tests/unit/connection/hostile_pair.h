// A pair whose one end is the victim, and the other end's mapping of the channel in the hands of an attacker.
#pragma once

#include <sys/mman.h>

#include <algorithm>

#include "stream_pair.h"

namespace shunt::testing {

class HostilePair {
 public:
  explicit HostilePair(Role victim_role)
      : victim(victim_role == Role::acceptor ? pair.acceptor : pair.connector),
        peer(victim_role == Role::acceptor ? pair.connector : pair.acceptor) {}

  // Both directions on the rings, with traffic behind them and `unread` bytes lying in each.
  void upgrade_with(size_t unread) {
    upgrade(pair);
    std::vector<char> block(std::max<size_t>(3000, unread), 'b');
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(write_to(peer, block.data(), 3000), 3000);
      EXPECT_EQ(read_from(victim, block.data(), 3000), 3000);
      EXPECT_EQ(write_to(victim, block.data(), 3000), 3000);
      EXPECT_EQ(read_from(peer, block.data(), 3000), 3000);
    }
    if (unread > 0) {
      EXPECT_EQ(write_to(peer, block.data(), unread), static_cast<long>(unread));
      EXPECT_EQ(write_to(victim, block.data(), unread), static_cast<long>(unread));
    }
    fence_off();
  }
  // The channel exists at both ends, but no fence is placed: data still goes through the kernel.
  void attach_only() {
    exchange_before_offer(pair.connector, pair.acceptor);
    char byte = 'x';
    EXPECT_EQ(write_to(pair.acceptor, &byte, 1), 1);
    EXPECT_EQ(read_from(pair.connector, &byte, 1), 1);
    for (const int fd : {victim, peer}) {
      const Pin pin(fd);
      ASSERT_TRUE(has_channel(*pin));
      ASSERT_EQ(pin->side->in_flow.load(), Flow::kernel);
    }
    fence_off();
  }

  Direction& to_victim() const { return *Pin(peer)->out; }
  Direction& from_victim() const { return *Pin(peer)->in; }
  ChannelHeader& header() const { return *reinterpret_cast<ChannelHeader*>(Pin(peer)->channel.load()); }

  // As a peer that dies: its library does nothing any more.
  void kill_peer() {
    if (peer_is_dead_) return;
    peer_is_dead_ = true;
    ::shutdown(peer, SHUT_RDWR);  // another thread may hold the file still
    int& fd = peer == pair.connector ? pair.connector : pair.acceptor;
    StreamPair::close_end(fd);
  }

  StreamPair pair;
  const int victim, peer;

 private:
  // Puts both parts of the victim's mapping between pages that nobody may touch.
  void fence_off() {
    const Pin pin(victim);
    Connection& c = *pin;
    uint8_t* const header = c.channel.load();
    const ptrdiff_t moved = move_behind_guards(header, kHeaderBytes) - header;
    c.in = reinterpret_cast<Direction*>(reinterpret_cast<uint8_t*>(c.in) + moved);
    c.out = reinterpret_cast<Direction*>(reinterpret_cast<uint8_t*>(c.out) + moved);
    c.channel.store(header + moved);
    uint8_t* const larger = std::min(c.in_region.area[1], c.out_region.area[1]);
    const ptrdiff_t moved_too = move_behind_guards(larger, kChannelBytes - kHeaderBytes) - larger;
    for (Region* region : {&c.in_region, &c.out_region}) {
      region->area[0] += moved;
      for (uint32_t k = 1; k < kClasses; ++k) region->area[k] += moved_too;
    }
  }
  static uint8_t* move_behind_guards(uint8_t* old, size_t bytes) {
    constexpr size_t kGuard = kChannelBytes;
    auto* area = static_cast<uint8_t*>(
        mmap(nullptr, bytes + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    EXPECT_EQ(mremap(old, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, area + kGuard), area + kGuard);
    return area + kGuard;
  }
  bool peer_is_dead_ = false;
};

}  // namespace shunt::testing
