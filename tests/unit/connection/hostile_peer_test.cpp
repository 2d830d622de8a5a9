// A peer that writes what it likes into the channel: it can break its own connection and nothing else.
// The victim must not crash, hang, read outside the channel or burn the CPU, and must notice when the peer is gone.
#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>

#include <ctime>
#include <random>
#include <thread>

#include "bounded.h"
#include "hostile_pair.h"
#include "readiness/readiness.h"

namespace shunt::testing {
namespace {

constexpr unsigned kNetSeconds = 5;
constexpr uint32_t kHuge = 0xfffffff0;

struct Attack {
  const char* name;
  size_t unread;                                  // bytes in each ring when it strikes
  bool before_fence;                              // strikes on a channel that carries nothing yet
  void (*strike)(Direction& in, Direction& out);  // as the victim sees them
};

void announce(Direction& direction, uint32_t ring_class, uint64_t from) {
  direction.class_from[(ring_class - 1) % kLastClass] = from;
  direction.class_next = ring_class;
}

#define SHUNT_AT(unread, before, body)                \
  unread, before, [](Direction& in, Direction& out) { \
    (void)in, (void)out;                              \
    body;                                             \
  }

const Attack kAttacks[] = {
    {"nothing", SHUNT_AT(100, false, )},
    // tail
    {"tail_two_regions_ahead", SHUNT_AT(0, false, in.tail += 2 << 20)},
    {"tail_two_regions_ahead_of_unread", SHUNT_AT(7000, false, in.tail = in.head + (2 << 20))},
    {"tail_beyond_its_area", SHUNT_AT(0, false, in.tail += 1 << 16)},
    {"tail_just_beyond_its_area", SHUNT_AT(0, false, in.tail += (1 << 14) + 1)},
    {"tail_at_the_end_of_numbers", SHUNT_AT(10, false, in.tail = ~uint64_t{0})},
    {"tail_zero", SHUNT_AT(10, false, in.tail = 0)},
    {"tail_one_back", SHUNT_AT(10, false, in.tail -= 1)},
    // classes; the traffic before has brought both rings to class 1
    {"class_zero", SHUNT_AT(0, false, announce(in, 0, in.tail); in.tail += 10)},
    {"class_too_large", SHUNT_AT(0, false, announce(in, kLastClass + 1, in.tail); in.tail += 10)},
    {"class_of_64_bits", SHUNT_AT(0, false, announce(in, 64, in.tail); in.tail += 10)},
    {"class_huge", SHUNT_AT(0, false, announce(in, kHuge, in.tail); in.tail += 10)},
    {"class_without_a_position", SHUNT_AT(0, false, announce(in, kLastClass, kNever); in.tail += 10)},
    {"class_from_beyond_tail", SHUNT_AT(10, false, announce(in, kLastClass, in.tail + 100); in.tail += 10)},
    {"class_from_before_head", SHUNT_AT(10, false, announce(in, kLastClass, 1); in.tail += 10)},
    {"class_from_before_the_last_one", SHUNT_AT(10, false, announce(in, kLastClass, in.tail.load());
                                                announce(in, 2, in.tail + 5); in.class_next = kLastClass; in.tail += 10)},
    {"class_that_the_bytes_do_not_fit_into",
     SHUNT_AT(10, false, announce(in, 2, in.tail); in.tail += (1 << 18) + 1)},
    {"class_largest_and_full_twice", SHUNT_AT(100, false, announce(in, kLastClass, in.tail); in.tail = in.head + (2 << 20))},
    {"class_changes_late_with_too_much_before_it",
     SHUNT_AT(0, false, announce(in, kLastClass, in.head + (1 << 20)); in.tail = in.head + (2 << 20))},
    // fences
    {"kernel_total_below_received", SHUNT_AT(0, true, in.kernel_total = 0; in.stage = Stage::ring)},
    {"kernel_total_beyond_received", SHUNT_AT(0, true, in.kernel_total = 1 << 20; in.stage = Stage::ring)},
    {"kernel_total_huge", SHUNT_AT(0, true, in.kernel_total = ~uint64_t{0}; in.stage = Stage::ring)},
    {"kernel_again_at_once", SHUNT_AT(0, true, in.kernel_total = 1; in.demote_at = 0; in.stage = Stage::kernel_again)},
    {"kernel_again_at_once_far_away",
     SHUNT_AT(0, true, in.kernel_total = 1; in.demote_at = 50; in.bells_final = 9; in.stage = Stage::kernel_again)},
    {"put_back_before_any_ring", SHUNT_AT(0, true, in.stage = Stage::put_back)},
    {"stage_garbage_before_any_ring", SHUNT_AT(0, true, in.kernel_total = 1; in.stage = static_cast<Stage>(77))},
    {"demote_below_head", SHUNT_AT(10, false, in.demote_at = 1; in.stage = Stage::kernel_again)},
    {"demote_beyond_tail", SHUNT_AT(10, false, in.demote_at = in.tail + 100; in.stage = Stage::kernel_again)},
    {"demote_beyond_tail_of_an_empty_ring",
     SHUNT_AT(0, false, in.demote_at = in.tail + 1; in.stage = Stage::kernel_again)},
    {"demote_before_tail", SHUNT_AT(10, false, in.demote_at = in.tail - 5; in.stage = Stage::kernel_again)},
    {"demote_with_bells_that_never_come", SHUNT_AT(10, false, in.demote_at = in.tail.load();
                                                   in.bells_final = in.bells_rung + 5; in.stage = Stage::kernel_again)},
    {"demote_with_countless_bells",
     SHUNT_AT(0, false, in.demote_at = in.tail.load(); in.bells_final = kHuge; in.stage = Stage::kernel_again)},
    {"put_back_unasked", SHUNT_AT(10, false, in.stage = Stage::put_back)},
    {"stage_back_to_kernel", SHUNT_AT(10, false, in.stage = Stage::kernel)},
    {"stage_back_to_kernel_when_empty", SHUNT_AT(0, false, in.stage = Stage::kernel)},
    {"stage_garbage", SHUNT_AT(0, false, in.stage = static_cast<Stage>(4))},
    {"stage_huge", SHUNT_AT(10, false, in.stage = static_cast<Stage>(kHuge))},
    // bells
    {"bells_huge", SHUNT_AT(0, false, in.bells_rung = 0x7fffffff)},
    {"bells_backwards", SHUNT_AT(0, false, in.bells_rung = kHuge)},
    {"bells_few_that_never_come", SHUNT_AT(0, false, in.bells_rung += 6)},
    {"arms_always_new", SHUNT_AT(0, false, out.data_arm = kHuge | 1; in.space_arm = kHuge | 1)},
    // head
    {"head_beyond_tail", SHUNT_AT(100, false, out.head = out.tail + 1)},
    {"head_at_the_end_of_numbers", SHUNT_AT(100, false, out.head = ~uint64_t{0})},
    {"head_two_below_the_end_of_numbers", SHUNT_AT(100, false, out.head = ~uint64_t{0} - 1)},
    {"head_backwards", SHUNT_AT(100, false, out.head = 0)},
    {"head_at_tail_unread", SHUNT_AT(100, false, out.head = out.tail.load())},
    // questions
    {"ask_demote", SHUNT_AT(100, false, out.ask = Ask::demote)},
    {"ask_demote_with_old_readers", SHUNT_AT(100, false, out.passed = 0; out.old_readers = 1; out.ask = Ask::demote)},
    {"ask_frozen", SHUNT_AT(100, false, out.ask = Ask::frozen)},
    {"ask_frozen_with_head_backwards", SHUNT_AT(100, false, out.head = 0; out.ask = Ask::frozen)},
    {"ask_frozen_with_head_beyond_tail", SHUNT_AT(100, false, out.head = out.tail + 5; out.ask = Ask::frozen)},
    {"ask_taken_over", SHUNT_AT(100, false, out.ask = Ask::taken_over)},
    {"ask_garbage", SHUNT_AT(100, false, out.ask = static_cast<Ask>(4))},
    {"ask_huge", SHUNT_AT(0, false, out.ask = static_cast<Ask>(kHuge))},
    {"ask_garbage_before_any_ring", SHUNT_AT(0, true, out.ask = static_cast<Ask>(4))},
    {"passed_garbage", SHUNT_AT(100, false, out.passed = kHuge)},
    {"passed_twice", SHUNT_AT(100, false, out.passed = 2)},
    {"passed_taken_back", SHUNT_AT(100, false, out.passed = 0)},
    {"old_readers_before_any_ring", SHUNT_AT(0, true, out.old_readers = kHuge)},
    {"writing_stuck", SHUNT_AT(100, false, in.writing = 1)},
    {"gone_but_here", SHUNT_AT(0, false, in.gone_writer = 1; out.gone_reader = 1)},
    {"closed_but_here", SHUNT_AT(100, false, in.gone_writer = 2; out.gone_reader = 2)},
    {"gone_garbage", SHUNT_AT(0, false, in.gone_writer = kHuge; out.gone_reader = kHuge)},
    {"cpu_garbage", SHUNT_AT(0, false, in.writer_cpu = kHuge)},
    // the peer may write where it should not
    {"victims_own_fields",
     SHUNT_AT(100, false, out.tail = 5; announce(out, 99, kNever); in.head = ~uint64_t{0};
              out.writing = 9; out.demote_at = 3; in.ask = static_cast<Ask>(9); in.passed = 9; in.data_arm = 0;
              out.kernel_total = 7)},
    {"everything_ones", SHUNT_AT(100, false,
                                 for (Direction* d
                                      : {&in, &out}) memset(static_cast<void*>(d), 0xff, sizeof *d))},
    {"everything_zero", SHUNT_AT(100, false,
                                 for (Direction* d
                                      : {&in, &out}) memset(static_cast<void*>(d), 0, sizeof *d))},
};

void PrintTo(const Attack& attack, std::ostream* out) { *out << attack.name; }

class Victim {
 public:
  Victim(Role role, const Attack& attack) : pair_(role) {
    if (attack.before_fence)
      pair_.attach_only();
    else
      pair_.upgrade_with(attack.unread);
    attack.strike(pair_.to_victim(), pair_.from_victim());
  }

