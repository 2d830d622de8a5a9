// One epoll set in several processes: over a fork, or passed to another. The registrations are the set's, whoever made
// them, and everybody who waits is told what the program said there.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <new>
#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kNever_ms = 10'000;
constexpr int kRounds = 12;
constexpr int kBytes = 12;  // in each round

// What the processes of one role tell one another, in memory that they share.
struct Shared {
  std::atomic<int> step, told, gone;
};

Shared& shared() {
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  return *new (memory) Shared{};
}

// Spins, so that both are there at the same moment.
void meet(std::atomic<int>& step, int all) {
  ++step;
  while (step.load() < all) {
  }
}

void await_step(const std::atomic<int>& step, int wanted) {
  for (int i = 0; step.load() < wanted; ++i) {
    CHECK(i < kNever_ms);
    sleep_ms(1);
  }
}

long control(int set, int operation, int fd, uint32_t events, uint64_t data) {
  epoll_event event{.events = events, .data = {.u64 = data}};
  return ::epoll_ctl(set, operation, fd, &event);
}

void add(int set, int fd, uint32_t events, uint64_t data) {
  CHECK_EQ(control(set, EPOLL_CTL_ADD, fd, events, data), 0);
}
void modify(int set, int fd, uint32_t events, uint64_t data) {
  CHECK_EQ(control(set, EPOLL_CTL_MOD, fd, events, data), 0);
}

// The data of the registration that was told of; 0: of none in that time.
uint64_t wait_one(int set, int timeout_ms, uint32_t* events = nullptr) {
  epoll_event event{};
  const int n = ::epoll_wait(set, &event, 1, timeout_ms);
  CHECK(n >= 0);
  if (events != nullptr) *events = event.events;
  return n == 1 ? event.data.u64 : 0;
}

// A child that has waited, and found nothing, goes on from here with what its parent does beside it.
void find_nothing(int set, std::atomic<int>& step) {
  CHECK_EQ(wait_one(set, 0), 0);
  ++step;
}

void write_when_asked(int fd) {
  for (;;) {
    const uint32_t bytes = await_peer();
    if (bytes == 0) return;
    write_all(fd, std::string(bytes, 'x'));
    tell_peer();
  }
}
void ask_for(uint32_t bytes) { tell_peer(bytes), await_peer(); }
void end_peer() { tell_peer(0); }

// ---- one-shot events: each is told once, to one of them

// Parent and child begin to wait at the same moment, while the bytes arrive.
void ask_both(int) {
  for (int round = 0; round < kRounds; ++round) {
    const int fd = accept_another();
    await_peer();
    for (int i = 0; i < kBytes; ++i) {
      write_all(fd, "x");
      CHECK_EQ(read_exactly(fd, 1), "y");
    }
    ::shutdown(fd, SHUT_WR);
    await_peer();
    ::close(fd);
  }
}

template <uint32_t kMode, bool kBothKnow>
void answer_in_both(int) {
  for (int round = 0; round < kRounds; ++round) {
    const int fd = connect_another();
    const int set = ::epoll_create1(0);
    Shared& all = shared();
    const uint64_t mark = 1000 + static_cast<uint64_t>(round);
    add(set, fd, EPOLLIN | EPOLLONESHOT | kMode, mark);
    const auto work = [&](bool tells) {
      if (kBothKnow) CHECK_EQ(wait_one(set, 0), 0);
      meet(all.step, 2);
      if (tells) tell_peer();
      for (;;) {
        CHECK_EQ(wait_one(set, kNever_ms), mark);
        char byte = 0;
        const ssize_t n = ::recv(fd, &byte, 1, MSG_DONTWAIT);
        CHECK(n >= 0);  // EAGAIN: the other one had been told as well
        if (n == 1) ++all.told, write_all(fd, "y");
        modify(set, fd, EPOLLIN | EPOLLONESHOT | kMode, mark);
        if (n == 0) return;
      }
    };
    // The first byte comes before they wait, or while they begin to.
    const bool before = !kBothKnow && round % 2 == 0;
    const int child = in_child([&] { work(false); });
    if (before) tell_peer();
    work(!before);
    join_child(child);
    CHECK_EQ(all.told.load(), kBytes);
    tell_peer();
    ::close(set);
    ::close(fd);
  }
}

BEHAVIOUR{.name = "tell_of_a_one_shot_event_once_when_both_begin_at_the_same_moment",
          .server = ask_both,
          .client = answer_in_both<0, false>,
          .leaves_ring = true};
