// Bytes through one connection: both ends in this process, in every state of the fences.
#include <gtest/gtest.h>
#include <poll.h>

#include <random>
#include <thread>

#include "connection/flow.h"
#include "stream_pair.h"

namespace shunt::testing {
namespace {

uint8_t pattern(uint64_t position) { return static_cast<uint8_t>(position * 131 + (position >> 8) * 17 + (position >> 16)); }

void pour(int fd, uint64_t total, uint32_t seed, size_t largest) {
  std::mt19937 random(seed);
  std::vector<uint8_t> buffer(largest);
  for (uint64_t done = 0; done < total;) {
    const size_t bytes = std::min<uint64_t>(1 + random() % largest, total - done);
    for (size_t i = 0; i < bytes; ++i) buffer[i] = pattern(done + i);
    const long sent = write_to(fd, buffer.data(), bytes);
    ASSERT_GT(sent, 0) << "after " << done;
    done += static_cast<uint64_t>(sent);
  }
}

void drink(int fd, uint64_t total, uint32_t seed, size_t largest) {
  std::mt19937 random(seed);
  std::vector<uint8_t> buffer(largest);
  for (uint64_t done = 0; done < total;) {
    const long got = read_from(fd, buffer.data(), 1 + random() % largest);
    ASSERT_GT(got, 0) << "after " << done;
    for (long i = 0; i < got; ++i) ASSERT_EQ(buffer[static_cast<size_t>(i)], pattern(done + static_cast<uint64_t>(i))) << "at " << done;
    done += static_cast<uint64_t>(got);
  }
}

TEST(Transfer, UpgradesAfterTheFirstExchanges) {
  StreamPair pair;
  upgrade(pair);
}

TEST(Transfer, BulkBothWaysAtOnceThroughTheRings) {
  StreamPair pair;
  upgrade(pair);
  constexpr uint64_t kTotal = 64 << 20;
  std::thread a([&] { pour(pair.connector, kTotal, 1, 100000); });
  std::thread b([&] { pour(pair.acceptor, kTotal, 2, 100000); });
  std::thread c([&] { drink(pair.connector, kTotal, 3, 70000); });
  drink(pair.acceptor, kTotal, 4, 70000);
  a.join(), b.join(), c.join();
}

TEST(Transfer, SmallWritesAreNotLostBetweenSleeps) {
  StreamPair pair;
  upgrade(pair);
  constexpr uint64_t kTotal = 200000;
  std::thread a([&] { pour(pair.connector, kTotal, 1, 9); });
  drink(pair.acceptor, kTotal, 4, 13);
  a.join();
}

// Upgrade and demotion strike at random bytes while both directions are busy.
TEST(Transfer, ChaosLosesNothing) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    StreamPair pair;
    upgrade_early();
    behaviour.writes_before_offer = seed % 5;
    behaviour.chaos = true;
    behaviour.chaos_seed = seed * 7919;
    const size_t largest = seed % 3 == 0 ? 60000 : 50;
    const uint64_t total = seed % 3 == 0 ? 1 << 20 : 20000;
    std::thread a([&] { pour(pair.connector, total, seed, largest); });
    std::thread b([&] { pour(pair.acceptor, total, seed + 1, largest); });
    std::thread c([&] { drink(pair.connector, total, seed + 2, largest); });
    drink(pair.acceptor, total, seed + 3, largest);
    a.join(), b.join(), c.join();
    if (::testing::Test::HasFatalFailure()) break;
  }
}

TEST(Transfer, NonBlockingWriterStopsAtAFullRingAndGoesOnAfterTheDrain) {
  StreamPair pair;
  upgrade(pair);
  std::vector<uint8_t> block(10000);
  uint64_t sent = 0, got = 0;
  for (long n; (n = write_to(pair.connector, block.data(), block.size(), MSG_DONTWAIT)) != -EAGAIN;) {
    ASSERT_GT(n, 0);
    sent += static_cast<uint64_t>(n);
  }
  EXPECT_GT(sent, 200000u);
  EXPECT_FALSE(ready(pair.connector) & POLLOUT);
  EXPECT_TRUE(ready(pair.acceptor) & POLLIN);
  while (got < sent) {
    const long n = read_from(pair.acceptor, block.data(), block.size());
    ASSERT_GT(n, 0);
    got += static_cast<uint64_t>(n);
  }
  EXPECT_TRUE(ready(pair.connector) & POLLOUT);
  EXPECT_FALSE(ready(pair.acceptor) & POLLIN);
  EXPECT_EQ(read_from(pair.acceptor, block.data(), 1, MSG_DONTWAIT), -EAGAIN);
}

