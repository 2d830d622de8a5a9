// The channel: the whole contract between the two ends of one connection.
// Any thread, signal handlers included. Pure memory: this file makes no call of any kind.
// A field has ONE writing end; the other end treats what it reads as a guest: copy once, check, use the copy.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace shunt {

inline constexpr uint64_t kChannelMagic = 0x314c4e4e48435453;  // "STCHNNL1"
inline constexpr uint32_t kChannelVersion = 4;
inline constexpr size_t kLine = 64;

// A ring has an area of its own for each size (class) that it may take. It starts in the smallest, which lies beside the header, in one page.
//
//   0        896      1024      2048      3072      4096
//   | header |        | to the  | to the  |         | the larger areas to the connector | those to the acceptor |
//   |        |        |connector| acceptor|         |  16 KiB  |  256 KiB  |   1 MiB    |  the same             |
inline constexpr uint32_t kClasses = 4;
inline constexpr uint32_t kLastClass = kClasses - 1;
inline constexpr uint32_t kClassBits[kClasses] = {10, 14, 18, 20};  // 1 KiB, 16 KiB, 256 KiB, 1 MiB
inline constexpr size_t kHeaderBytes = 4096;  // mapped by itself: the header pages of many channels share one page of page table
inline constexpr size_t kFirstAreaAt = 1024;
constexpr size_t larger_areas_before(uint32_t ring_class) {
  size_t bytes = 0;
  for (uint32_t k = 1; k < ring_class; ++k) bytes += size_t{1} << kClassBits[k];
  return bytes;
}
inline constexpr size_t kLargerBytes = larger_areas_before(kClasses);  // of one direction
inline constexpr size_t kChannelBytes = kHeaderBytes + 2 * kLargerBytes;
inline constexpr size_t kMostUnread = kLargerBytes + (size_t{1} << kClassBits[0]);  // what one ring can hold in all its areas
inline constexpr uint64_t kNever = ~uint64_t{0};
inline constexpr uint64_t kBellsTaken = uint64_t{1} << 32;  // in bells_final

// Writer's state of one direction, in the order it goes through. Never goes back.
enum class Stage : uint32_t {
  kernel = 0,
  ring = 1,
  kernel_again = 2,  // after a down-fence
  put_back = 3,      // after Ask::put_back: what the reader left in the ring was sent through the kernel
};

// What an end asks of the writer at the other end.
enum class Ask : uint32_t {
  nothing = 0,
  demote = 1,
  frozen = 2,      // write nothing more, neither here nor to the kernel
  put_back = 3,    // after frozen: who asks has taken what lay in the kernel; put back what is unread
  taken_over = 4,  // after frozen: what is unread is delivered by who asks; put nothing back any more
};

// Why an end is gone, as gone_writer and gone_reader tell it.
enum Gone : uint32_t { kHere = 0, kShutDown = 1, kClosed = 2 };

// When a write was published, by the cycle counter, and the position behind it.
struct Publication {
  std::atomic<uint64_t> at;
  std::atomic<uint64_t> end;
};
inline constexpr uint32_t kPublications = 4;