BEHAVIOUR{.name = "tell_of_a_one_shot_edge_once_when_both_begin_at_the_same_moment",
          .server = ask_both,
          .client = answer_in_both<EPOLLET, false>,
          .leaves_ring = true};
BEHAVIOUR{.name = "tell_of_a_one_shot_event_once_when_both_have_waited",
          .server = ask_both,
          .client = answer_in_both<0, true>,
          .leaves_ring = true};

// Nobody arms it again: of all that wait, one is told.
void write_one_each(int) {
  for (int round = 0; round < kRounds; ++round) {
    const int fd = accept_another();
    await_peer();
    write_all(fd, "x");
    CHECK_EQ(read_exactly(fd, 1), "y");
    ::close(fd);
  }
}

void count_the_told(int) {
  for (int round = 0; round < kRounds; ++round) {
    const int fd = connect_another();
    const int set = ::epoll_create1(0);
    Shared& all = shared();
    add(set, fd, EPOLLIN | EPOLLONESHOT, 77);
    const auto work = [&] {
      meet(all.step, 3);
      while (all.told.load() == 0) all.told += wait_one(set, 1) == 77 ? 1 : 0;
      for (int i = 0; i < 3; ++i) all.told += wait_one(set, 5) == 77 ? 1 : 0;
    };
    const int one = in_child(work);
    const int other = in_child(work);
    tell_peer();
    work();
    join_child(one);
    join_child(other);
    CHECK_EQ(all.told.load(), 1);
    modify(set, fd, EPOLLIN | EPOLLONESHOT, 78);
    CHECK_EQ(wait_one(set, kNever_ms), 78);
    CHECK_EQ(wait_one(set, 5), 0);
    CHECK_EQ(read_exactly(fd, 1), "x");
    write_all(fd, "y");
    ::close(set);
    ::close(fd);
  }
}

BEHAVIOUR{.name = "of_three_processes_tell_one_of_a_one_shot_event",
          .server = write_one_each,
          .client = count_the_told,
          .leaves_ring = true};

// The parent's event, before the child has touched the set: disabled for both, until one of them arms it.
BEHAVIOUR{.name = "keep_a_one_shot_event_of_the_parent_from_the_child",
          .server = write_when_asked,
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                Shared& all = shared();
                add(set, fd, EPOLLIN | EPOLLONESHOT, 1);
                const int child = in_child([&] {
                  await_step(all.step, 1);
                  CHECK_EQ(wait_one(set, 30), 0);
                  modify(set, fd, EPOLLIN | EPOLLONESHOT, 2);
                  ++all.step;
                });
                ask_for(1);
                CHECK_EQ(wait_one(set, kNever_ms), 1);
                ++all.step;
                await_step(all.step, 2);
                join_child(child);
                CHECK_EQ(wait_one(set, kNever_ms), 2);
                CHECK_EQ(wait_one(set, 10), 0);
                CHECK_EQ(read_exactly(fd, 1), "x");
                end_peer();
              },
          .leaves_ring = true};

// ---- what one of them changes is so for the other

// What the parent said after the fork is what the child is told, although the parent does nothing any more.
BEHAVIOUR{.name = "tell_the_child_what_the_parent_changed_after_the_fork",
          .server = [](int fd) { accept_another(), write_when_asked(fd); },
          .client =
              [](int fd) {
                const int other = connect_another();
                const int set = ::epoll_create1(0);
                Shared& all = shared();
                add(set, fd, EPOLLIN, 1);
                add(set, other, EPOLLIN | EPOLLOUT, 2);
                const int child = in_child([&] {
                  await_step(all.step, 1);
                  uint32_t events = 0;
                  CHECK_EQ(wait_one(set, kNever_ms, &events), 11);
                  CHECK_EQ(events, uint32_t{EPOLLOUT});
                });
                modify(set, fd, EPOLLOUT, 11);
                CHECK_EQ(control(set, EPOLL_CTL_DEL, other, 0, 0), 0);
                ++all.step;
                join_child(child);
                CHECK_EQ(wait_one(set, 0), 11);
                end_peer();
              },
          .leaves_ring = true};