  // Whatever it returns is what some kernel socket might: bytes, nothing yet, or the end.
  static bool plausible(long result, size_t most) {
    return (result >= 0 && static_cast<size_t>(result) <= most) || result == -EAGAIN || result == -ECONNRESET ||
           result == -EPIPE;
  }
  long read(size_t bytes, int flags = 0) {
    buffer_.resize(std::max(buffer_.size(), bytes));
    const long got = read_from(pair_.victim, buffer_.data(), bytes, flags);
    EXPECT_TRUE(plausible(got, bytes)) << "read: " << got;
    return got;
  }
  long write(size_t bytes, int flags = 0) {
    out_.resize(std::max(out_.size(), bytes));
    const long sent = write_to(pair_.victim, out_.data(), bytes, flags | MSG_NOSIGNAL);
    EXPECT_TRUE(plausible(sent, bytes)) << "write: " << sent;
    return sent;
  }
  void everything_without_sleeping() {
    for (const size_t bytes : {size_t{1}, size_t{5000}, size_t{3} << 20}) {
      read(bytes, MSG_DONTWAIT | MSG_PEEK);
      read(bytes, MSG_DONTWAIT);
      write(bytes, MSG_DONTWAIT);
      look(*Pin(pair_.victim), pair_.victim);
      readable_bytes(*Pin(pair_.victim), pair_.victim);
      unread_bytes(*Pin(pair_.victim), pair_.victim);
      Pin pin(pair_.victim);
      Sleeper sleeper;
      arm(*pin, pair_.victim, POLLIN | POLLOUT, sleeper);
      arm_registered(*pin, pair_.victim, POLLIN | POLLOUT);
      disarm(*pin, sleeper);
    }
  }
  // After the peer's death every call ends, soon.
  void peer_dies_and_the_stream_ends() {
    pair_.kill_peer();
    int calls = 0;
    while (read(65536) > 0 && ++calls < 10000) {
    }
    EXPECT_LT(calls, 10000) << "still bytes from a dead peer";
    calls = 0;
    for (long sent; (sent = write(65536)) != -EPIPE && ++calls < 10000;) {
    }
    EXPECT_LT(calls, 10000) << "a dead peer takes bytes";
    EXPECT_LE(read(65536), 0);
  }
  HostilePair& pair() { return pair_; }
  Side& side() { return *Pin(pair_.victim)->side; }