// One direction, X writes and Y reads.
struct Direction {
  // --- line 0: written by X on every write, read by Y on every read.
  alignas(kLine) std::atomic<uint64_t> tail;  // bytes published. SYNC: release here / acquire in Y's read
  std::atomic<uint64_t> class_from[kLastClass];  // [k - 1]: the position from which class k holds, kNever: none; published by class_next
  std::atomic<uint32_t> class_next;  // the largest class with a position. SYNC: release here / acquire in Y's read
  std::atomic<uint32_t> writer_cpu;  // 1 + the CPU on which X last waited, 0: unknown; a hint for Y's patience
  // --- line 1: written by X, seldom.
  alignas(kLine) std::atomic<Stage> stage;   // SYNC: release here / acquire in Y's read; publishes the totals below
  std::atomic<uint32_t> bells_rung;          // number of the last bell X→Y, from 1 on, published before it is sent: a byte, the low bits of number - 1
  std::atomic<uint64_t> kernel_total;        // up-fence: bytes X sent through the kernel before the ring
  std::atomic<uint64_t> demote_at;           // down-fence: ring position after which X uses the kernel; in a frozen ring: up to where X put back
  std::atomic<uint32_t> space_arm;           // (sequence << 1 | armed): X sleeps until this ring has space
  std::atomic<uint32_t> gone_writer;         // X closed, or shut its writing down (hint: the kernel decides)
  std::atomic<uint64_t> bells_final;         // down-fence: number of the last bell; published by stage. X repeats a bell that may never have been sent under
                                             // a new number, until Y has found it and adds kBellsTaken: both by compare-exchange. The one word that both write
  // --- line 2: written by Y on every read, read by X when its known space runs out.
  alignas(kLine) std::atomic<uint64_t> head;  // bytes consumed. SYNC: release here / acquire in X's write
  // --- line 3: written by Y, seldom; X reads it on every write, so it stays in X's cache.
  alignas(kLine) std::atomic<uint32_t> data_arm;  // (sequence << 1 | armed): Y sleeps until this ring has data
  std::atomic<Ask> ask;                           // Y asks X to leave the ring
  std::atomic<uint32_t> gone_reader;              // Y closed, or shut its reading down (hint)
  std::atomic<uint32_t> passed;                   // Y has taken all of kernel_total and reads the ring (1), passed the down-fence (2)
  std::atomic<uint32_t> old_readers;              // threads of Y read the kernel since before the channel: X places no fence before they are back
  std::atomic<uint64_t> received;                 // bytes that Y counted as read from the kernel: X places its up-fence where it has sent as many
  std::atomic<uint32_t> wants_times;              // Y waits for several connections at once, and orders what it tells by `published`
  // --- line 4: written by X twice in every write, read by a Y that retreats. Beside `tail` it would bring that line back from a Y that spins on it.
  alignas(kLine) std::atomic<uint32_t> writing;  // nonzero while X is between its look at `ask` and its publication
  std::atomic<uint32_t> publications;            // of those in `published`, so far
  std::atomic<uint64_t> kernel_at;               // cycle counter at X's last write to the kernel; if Y wants it
  // --- line 5: written by X in every write if Y wants it, read by Y when it has several connections to tell of.
  alignas(kLine) Publication published[kPublications];  // the last ones: number n in [n % kPublications]
};

struct ChannelHeader {
  uint64_t magic;      // acceptor, before the offer
  uint32_t version;    // acceptor, before the offer
  uint32_t bytes;      // size of the memfd; acceptor, before the offer
  uint8_t bits[16];    // the connector's 128 bits: this channel is for that connection; acceptor, before the offer
  alignas(kLine) std::atomic<uint32_t> attached;  // connector: mapped. SYNC: release here / acquire in the acceptor's write
  Direction direction[2];  // [0] acceptor → connector, [1] connector → acceptor
};

inline constexpr uint32_t kToConnector = 0;
inline constexpr uint32_t kToAcceptor = 1;

static_assert(sizeof(std::atomic<uint64_t>) == 8 && std::atomic<uint64_t>::is_always_lock_free);
static_assert(offsetof(Direction, tail) == 0);
static_assert(offsetof(Direction, class_from) == 8);
static_assert(offsetof(Direction, class_next) == 32);
static_assert(offsetof(Direction, writer_cpu) == 36);
static_assert(offsetof(Direction, stage) == 64);
static_assert(offsetof(Direction, bells_rung) == 68);
static_assert(offsetof(Direction, kernel_total) == 72);
static_assert(offsetof(Direction, demote_at) == 80);
static_assert(offsetof(Direction, space_arm) == 88);
static_assert(offsetof(Direction, gone_writer) == 92);
static_assert(offsetof(Direction, bells_final) == 96);
static_assert(offsetof(Direction, head) == 128);
static_assert(offsetof(Direction, data_arm) == 192);
static_assert(offsetof(Direction, ask) == 196);
static_assert(offsetof(Direction, gone_reader) == 200);
static_assert(offsetof(Direction, passed) == 204);
static_assert(offsetof(Direction, old_readers) == 208);
static_assert(offsetof(Direction, received) == 216);
static_assert(offsetof(Direction, wants_times) == 224);
static_assert(offsetof(Direction, writing) == 256);
static_assert(offsetof(Direction, publications) == 260);
static_assert(offsetof(Direction, kernel_at) == 264);
static_assert(offsetof(Direction, published) == 320);
static_assert(sizeof(Direction) == 384);
static_assert(offsetof(ChannelHeader, bits) == 16);
static_assert(offsetof(ChannelHeader, attached) == 64);
static_assert(offsetof(ChannelHeader, direction) == 128);
static_assert(sizeof(ChannelHeader) == 896 && sizeof(ChannelHeader) <= kFirstAreaAt);
static_assert(kFirstAreaAt + (size_t{2} << kClassBits[0]) <= kHeaderBytes);

}  // namespace shunt