// Asleep in the set while the other one changes it.
template <bool kChildSleeps>
void change_under_a_sleeper(int fd) {
  const int set = ::epoll_create1(0);
  Shared& all = shared();
  add(set, fd, EPOLLIN, 1);
  const auto sleep = [&] {
    find_nothing(set, all.step);
    uint32_t events = 0;
    CHECK_EQ(wait_one(set, kNever_ms, &events), 2);  // EPOLL_CTL_MOD: it is writable
    CHECK_EQ(events, uint32_t{EPOLLOUT});
    ++all.step;
    await_step(all.step, 4);
    CHECK_EQ(wait_one(set, 60), 0);  // EPOLL_CTL_DEL: bytes are no news
    ++all.step;
    CHECK_EQ(wait_one(set, kNever_ms), 3);  // EPOLL_CTL_ADD: they are
  };
  const auto change = [&] {
    find_nothing(set, all.step);
    await_step(all.step, 2);
    sleep_ms(10);
    modify(set, fd, EPOLLOUT, 2);
    await_step(all.step, 3);
    modify(set, fd, EPOLLIN, 2);
    ++all.step;
    sleep_ms(10);
    CHECK_EQ(control(set, EPOLL_CTL_DEL, fd, 0, 0), 0);
    CHECK_ERRNO(control(set, EPOLL_CTL_DEL, fd, 0, 0), ENOENT);
    ask_for(1);
    await_step(all.step, 5);
    sleep_ms(10);
    add(set, fd, EPOLLIN, 3);
    CHECK_ERRNO(control(set, EPOLL_CTL_ADD, fd, EPOLLIN, 3), EEXIST);
  };
  const int child = in_child([&] { kChildSleeps ? sleep() : change(); });
  kChildSleeps ? change() : sleep();
  join_child(child);
  end_peer();
}

BEHAVIOUR{.name = "wake_the_child_for_what_the_parent_changes",
          .server = write_when_asked,
          .client = change_under_a_sleeper<true>,
          .leaves_ring = true};
BEHAVIOUR{.name = "wake_the_parent_for_what_the_child_changes",
          .server = write_when_asked,
          .client = change_under_a_sleeper<false>,
          .leaves_ring = true};

// ---- what one of them adds after the fork

void write_on_a_second_one(int) {
  const int second = accept_another();
  await_peer();
  write_all(second, "x");
  await_peer();
}

template <bool kChildAdds, uint32_t kMode>
void tell_of_an_addition(int fd) {
  const int set = ::epoll_create1(0);
  const int added = ::fcntl(connect_another(), F_DUPFD, 900);  // the sleeper has it as well
  Shared& all = shared();
  add(set, fd, EPOLLIN, 1);
  const auto sleep = [&] {
    find_nothing(set, all.step);
    CHECK_EQ(wait_one(set, kNever_ms), 2);
    CHECK_EQ(read_exactly(added, 1), "x");
  };
  const auto adds = [&] {
    find_nothing(set, all.step);
    await_step(all.step, 2);
    sleep_ms(10);
    add(set, added, EPOLLIN | kMode, 2);
    tell_peer();
  };
  const int child = in_child([&] { kChildAdds ? adds() : sleep(); });
  kChildAdds ? sleep() : adds();
  join_child(child);
  tell_peer();
}

BEHAVIOUR{.name = "tell_the_child_of_what_the_parent_adds",
          .server = write_on_a_second_one,
          .client = tell_of_an_addition<false, 0>,
          .leaves_ring = true};
BEHAVIOUR{.name = "tell_the_child_of_a_one_shot_that_the_parent_adds",
          .server = write_on_a_second_one,
          .client = tell_of_an_addition<false, EPOLLONESHOT>,
          .leaves_ring = true};
BEHAVIOUR{.name = "tell_the_parent_of_what_the_child_adds",
          .server = write_on_a_second_one,
          .client = tell_of_an_addition<true, EPOLLET>,
          .leaves_ring = true};

// The child comes to the set while the parent sleeps there, for a connection that the child does not have.
template <uint32_t kMode>
void add_before_the_child_comes(int fd) {
  const int set = ::epoll_create1(0);
  Shared& all = shared();
  add(set, fd, EPOLLIN, 1);
  const int child = in_child([&] {
    await_step(all.step, 1);
    sleep_ms(20);
    CHECK_EQ(wait_one(set, 0), 0);
    ++all.step;
    if (wait_one(set, kNever_ms) == 2) ++all.told;
    ++all.step;
  });
  const int added = connect_another();
  add(set, added, EPOLLIN | kMode, 2);
  std::thread asks([&] { await_step(all.step, 2), sleep_ms(10), tell_peer(); });
  ++all.step;
  // Level triggered, and nobody reads: both are told. Of an edge one is.
  const bool for_all = (kMode & (EPOLLET | EPOLLONESHOT)) == 0;
  if (const uint64_t data = wait_one(set, for_all ? kNever_ms : 300); data == 2) ++all.told;
  asks.join();
  if (!for_all && all.told == 1 && all.step < 3) add(set, ::eventfd(1, 0), EPOLLIN, 3);  // the child's sleep ends
  join_child(child);
  CHECK_EQ(all.told.load(), for_all ? 2 : 1);
  CHECK_EQ(read_exactly(added, 1), "x");
  tell_peer();
}