 private:
  HostilePair pair_;
  std::vector<uint8_t> buffer_, out_;
};

// Runs `call` in a thread for a while, lets the peer die, and tells what share of a CPU it took until then.
template <typename Call>
double load_while(Victim& victim, Call call) {
  std::thread thread([&] { call(); });
  const auto seconds = [](clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const auto cpu_seconds = [&] {
    clockid_t cpu;  // of a thread that has ended there is none
    return pthread_getcpuclockid(thread.native_handle(), &cpu) == 0 ? seconds(cpu) : 0;
  };
  usleep(10000);  // what there is to read or write is read and written
  const double begin = seconds(CLOCK_MONOTONIC), before = cpu_seconds();
  usleep(40000);
  const double used = cpu_seconds() - before, passed = seconds(CLOCK_MONOTONIC) - begin;
  victim.pair().kill_peer();
  thread.join();
  return used / passed;
}

class HostilePeer : public ::testing::TestWithParam<Attack> {
 protected:
  template <typename Body>
  void each_role(Body body) {
    const auto play = [&](Role role) {
      SCOPED_TRACE(role == Role::acceptor ? "victim accepted" : "victim connected");
      Victim victim(role, GetParam());
      body(victim);
    };
    const Bounded acceptor(kNetSeconds, [&] { play(Role::acceptor); });
    const Bounded connector(kNetSeconds, [&] { play(Role::connector); });
  }
};

INSTANTIATE_TEST_SUITE_P(Attacks, HostilePeer, ::testing::ValuesIn(kAttacks),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(HostilePeer, CannotHoldACallThatDoesNotSleep) {
  each_role([](Victim& victim) {
    victim.everything_without_sleeping();
    victim.peer_dies_and_the_stream_ends();
  });
}

TEST_P(HostilePeer, CannotStretchATimeout) {
  each_role([](Victim& victim) {
    const timeval timeout{0, 5000};
    for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
      setsockopt(victim.pair().victim, SOL_SOCKET, option, &timeout, sizeof timeout);
    victim.side().receive_timeout_ns = victim.side().send_timeout_ns = 5'000'000;
    for (int i = 0; i < 3; ++i) {
      victim.read(1 << 20);
      victim.write(1 << 20);
    }
    const timeval none{0, 0};
    for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
      setsockopt(victim.pair().victim, SOL_SOCKET, option, &none, sizeof none);
    victim.side().receive_timeout_ns = victim.side().send_timeout_ns = 0;
    victim.peer_dies_and_the_stream_ends();
  });
}

TEST_P(HostilePeer, CannotKeepASleepingReaderBusyOrForEver) {
  each_role([](Victim& victim) {
    EXPECT_LT(load_while(victim,
                         [&] {
                           for (int i = 0; i < 1000 && victim.read(65536) > 0; ++i) {
                           }
                         }),
              0.4);
    victim.peer_dies_and_the_stream_ends();
  });
}

TEST_P(HostilePeer, CannotKeepASleepingWriterBusyOrForEver) {
  each_role([](Victim& victim) {
    EXPECT_LT(load_while(victim,
                         [&] {
                           for (int i = 0; i < 1000 && victim.write(65536) > 0; ++i) {
                           }
                         }),
              0.4);
    victim.peer_dies_and_the_stream_ends();
  });
}

// After a call that poll had promised: does the stream go on? Counts broken promises.
bool more(long result, int& lies) {
  if (result == -EAGAIN) ++lies;
  return result > 0 || result == -EAGAIN;
}

TEST_P(HostilePeer, CannotKeepAPollingThreadBusyOrForEver) {
  each_role([](Victim& victim) {
    int lies = 0;
    const auto serve = [&] {
      pollfd item{victim.pair().victim, POLLIN | POLLOUT, 0};
      for (int i = 0; i < 100000 && lies < 100; ++i) {
        EXPECT_EQ(wait_poll(&item, 1, nullptr, nullptr), 1);
        if ((item.revents & POLLIN) && !more(victim.read(65536, MSG_DONTWAIT), lies)) return;
        if ((item.revents & POLLOUT) && !more(victim.write(65536, MSG_DONTWAIT), lies)) return;
      }
    };
    EXPECT_LT(load_while(victim, serve), 0.4);
    EXPECT_LT(lies, 100) << "poll says ready, and it is not";
    victim.peer_dies_and_the_stream_ends();
  });
}

TEST_P(HostilePeer, CannotPreventAPoliteDemotionsCallerFromGoingOn) {
  each_role([](Victim& victim) {
    make_plain(*Pin(victim.pair().victim), victim.pair().victim, Reason::signal_driven);
    victim.everything_without_sleeping();
    victim.peer_dies_and_the_stream_ends();
  });
}

TEST_P(HostilePeer, CannotHoldARetreat) {
  each_role([](Victim& victim) {
    retreat(*Pin(victim.pair().victim), victim.pair().victim, Reason::exec_inherited);
    char block[1000];
    for (int i = 0; i < 10; ++i) {  // the kernel's alone from here on
      recv(victim.pair().victim, block, sizeof block, MSG_DONTWAIT);
      ::send(victim.pair().victim, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    victim.pair().kill_peer();
    int calls = 0;
    while (recv(victim.pair().victim, block, sizeof block, 0) > 0) ASSERT_LT(++calls, 100000);
  });
}

// Bytes in the socket that nobody announced: no bells, and no data either.
TEST(HostileBytes, CannotKeepASleeperBusy) {
  for (const Role role : {Role::acceptor, Role::connector})
    bounded(kNetSeconds, [&] {
      Victim reader(role, kAttacks[0]), poller(role, kAttacks[0]);
      for (Victim* victim : {&reader, &poller}) {
        victim->read(65536);
        EXPECT_EQ(::send(victim->pair().peer, "12345678", 8, MSG_DONTWAIT), 8);
      }
      EXPECT_LT(load_while(reader, [&] { reader.read(65536); }), 0.4);
      EXPECT_LT(load_while(poller,
                           [&] {
                             pollfd item{poller.pair().victim, POLLIN, 0};
                             wait_poll(&item, 1, nullptr, nullptr);
                           }),
                0.4);
    });
}

// The process that delivers what a retreat left behind ends with the program, whatever the peer still promises.
TEST(HostileBytes, CannotKeepARelayAlive) {
  for (const Role role : {Role::acceptor, Role::connector})
    bounded(kNetSeconds, [&] {
      HostilePair pair(role);
      pair.upgrade_with(100);
      Direction& in = pair.to_victim();
      in.demote_at = in.tail.load();
      in.bells_final = in.bells_rung + 5;
      in.stage = Stage::kernel_again;
      EXPECT_TRUE(retreat(*Pin(pair.victim), pair.victim, Reason::exec_inherited)) << "by a relay";
      close(pair.victim);
      char byte;
      while (recv(pair.peer, &byte, 1, 0) > 0) {  // until the last holder of the socket has gone
      }
    });
}

// ---- what breaks a connection, breaks it visibly

TEST(BrokenChannel, IsAResetForBothEnds) {
  for (const Role role : {Role::acceptor, Role::connector})
    bounded(kNetSeconds, [&] {
      HostilePair pair(role);
      pair.upgrade_with(0);
      pair.to_victim().tail = ~uint64_t{0} >> 1;
      char byte;
      EXPECT_EQ(read_from(pair.victim, &byte, 1), -ECONNRESET);
      EXPECT_EQ(read_from(pair.victim, &byte, 1), 0);
      EXPECT_EQ(write_to(pair.victim, &byte, 1, MSG_NOSIGNAL), -EPIPE);
      EXPECT_EQ(Pin(pair.victim)->side->demoted.load(), Reason::broken);
      while (recv(pair.peer, &byte, 1, MSG_DONTWAIT) > 0) {  // bells
      }
      EXPECT_EQ(recv(pair.peer, &byte, 1, MSG_DONTWAIT), 0) << "the peer is told, too";
    });
}

// Who polls before he reads must learn of it as well.
TEST(BrokenChannel, IsReadableAndHungUpForWhoPolls) {
  for (const Role role : {Role::acceptor, Role::connector})
    bounded(kNetSeconds, [&] {
      HostilePair pair(role);
      pair.upgrade_with(0);
      pair.to_victim().tail = ~uint64_t{0} >> 1;
      ready(pair.victim);
      EXPECT_EQ(ready(pair.victim) & (POLLIN | POLLHUP), POLLIN | POLLHUP);
      char byte;
      EXPECT_EQ(read_from(pair.victim, &byte, 1, MSG_DONTWAIT), -ECONNRESET);
    });
}

TEST(BrokenChannel, FoundByTheWriterIsAResetForTheReader) {
  for (const Role role : {Role::acceptor, Role::connector})
    bounded(kNetSeconds, [&] {
      HostilePair pair(role);
      pair.upgrade_with(0);
      pair.from_victim().head = pair.from_victim().tail + 1;
      std::vector<char> much(1 << 20);
      long sent = 0;
      for (int i = 0; i < 100 && (sent >= 0 || sent == -EAGAIN); ++i)
        sent = write_to(pair.victim, much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      EXPECT_TRUE(sent == -ECONNRESET || sent == -EPIPE) << sent;
      EXPECT_EQ(ready(pair.victim) & (POLLIN | POLLHUP), POLLIN | POLLHUP);
    });
}

// ---- no plan at all

TEST(HostilePeerAtRandom, NeverCrashesHangsOrGrowsTheVictim) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    bounded(kNetSeconds, [&] {
      HostilePair pair(seed % 2 ? Role::acceptor : Role::connector);
      pair.upgrade_with(seed % 3 * 500);
      Side& side = *Pin(pair.victim)->side;
      side.receive_timeout_ns = side.send_timeout_ns = 1'000'000;
      std::atomic<bool> stop{false};
      auto* words = reinterpret_cast<std::atomic<uint32_t>*>(&pair.header().direction[0]);
      std::thread attacker([&] {
        std::mt19937 random(seed);
        constexpr size_t kWords = 2 * sizeof(Direction) / 4;
        while (!stop) {
          const size_t at = random() % kWords;
          const uint32_t now = words[at].load(std::memory_order_relaxed);
          const auto noise = static_cast<uint32_t>(random());
          const uint32_t values[] = {0,    1, 2, 3, now + 1, now - 1, now + noise % 40000, now * 2, 1u << noise % 32,
                                     noise};
          words[at].store(values[random() % std::size(values)], std::memory_order_relaxed);
          if (random() % 4 == 0) usleep(1);
          if (random() % 16 == 0) ::send(pair.peer, "12345678", 1 + random() % 8, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
      });
      std::thread reader([&] {
        std::vector<char> block(3 << 20);
        for (uint32_t i = 0; !stop; ++i) {
          const long got = read_from(pair.victim, block.data(), i % 3 ? 5000 : block.size(), i % 5 ? 0 : MSG_DONTWAIT);
          if (!Victim::plausible(got, block.size())) ADD_FAILURE() << got, stop = true;
        }
      });
      std::thread writer([&] {
        std::vector<char> block(3 << 20);
        for (uint32_t i = 0; !stop; ++i) {
          const long sent = write_to(pair.victim, block.data(), i % 3 ? 5000 : block.size(),
                                     (i % 5 ? 0 : MSG_DONTWAIT) | MSG_NOSIGNAL);
          if (!Victim::plausible(sent, block.size())) ADD_FAILURE() << sent, stop = true;
        }
      });
      for (int i = 0; i < 60; ++i) ready(pair.victim), usleep(1000);
      stop = true;
      attacker.join(), reader.join(), writer.join();
      side.receive_timeout_ns = side.send_timeout_ns = 0;
      pair.kill_peer();
      std::vector<char> block(1 << 20);
      int calls = 0;
      while (read_from(pair.victim, block.data(), block.size()) > 0) ASSERT_LT(++calls, 10000);
      rusage usage{};
      getrusage(RUSAGE_SELF, &usage);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
      EXPECT_LT(usage.ru_maxrss, 64 << 10) << "KiB";
#endif
    });
  }
}

}  // namespace
}  // namespace shunt::testing