// Writes of these sizes, of which each finds no room in the area of the last, leave unread bytes in all areas.
constexpr size_t kThroughAllAreas[] = {900, 10'000, 200'000, 800'000};

TEST(Transfer, UnreadBytesOfAllAreasComeInOrder) {
  StreamPair pair;
  upgrade(pair);
  uint64_t sent = 0;
  for (const size_t bytes : kThroughAllAreas) {
    std::vector<uint8_t> block(bytes);
    for (size_t i = 0; i < bytes; ++i) block[i] = pattern(sent + i);
    ASSERT_EQ(write_to(pair.connector, block.data(), bytes, MSG_DONTWAIT), static_cast<long>(bytes));
    sent += bytes;
  }
  EXPECT_EQ(Pin(pair.connector)->side->out_map.newest, kLastClass);
  drink(pair.acceptor, sent, 5, 30'000);
  EXPECT_EQ(Pin(pair.acceptor)->side->in_map.newest, kLastClass);
}

// A process of the family that was killed between its choice of a larger area and the announcement.
TEST(Transfer, AnUnannouncedAreaIsAnnouncedByTheNextWriter) {
  StreamPair pair;
  upgrade(pair);
  {
    Pin pin(pair.connector);
    begin_class(pin->side->out_map, 2, pin->side->tail.load());
  }
  std::thread writer([&] { pour(pair.connector, 100'000, 1, 20'000); });
  drink(pair.acceptor, 100'000, 2, 20'000);
  writer.join();
}

TEST(Transfer, EndOfStreamComesAfterTheRing) {
  StreamPair pair;
  upgrade(pair);
  ASSERT_EQ(write_to(pair.connector, "hello", 5), 5);
  StreamPair::close_end(pair.connector);
  char text[16];
  EXPECT_EQ(read_from(pair.acceptor, text, sizeof text), 5);
  EXPECT_EQ(read_from(pair.acceptor, text, sizeof text), 0);
  EXPECT_EQ(write_to(pair.acceptor, "x", 1, MSG_NOSIGNAL), -EPIPE);
}

TEST(Transfer, PeerThatLeftBytesUnreadIsAResetOnce) {
  StreamPair pair;
  upgrade(pair);
  ASSERT_EQ(write_to(pair.acceptor, "unread", 6), 6);
  StreamPair::close_end(pair.connector);
  char text[16];
  EXPECT_EQ(read_from(pair.acceptor, text, sizeof text), -ECONNRESET);
  EXPECT_EQ(read_from(pair.acceptor, text, sizeof text), 0);
}

// A thread that has been in a kernel read since before the channel, and a retreat beside it.
TEST(OldReader, GetsWhatIsSentAfterARetreatBeforeAnyFence) {
  StreamPair pair;
  exchange_before_offer(pair.connector, pair.acceptor);
  char got[16] = {}, byte;
  long received = 0;
  std::thread reader([&] { received = read_from(pair.acceptor, got, sizeof got); });
  while (Pin(pair.acceptor)->side->kernel_readers.load() == 0) std::this_thread::yield();
  ASSERT_EQ(write_to(pair.acceptor, "x", 1), 1);  // carries the offer
  ASSERT_EQ(read_from(pair.connector, &byte, 1), 1);
  ASSERT_TRUE(has_channel(*Pin(pair.connector)));
  retreat(*Pin(pair.acceptor), pair.acceptor, Reason::exec_inherited);
  ASSERT_EQ(write_to(pair.connector, "hello", 5), 5);
  reader.join();
  EXPECT_EQ(std::string(got, 5), "hello");
  EXPECT_EQ(received, 5);
}

TEST(OldReader, TellsBellsFromTheDataBeforeThemAndFromWhatIsPutBackBehindThem) {
  for (const bool leaving : {false, true}) {
    SCOPED_TRACE(leaving);
    StreamPair pair;
    upgrade(pair);
    Pin pin(pair.acceptor);
    Side& side = *pin->side;
    const uint32_t taken = side.bells_taken;
    side.leaving = leaving;
    pin->in->kernel_total = side.kernel_received + 3;
    pin->in->bells_rung = taken + 2;
    char first[] = "ab", second[] = {'c', static_cast<char>(taken), static_cast<char>(taken + 1), 'p', 'u', 't'};
    const iovec parts[] = {{first, 2}, {second, 6}};
    EXPECT_EQ(account_kernel_bytes(*pin, leaving ? 8 : 5, Cursor(parts, 2)), leaving ? 6 : 3);
    EXPECT_EQ(std::string(first, 2) + std::string(second, leaving ? 4 : 1), leaving ? "abcput" : "abc");
    EXPECT_EQ(side.bells_taken - taken, 2u);
    side.leaving = false;
    pin->in->bells_rung = taken;
  }
}

// Taking the bells in front of it would move the place where a relative's peek begins.
TEST(Transfer, AFenceOfAFamilyWaitsForWhoSleepsInAPeek) {
  StreamPair pair;
  upgrade(pair);
  Pin pin(pair.connector);
  Side& side = *pin->side;
  char data[8];
  side.holders = 2;
  std::thread reader([&] { EXPECT_EQ(read_from(pair.connector, data, sizeof data), 1); });
  while (side.peekers != 1) std::this_thread::yield();
  ASSERT_EQ(write_to(pair.acceptor, "x", 1), 1);
  reader.join();
  EXPECT_EQ(side.peekers, 0u);
  side.peekers = 1;  // the relative
  make_plain(*Pin(pair.acceptor), pair.acceptor, Reason::stdio);
  ASSERT_EQ(write_to(pair.acceptor, "after", 5), 5);
  EXPECT_EQ(read_from(pair.connector, data, sizeof data, MSG_DONTWAIT), -EAGAIN);
  EXPECT_EQ(side.in_flow, Flow::ring);
  side.peekers = 0;  // woken by the bell
  EXPECT_EQ(read_from(pair.connector, data, sizeof data, MSG_DONTWAIT), 5);
  EXPECT_EQ(side.in_flow, Flow::kernel_again);
}

TEST(Transfer, RetreatPutsUnreadBytesBackThroughTheKernel) {
  const std::vector<size_t> writes[] = {{}, {5}, {50'000}, {900, 10'000, 50'000}};  // the last ones leave bytes in three areas
  for (const auto& sizes : writes) {
    size_t unread = 0;
    StreamPair pair;
    upgrade(pair);
    std::vector<char> got(100'000);
    for (const size_t bytes : sizes) {
      const std::vector<char> block(bytes, static_cast<char>('a' + bytes % 26));
      ASSERT_EQ(write_to(pair.acceptor, block.data(), bytes), static_cast<long>(bytes));
      unread += bytes;
    }
    SCOPED_TRACE(unread);
    std::thread peer([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));  // the retreat waits for it to act
      EXPECT_EQ(write_to(pair.acceptor, "after", 5), 5);
    });
    {
      Pin pin(pair.connector);
      retreat(*pin, pair.connector, Reason::stdio);
    }
    peer.join();
    size_t done = 0;
    while (done < unread + 5) {
      const ssize_t n = recv(pair.connector, got.data() + done, got.size() - done, 0);  // the kernel alone
      ASSERT_GT(n, 0) << done;
      done += static_cast<size_t>(n);
    }
    EXPECT_EQ(std::string(got.data() + unread, 5), "after");
    for (size_t at = 0; const size_t bytes : sizes) {
      EXPECT_EQ(std::string(got.data() + at, bytes), std::string(bytes, static_cast<char>('a' + bytes % 26)));
      at += bytes;
    }
    ASSERT_EQ(::send(pair.connector, "raw", 3, 0), 3);
    EXPECT_EQ(read_from(pair.acceptor, got.data(), 3), 3);
    EXPECT_EQ(std::string(got.data(), 3), "raw");
  }
}

}  // namespace
}  // namespace shunt::testing