BEHAVIOUR{.name = "tell_both_of_what_the_parent_had_added_before",
          .server = write_on_a_second_one,
          .client = add_before_the_child_comes<0>,
          .leaves_ring = true};
BEHAVIOUR{.name = "tell_one_of_a_one_shot_that_the_parent_had_added_before",
          .server = write_on_a_second_one,
          .client = add_before_the_child_comes<EPOLLONESHOT>,
          .leaves_ring = true};

// ---- who has what open

// epoll(7): a registration ends when the last descriptor of its file is closed, in whichever process.
BEHAVIOUR{.name = "tell_the_child_of_a_connection_that_it_has_closed",
          .server = write_when_asked,
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN, 5);
                Shared& all = shared();
                const int child = in_child([&] {
                  ::close(fd);
                  find_nothing(set, all.step);
                  CHECK_EQ(wait_one(set, kNever_ms), 5);
                  CHECK_ERRNO(control(set, EPOLL_CTL_DEL, fd, 0, 0), EBADF);
                });
                CHECK_EQ(wait_one(set, 0), 0);
                await_step(all.step, 1);
                CHECK_EQ(wait_one(set, 0), 0);
                ask_for(1);
                join_child(child);
                CHECK_EQ(wait_one(set, kNever_ms), 5);
                CHECK_EQ(read_exactly(fd, 1), "x");
                ::close(fd);
                CHECK_EQ(wait_one(set, 10), 0);
                end_peer();
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "go_on_in_the_parent_when_the_child_has_closed_its_own",
          .server = write_when_asked,
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN | EPOLLONESHOT, 5);
                join_child(in_child([&] {
                  CHECK_EQ(wait_one(set, 0), 0);
                  modify(set, fd, EPOLLIN | EPOLLONESHOT, 6);
                  ::close(set);
                  ::close(fd);
                }));
                for (uint64_t data = 6; data < 9; ++data) {
                  ask_for(1);
                  CHECK_EQ(wait_one(set, kNever_ms), data);
                  CHECK_EQ(wait_one(set, 5), 0);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  modify(set, fd, EPOLLIN | EPOLLONESHOT, data + 1);
                }
                end_peer();
              },
          .leaves_ring = true};

// Bytes, and the end, that were there before the child came to the set: whoever reads them, the other is told of the
// rest.
BEHAVIOUR{.name = "tell_the_child_of_what_a_dead_peer_has_left",
          .server =
              [](int fd) {
                write_all(fd, "xyz");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                add(set, fd, EPOLLIN | EPOLLONESHOT, 5);
                await_peer();
                join_child(in_child([&] {
                  CHECK_EQ(wait_one(set, kNever_ms), 5);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  CHECK_EQ(wait_one(set, 10), 0);
                }));
                CHECK_EQ(wait_one(set, 10), 0);
                modify(set, fd, EPOLLIN | EPOLLONESHOT, 6);
                CHECK_EQ(wait_one(set, kNever_ms), 6);
                CHECK_EQ(read_exactly(fd, 2), "yz");
                CHECK_EQ(wait_one(set, 10), 0);
                modify(set, fd, EPOLLIN, 7);
                CHECK_EQ(wait_one(set, kNever_ms), 7);
                expect_end_of_stream(fd);
              },
          .leaves_ring = true};

// The maker of the set ends; its child and its grandchild wait.
BEHAVIOUR{.name = "are_shared_by_child_and_grandchild_when_the_maker_has_ended",
          .server =
              [](int fd) {
                await_peer();
                for (int i = 0; i < kBytes; ++i) {
                  write_all(fd, "x");
                  CHECK_EQ(read_exactly(fd, 1), "y");
                }
                tell_peer();
                await_peer();
              },
          .client =
              [](int fd) {
                Shared& all = shared();
                // The maker.
                join_child(in_child([&] {
                  const int set = ::epoll_create1(0);
                  add(set, fd, EPOLLIN | EPOLLONESHOT, 5);
                  const int maker = ::getpid();
                  const auto work = [&] {
                    while (::kill(maker, 0) == 0) sleep_ms(1);
                    meet(all.step, 2);
                    for (;;) {
                      const uint64_t data = wait_one(set, 20);
                      if (all.told == kBytes) return;
                      if (data == 0) continue;
                      char byte = 0;
                      CHECK_EQ(::recv(fd, &byte, 1, MSG_DONTWAIT), 1);
                      ++all.told;
                      modify(set, fd, EPOLLIN | EPOLLONESHOT, 5);
                      write_all(fd, "y");
                    }
                  };
                  (void)in_child([&] {
                    const int grandchild = in_child(work);
                    work();
                    join_child(grandchild);
                    ++all.gone;
                  });
                }));
                await_step(all.step, 2);
                tell_peer();
                await_step(all.gone, 1);
                CHECK_EQ(all.told.load(), kBytes);
                await_peer();
                tell_peer();
              },
          .leaves_ring = true};

// A set is a file: whoever is given it waits for what its maker has registered there.
template <uint32_t kMode>
void pass_a_set(int fd) {
  int pair[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  Shared& all = shared();
  const int child = in_child([&] {
    const int set = ::epoll_create1(0);
    add(set, fd, EPOLLIN | kMode, 0x12345678);
    CHECK_EQ(wait_one(set, 0), 0);
    send_descriptor(pair[1], set);
    await_step(all.step, 1);
    CHECK_EQ(wait_one(set, 10), kMode & EPOLLONESHOT ? 0 : 0x12345678);
    modify(set, fd, EPOLLIN | kMode, 9);
    ++all.step;
    await_step(all.step, 3);
  });
  const int set = receive_descriptor(pair[0]);
  ask_for(1);
  CHECK_EQ(wait_one(set, kNever_ms), 0x12345678);
  ++all.step;
  await_step(all.step, 2);
  CHECK_EQ(wait_one(set, kNever_ms), 9);
  CHECK_EQ(read_exactly(fd, 1), "x");
  const int other = connect_another();
  add(set, other, EPOLLOUT | kMode, 10);
  CHECK_EQ(wait_one(set, kNever_ms), 10);
  ++all.step;
  join_child(child);
  end_peer();
}

void write_when_asked_then_accept(int fd) {
  CHECK_EQ(await_peer(), 1);
  write_all(fd, "x");
  tell_peer();
  accept_another();
  await_peer();
}

BEHAVIOUR{.name = "made_by_a_child_and_passed_to_its_parent",
          .server = write_when_asked_then_accept,
          .client = pass_a_set<0>,
          .leaves_ring = true};
BEHAVIOUR{.name = "of_one_shot_events_made_by_a_child_and_passed_to_its_parent",
          .server = write_when_asked_then_accept,
          .client = pass_a_set<EPOLLONESHOT>,
          .leaves_ring = true};

// Sets and registrations that parent and child make after the fork have nothing to do with one another.
BEHAVIOUR{.name = "are_not_confused_with_those_that_both_make_afterwards",
          .server =
              [](int fd) {
                const int second = accept_another();
                for (int i = 0; i < 4; ++i) {
                  await_peer();
                  write_all(fd, "x");
                  write_all(second, "x");
                  tell_peer();
                }
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                const int second = connect_another();
                Shared& all = shared();
                const int child = in_child([&] {
                  const int own = ::epoll_create1(0);
                  join_child(in_child([] {}));
                  add(own, second, EPOLLIN | EPOLLONESHOT, 100);
                  for (uint64_t data = 101; data < 105; ++data) {
                    modify(own, second, EPOLLIN | EPOLLONESHOT, data);
                    ++all.told;
                    CHECK_EQ(wait_one(own, kNever_ms), data);
                    CHECK_EQ(read_exactly(second, 1), "x");
                  }
                });
                add(set, fd, EPOLLIN | EPOLLONESHOT, 1);
                for (int i = 0; i < 4; ++i) {
                  await_step(all.told, i + 1);
                  modify(set, fd, EPOLLIN | EPOLLONESHOT, 2);
                  tell_peer();
                  CHECK_EQ(wait_one(set, kNever_ms), 2);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  await_peer();
                }
                join_child(child);
              }};

}  // namespace
}  // namespace shunt::behaviour
