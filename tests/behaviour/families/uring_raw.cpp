// Rings that a program makes and serves by itself, as libuv does: io_uring_setup and io_uring_enter through syscall(2), the memory through
// mmap. A ring that carries epoll_ctl alone keeps nobody from the ring in memory. Where the kernel refuses rings, epoll_ctl is called.
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr unsigned kNoArray = 1U << 16;  // IORING_SETUP_NO_SQARRAY, younger than our oldest headers
enum class Mapped { by_libc, by_number };

class Ring {
 public:
  explicit Ring(unsigned flags = kNoArray, Mapped how = Mapped::by_libc) {
    io_uring_params made{};
    made.flags = flags;
    fd_ = static_cast<int>(::syscall(SYS_io_uring_setup, 8, &made));
    if (fd_ < 0) return;
    long_entries_ = (flags & IORING_SETUP_SQE128) != 0;
    has_array_ = (flags & kNoArray) == 0;
    count_ = made.sq_entries;
    CHECK_EQ(count_, kEntries);
    const size_t indices = made.sq_off.array + count_ * sizeof(unsigned);
    const size_t answers = made.cq_off.cqes + made.cq_entries * sizeof(io_uring_cqe) * ((flags & IORING_SETUP_CQE32) ? 2 : 1);
    ring_bytes_ = std::max(indices, answers);
    ring_ = map(how, ring_bytes_, IORING_OFF_SQ_RING);
    entries_ = map(how, entries_bytes(), IORING_OFF_SQES);
    head_ = word(made.sq_off.head), tail_ = word(made.sq_off.tail);
    answered_ = word(made.cq_off.tail), seen_ = word(made.cq_off.head);
    answers_ = reinterpret_cast<io_uring_cqe*>(ring_ + made.cq_off.cqes);
    answers_mask_ = made.cq_entries - 1;
    // Any order will do.
    if (has_array_)
      for (unsigned i = 0; i < count_; ++i) word(made.sq_off.array)[i] = place(i);
  }
  ~Ring() { close(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  explicit operator bool() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  void close() {
    if (fd_ < 0) return;
    ::munmap(ring_, ring_bytes_);
    ::munmap(entries_, entries_bytes());
    ::syscall(SYS_close, fd_);
    fd_ = -1;
  }

  // The next entry, which `submit` takes along. Up to eight.
  io_uring_sqe& add() {
    CHECK(prepared_ - submitted_ < kEntries);
    io_uring_sqe& entry = *entry_at(prepared_++);
    std::memset(&entry, 0, entry_bytes());
    return entry;
  }

  void control(int set, int operation, int fd, uint32_t events = 0, uint8_t flags = 0) {
    epoll_event& event = events_[prepared_ % kEntries];
    event = {.events = events, .data = {.u64 = 0xabcd000000000000U + static_cast<uint64_t>(fd)}};
    if (fd_ < 0) {
      results_[prepared_++ % kEntries] = ::epoll_ctl(set, operation, fd, &event) == 0 ? 0 : -errno;
      return;
    }
    io_uring_sqe& entry = add();
    ::io_uring_prep_epoll_ctl(&entry, set, fd, operation, &event);
    entry.flags = flags;
  }
  void nop() {
    if (fd_ < 0)
      results_[prepared_++ % kEntries] = 0;
    else
      ::io_uring_prep_nop(&add());
  }

  // After another process has used it.
  void catch_up() {
    if (fd_ >= 0) prepared_ = submitted_ = *tail_;
  }

  // The results of the prepared entries, in their order. In one call, or with one call for each.
  std::vector<int> submit(bool one_by_one = false) {
    const unsigned first = submitted_, count = prepared_ - first;
    publish();
    if (fd_ >= 0)
      for (unsigned done = 0; done < count; done += one_by_one ? 1 : count) enter(one_by_one ? 1 : count);
    return results(first, count);
  }

  // The parts of it.
  void publish() {
    for (unsigned at = submitted_; at != prepared_ && fd_ >= 0; ++at) {
      entry_at(at)->user_data = kMarked + at;
      std::memcpy(&copies_[at % kEntries], entry_at(at), sizeof(io_uring_sqe));
    }
    submitted_ = prepared_;
    if (fd_ >= 0) __atomic_store_n(tail_, prepared_, __ATOMIC_RELEASE);
  }
  void enter(unsigned count) {
    CHECK_EQ(::syscall(SYS_io_uring_enter, fd_, count, count, IORING_ENTER_GETEVENTS, nullptr, 0), count);
    for (unsigned at = *head_ - count; at != *head_; ++at) expect_untouched(at);
  }
  std::vector<int> results(unsigned first, unsigned count) {
    for (unsigned i = 0; i < count && fd_ >= 0; ++i) {
      CHECK(__atomic_load_n(answered_, __ATOMIC_ACQUIRE) != *seen_);
      const io_uring_cqe& answer = answers_[*seen_ & answers_mask_];
      const auto position = static_cast<unsigned>(answer.user_data - kMarked);
      CHECK(position - first < count);
      CHECK_EQ(answer.flags, 0);
      results_[position % kEntries] = answer.res;
      __atomic_store_n(seen_, *seen_ + 1, __ATOMIC_RELEASE);
    }
    std::vector<int> answers;
    for (unsigned i = 0; i < count; ++i) answers.push_back(results_[(first + i) % kEntries]);
    return answers;
  }

  int control_now(int set, int operation, int fd, uint32_t events = 0, uint8_t flags = 0) {
    control(set, operation, fd, events, flags);
    return submit().front();
  }

 private:
  static constexpr unsigned kEntries = 8;
  static constexpr uint64_t kMarked = 0x1234567800000000;

  size_t entry_bytes() const { return sizeof(io_uring_sqe) * (long_entries_ ? 2 : 1); }
  size_t entries_bytes() const { return count_ * entry_bytes(); }
  unsigned place(unsigned at) const { return has_array_ ? (at * 3 + 5) % kEntries : at % kEntries; }
  io_uring_sqe* entry_at(unsigned at) { return reinterpret_cast<io_uring_sqe*>(entries_ + place(at % kEntries) * entry_bytes()); }
  unsigned* word(unsigned offset) { return reinterpret_cast<unsigned*>(ring_ + offset); }
  char* map(Mapped how, size_t bytes, off_t offset) const {
    void* memory = how == Mapped::by_libc
                       ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, offset)
                       : reinterpret_cast<void*>(::syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, offset));
    CHECK(memory != MAP_FAILED);
    return static_cast<char*>(memory);
  }
  // What the program wrote there is its own.
  void expect_untouched(unsigned at) {
    CHECK(std::memcmp(&copies_[at % kEntries], entry_at(at), sizeof(io_uring_sqe)) == 0);
  }

  int fd_ = -1;
  bool long_entries_ = false, has_array_ = false;
  unsigned count_ = kEntries;
  char* ring_ = nullptr;
  char* entries_ = nullptr;
  size_t ring_bytes_ = 0;
  unsigned *head_ = nullptr, *tail_ = nullptr, *answered_ = nullptr, *seen_ = nullptr;
  io_uring_cqe* answers_ = nullptr;
  unsigned answers_mask_ = 0;
  unsigned prepared_ = 0, submitted_ = 0;
  std::array<io_uring_sqe, kEntries> copies_{};
  std::array<epoll_event, kEntries> events_{};
  std::array<int, kEntries> results_{};
};

uint32_t wait_one(int set, int fd, int timeout_ms = 10'000) {
  epoll_event event{};
  int count;
  // The kernel interrupts a thread whose ring it takes apart, a while after the ring was closed.
  do count = ::epoll_wait(set, &event, 1, timeout_ms);
  while (count < 0 && errno == EINTR);
  CHECK(count >= 0);
  if (count == 0) return 0;
  CHECK_EQ(event.data.u64, 0xabcd000000000000U + static_cast<uint64_t>(fd));
  return event.events;
}

struct Set {
  int fd = ::epoll_create1(EPOLL_CLOEXEC);
  operator int() const { return fd; }
};

constexpr size_t kMessage = 1000;

// A loop as libuv's: registered by the ring, then waits, reads and answers, until the end.
void serve(Ring& ring, int set, int fd, uint64_t position = 0) {
  for (;;) {
    CHECK(wait_one(set, fd) & (EPOLLIN | EPOLLHUP));
    const std::string data = read_some(fd, kMessage);
    if (data.empty()) break;
    CHECK_EQ(agreeing(data, position), data.size());
    position += data.size();
    write_all(fd, data);
    // The interest changes now and then.
    if (position % 4000 == 0) {
      CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT), 0);
      CHECK(wait_one(set, fd) & EPOLLOUT);
      CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN), 0);
    }
  }
}

void ask_and_compare(int fd, uint64_t first = 0, uint64_t rounds = 40) {
  for (uint64_t i = first; i < first + rounds; ++i) {
    write_all(fd, bytes_at(i * kMessage, kMessage));
    CHECK_EQ(read_exactly(fd, kMessage), bytes_at(i * kMessage, kMessage));
  }
}
void ask_and_close(int fd) {
  ask_and_compare(fd);
  ::close(fd);
}

void register_and_serve(int fd, unsigned flags, Mapped how = Mapped::by_libc) {
  Ring ring(flags, how);
  const Set set;
  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
  serve(ring, set, fd);
  CHECK_EQ(ring.control_now(set, EPOLL_CTL_DEL, fd), 0);
}

BEHAVIOUR{.name = "registers_and_serves", .server = [](int fd) { register_and_serve(fd, kNoArray); }, .client = ask_and_close};

BEHAVIOUR{.name = "registers_before_the_first_byte",
          .server = [](int fd) { register_and_serve(fd, kNoArray); },
          .client = ask_and_close,
          .warms_up = false};

BEHAVIOUR{.name = "registers_by_indices", .server = [](int fd) { register_and_serve(fd, 0); }, .client = ask_and_close};

BEHAVIOUR{.name = "registers_by_long_entries",
          .server = [](int fd) { register_and_serve(fd, IORING_SETUP_SQE128); },
          .client = ask_and_close};

BEHAVIOUR{.name = "registers_by_memory_from_a_number",
          .server = [](int fd) { register_and_serve(fd, kNoArray, Mapped::by_number); },
          .client = ask_and_close};

BEHAVIOUR{.name = "client_registers",
          .server =
              [](int fd) {
                for (uint64_t i = 0; i < 40; ++i) {
                  const std::string data = read_exactly(fd, kMessage);
                  CHECK_EQ(data, bytes_at(i * kMessage, kMessage));
                  write_all(fd, data);
                }
              },
          .client =
              [](int fd) {
                Ring ring;
                const Set set;
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                for (uint64_t i = 0; i < 40; ++i) {
                  write_all(fd, bytes_at(i * kMessage, kMessage));
                  CHECK_EQ(wait_one(set, fd), EPOLLIN);
                  CHECK_EQ(read_exactly(fd, kMessage), bytes_at(i * kMessage, kMessage));
                }
              }};

// A socket that is registered before it is connected.
BEHAVIOUR{.name = "client_registers_before_it_connects",
          .server =
              [](int) {
                const int listener = listen_at(abstract_address());
                tell_peer();
                const int fd = accept_at(listener);
                for (uint64_t i = 0; i < 40; ++i) {
                  const std::string data = read_exactly(fd, kMessage);
                  CHECK_EQ(data, bytes_at(i * kMessage, kMessage));
                  write_all(fd, data);
                }
                await_peer();
              },
          .client =
              [](int) {
                Ring ring;
                const Set set;
                const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                const Address address = abstract_address();
                await_peer();
                CHECK_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address.name), address.length), 0);
                for (uint64_t i = 0; i < 40; ++i) {
                  write_all(fd, bytes_at(i * kMessage, kMessage));
                  CHECK_EQ(wait_one(set, fd), EPOLLIN);
                  CHECK_EQ(read_exactly(fd, kMessage), bytes_at(i * kMessage, kMessage));
                }
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLOUT), 0);
                CHECK_EQ(wait_one(set, fd), EPOLLOUT);
                tell_peer();
              },
          .connects_itself = true};

void write_a_byte_when_asked(int fd) {
  await_peer();
  write_all(fd, "x");
  tell_peer();
  await_peer();
}

BEHAVIOUR{.name = "changes_of_interest",
          .server = write_a_byte_when_asked,
          .client =
              [](int fd) {
                Ring ring;
                const Set set;
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                CHECK_EQ(wait_one(set, fd, 0), 0);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT), 0);
                CHECK_EQ(wait_one(set, fd, 0), EPOLLOUT);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, 0), 0);
                CHECK_EQ(wait_one(set, fd, 0), 0);
                tell_peer();
                await_peer();
                CHECK_EQ(wait_one(set, fd, 0), 0);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN), 0);
                CHECK_EQ(wait_one(set, fd), EPOLLIN);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_DEL, fd), 0);
                CHECK_EQ(wait_one(set, fd, 0), 0);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT), 0);
                CHECK_EQ(wait_one(set, fd), EPOLLIN | EPOLLOUT);
                CHECK_EQ(read_exactly(fd, 1), "x");
                tell_peer();
              }};

BEHAVIOUR{.name = "one_shot",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  await_peer();
                  write_all(fd, "x");
                  tell_peer();
                }
                await_peer();
              },
          .client =
              [](int fd) {
                Ring ring;
                const Set set;
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT), 0);
                for (int i = 0; i < 3; ++i) {
                  tell_peer();
                  await_peer();
                  CHECK_EQ(wait_one(set, fd), EPOLLIN);
                  CHECK_EQ(wait_one(set, fd, 0), 0);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), -EEXIST);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT), 0);
                }
                tell_peer();
              }};

void expect_results(Ring& ring, const std::vector<int>& wanted) {
  const std::vector<int> got = ring.submit();
  CHECK_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    about("entry " + std::to_string(i));
    CHECK_EQ(got[i], wanted[i]);
  }
}

// Each in a call of its own, and all in one.
BEHAVIOUR{.name = "what_fails_fails_as_epoll_ctl",
          .server = write_a_byte_when_asked,
          .client =
              [](int fd) {
                Ring ring;
                const Set set;
                const int file = ::open(scratch_file("file").c_str(), O_RDWR | O_CREAT, 0600);
                const int closed = ::dup(file);
                ::close(closed);
                for (int round = 0; round < 2; ++round) {
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN), -ENOENT);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_DEL, fd), -ENOENT);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLOUT), -EEXIST);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, closed, EPOLLIN), -EBADF);
                  CHECK_EQ(ring.control_now(closed, EPOLL_CTL_ADD, fd, EPOLLIN), -EBADF);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, file, EPOLLIN), -EPERM);
                  CHECK_EQ(ring.control_now(file, EPOLL_CTL_ADD, fd, EPOLLIN), -EINVAL);
                  CHECK_EQ(ring.control_now(set, 77, fd, EPOLLIN), -EINVAL);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_DEL, fd), 0);
                  ring.control(set, EPOLL_CTL_DEL, fd);
                  ring.control(set, EPOLL_CTL_MOD, fd, EPOLLIN);
                  ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                  ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                  ring.nop();
                  ring.control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
                  ring.control(set, EPOLL_CTL_DEL, fd);
                  ring.control(set, EPOLL_CTL_DEL, fd);
                  expect_results(ring, {-ENOENT, -ENOENT, 0, -EEXIST, 0, 0, 0, -ENOENT});
                }
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                tell_peer();
                await_peer();
                CHECK_EQ(wait_one(set, fd), EPOLLIN);
                CHECK_EQ(read_exactly(fd, 1), "x");
                tell_peer();
              }};

BEHAVIOUR{.name = "an_event_in_bad_memory",
          .server = write_a_byte_when_asked,
          .client =
              [](int fd) {
                Ring ring;
                const Set set;
                if (ring) {
                  ::io_uring_prep_epoll_ctl(&ring.add(), set, fd, EPOLL_CTL_ADD, reinterpret_cast<epoll_event*>(8));
                  CHECK_EQ(ring.submit().front(), -EFAULT);
                }
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                tell_peer();
                await_peer();
                CHECK_EQ(wait_one(set, fd), EPOLLIN);
                CHECK_EQ(read_exactly(fd, 1), "x");
                tell_peer();
              }};

BEHAVIOUR{.name = "beside_others_and_nops",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                int ends[2];
                CHECK_EQ(::pipe2(ends, O_CLOEXEC), 0);
                const int counter = ::eventfd(0, EFD_CLOEXEC);
                ring.nop();
                ring.control(set, EPOLL_CTL_ADD, ends[0], EPOLLIN);
                ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                ring.nop();
                ring.control(set, EPOLL_CTL_ADD, counter, EPOLLIN);
                ring.control(set, EPOLL_CTL_ADD, counter, EPOLLIN);
                expect_results(ring, {0, 0, 0, 0, 0, -EEXIST});
                write_all(ends[1], "p");
                epoll_event events[3]{};
                const int count = ::epoll_wait(set, events, 3, 0);  // the client may have asked by now
                CHECK(count == 1 || count == 2);
                CHECK(static_cast<int>(events[0].data.u64) == ends[0] || static_cast<int>(events[count - 1].data.u64) == ends[0]);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_DEL, ends[0]), 0);
                serve(ring, set, fd);
              },
          .client = ask_and_close};

BEHAVIOUR{.name = "one_by_one_of_several",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                ring.control(set, EPOLL_CTL_ADD, fd, EPOLLOUT);
                ring.control(set, EPOLL_CTL_MOD, fd, EPOLLIN);
                ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                const std::vector<int> results = ring.submit(true);
                CHECK_EQ(results[0], 0);
                CHECK_EQ(results[1], 0);
                CHECK_EQ(results[2], -EEXIST);
                serve(ring, set, fd);
              },
          .client = ask_and_close};

BEHAVIOUR{.name = "round_and_round",
          .server =
              [](int fd) {
                Ring ring(0);
                const Set set;
                for (int i = 0; i < 100; ++i) {
                  ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                  ring.control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
                  ring.control(set, i % 2 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, EPOLLOUT);
                  ring.control(set, EPOLL_CTL_DEL, fd);
                  expect_results(ring, {0, 0, i % 2 ? -EEXIST : 0, 0});
                }
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                serve(ring, set, fd);
              },
          .client = ask_and_close};

BEHAVIOUR{.name = "a_second_ring_and_a_closed_one",
          .server =
              [](int fd) {
                const Set set, other;
                Ring first;
                Ring second(0);
                CHECK_EQ(first.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                CHECK_EQ(second.control_now(other, EPOLL_CTL_ADD, fd, EPOLLOUT), 0);
                CHECK_EQ(wait_one(other, fd, 0), EPOLLOUT);
                CHECK_EQ(second.control_now(other, EPOLL_CTL_DEL, fd), 0);
                const int number = first.fd();
                first.close();
                for (int i = 0; i < 40; ++i) {  // as many as a program with threads makes in its time
                  Ring again(i % 2 ? kNoArray : 0);
                  if (again) CHECK_EQ(again.fd(), number);
                  CHECK_EQ(again.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), -EEXIST);
                  CHECK_EQ(again.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN), 0);
                }
                serve(second, set, fd);
              },
          .client = ask_and_close};

BEHAVIOUR{.name = "a_thread_waits_while_another_submits",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                if (ring) {
                  std::thread waiter([&] { CHECK_EQ(::syscall(SYS_io_uring_enter, ring.fd(), 0, 2, IORING_ENTER_GETEVENTS, nullptr, 0), 0); });
                  sleep_ms(20);
                  ring.control(set, EPOLL_CTL_MOD, fd, EPOLLOUT);
                  ring.control(set, EPOLL_CTL_MOD, fd, EPOLLIN);
                  ring.publish();
                  CHECK_EQ(::syscall(SYS_io_uring_enter, ring.fd(), 2, 0, 0, nullptr, 0), 2);
                  waiter.join();
                  for (const int result : ring.results(1, 2)) CHECK_EQ(result, 0);
                }
                serve(ring, set, fd);
              },
          .client = ask_and_close};

BEHAVIOUR{.name = "threads_with_rings_of_their_own",
          .server =
              [](int fd) {
                std::vector<std::thread> threads;
                for (const int each : {fd, accept_another(), accept_another(), accept_another()})
                  threads.emplace_back([each] {
                    for (int i = 0; i < 20; ++i) {
                      const Ring passing;
                    }
                    register_and_serve(each, kNoArray);
                  });
                for (std::thread& thread : threads) thread.join();
              },
          .client =
              [](int fd) {
                std::vector<std::thread> threads;
                for (const int each : {fd, connect_another(), connect_another(), connect_another()}) threads.emplace_back(ask_and_close, each);
                for (std::thread& thread : threads) thread.join();
              }};

// ---- what goes back to the kernel

// With a flag, an entry may have to wait for its turn.
void register_flagged(int fd, uint8_t flags) {
  Ring ring;
  const Set set;
  ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN, flags);
  ring.nop();
  expect_results(ring, {0, 0});
  serve(ring, set, fd);
}

BEHAVIOUR{.name = "linked", .server = [](int fd) { register_flagged(fd, IOSQE_IO_LINK); }, .client = ask_and_close, .leaves_ring = true};
BEHAVIOUR{.name = "drained", .server = [](int fd) { register_flagged(fd, IOSQE_IO_DRAIN); }, .client = ask_and_close, .leaves_ring = true};
BEHAVIOUR{.name = "in_a_kernel_thread", .server = [](int fd) { register_flagged(fd, IOSQE_ASYNC); }, .client = ask_and_close, .leaves_ring = true};

// What is linked to one that fails is not done.
BEHAVIOUR{.name = "linked_to_one_that_fails",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                const int number = ::eventfd(0, EFD_CLOEXEC);
                ring.control(set, EPOLL_CTL_DEL, number, 0, IOSQE_IO_LINK);
                ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                if (ring) {
                  expect_results(ring, {-ENOENT, -ECANCELED});
                  CHECK_EQ(wait_one(set, fd, 0), 0);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                } else {
                  ring.submit();
                }
                serve(ring, set, fd);
              },
          .client = ask_and_close,
          .leaves_ring = true};

// Without a completion where it succeeds.
BEHAVIOUR{.name = "silent",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN, IOSQE_CQE_SKIP_SUCCESS);
                if (ring) {
                  ring.publish();
                  CHECK_EQ(::syscall(SYS_io_uring_enter, ring.fd(), 1, 0, IORING_ENTER_GETEVENTS, nullptr, 0), 1);
                } else {
                  ring.submit();
                }
                serve(ring, set, fd);
              },
          .client = ask_and_close,
          .leaves_ring = true};

// A sandbox that refuses epoll_ctl sees nothing of the entries.
BEHAVIOUR{.name = "in_a_sandbox_without_epoll_ctl",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                if (!ring) CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                sock_filter steps[] = {
                    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_ctl, 0, 1),
                    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
                };
                const sock_fprog filter{.len = 4, .filter = steps};
                CHECK_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
                CHECK_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
                if (ring) CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                uint64_t position = 0;
                while (wait_one(set, fd) & EPOLLIN) {
                  const std::string data = read_some(fd, kMessage);
                  if (data.empty()) break;
                  CHECK_EQ(agreeing(data, position), data.size());
                  position += data.size();
                  write_all(fd, data);
                }
              },
          .client = ask_and_close,
          .leaves_ring = true};

BEHAVIOUR{.name = "reads_a_connection_beside_another",
          .server =
              [](int fd) {
                const int other = accept_another();
                Ring ring;
                const Set set;
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                for (uint64_t i = 0; i < 20; ++i) {
                  std::string data(kMessage, '\0');
                  if (ring) {
                    ::io_uring_prep_recv(&ring.add(), other, data.data(), data.size(), MSG_WAITALL);
                    CHECK_EQ(ring.submit().front(), kMessage);
                  } else {
                    data = read_exactly(other, kMessage);
                  }
                  CHECK_EQ(data, bytes_at(i * kMessage, kMessage));
                  write_all(other, data);
                }
                serve(ring, set, fd);
              },
          .client =
              [](int fd) {
                const int other = connect_another();
                ask_and_compare(other, 0, 20);
                ask_and_close(fd);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "closes",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                write_stream(fd, 0, 20'000, 20'000);
                if (!ring) return (void)::close(fd);
                ring.control(set, EPOLL_CTL_DEL, fd);
                ::io_uring_prep_close(&ring.add(), fd);
                expect_results(ring, {0, 0});
                CHECK_EQ(::open("/dev/zero", O_RDONLY | O_CLOEXEC), fd);
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), -EPERM);
              },
          .client = [](int fd) { CHECK_EQ(read_stream_to_end(fd, 0, 3000), 20'000U); },
          .leaves_ring = true};

BEHAVIOUR{.name = "a_set_in_a_set",
          .server =
              [](int fd) {
                Ring ring;
                const Set inner, outer;
                CHECK_EQ(ring.control_now(inner, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                CHECK_EQ(ring.control_now(outer, EPOLL_CTL_ADD, inner, EPOLLIN), 0);
                tell_peer();
                CHECK_EQ(wait_one(outer, inner), EPOLLIN);
                serve(ring, inner, fd);
              },
          .client =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                ask_and_close(fd);
              },
          .leaves_ring = true};

// More than are remembered.
BEHAVIOUR{.name = "many_rings",
          .server =
              [](int fd) {
                const Set set;
                std::vector<std::unique_ptr<Ring>> rings;
                for (int i = 0; i < 40; ++i) rings.push_back(std::make_unique<Ring>());
                CHECK_EQ(rings[30]->control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                CHECK_EQ(rings[3]->control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT), 0);
                CHECK_EQ(rings[39]->control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN), 0);
                serve(*rings[5], set, fd);
              },
          .client = ask_and_close,
          .leaves_ring = true};

BEHAVIOUR{.name = "a_kernel_thread_takes_the_entries",
          .server =
              [](int fd) {
                Ring ring(IORING_SETUP_SQPOLL);
                const Set set;
                if (ring) {
                  ring.control(set, EPOLL_CTL_ADD, fd, EPOLLIN);
                  ring.publish();
                  CHECK_EQ(::syscall(SYS_io_uring_enter, ring.fd(), 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP, nullptr, 0), 0);
                  CHECK_EQ(ring.results(0, 1).front(), 0);
                } else {
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                }
                Ring other;
                serve(other, set, fd);
              },
          .client = ask_and_close,
          .leaves_ring = true};

// A child has the ring, its memory and the set; both use them, one after the other.
BEHAVIOUR{.name = "a_child_goes_on_with_the_ring",
          .server =
              [](int fd) {
                Ring ring;
                const Set set;
                CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT), 0);
                join_child(in_child([&] {
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_MOD, fd, EPOLLIN), 0);
                  CHECK_EQ(ring.control_now(set, EPOLL_CTL_ADD, fd, EPOLLIN), -EEXIST);
                  // Its own, as libuv makes them after a fork.
                  Ring own(0);
                  const Set own_set;
                  CHECK_EQ(own.control_now(own_set, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
                  tell_peer();
                  for (uint64_t i = 0; i < 10; ++i) {
                    CHECK_EQ(wait_one(own_set, fd), EPOLLIN);
                    const std::string data = read_exactly(fd, kMessage);
                    CHECK_EQ(data, bytes_at(i * kMessage, kMessage));
                    write_all(fd, data);
                  }
                  CHECK_EQ(own.control_now(own_set, EPOLL_CTL_DEL, fd), 0);
                }));
                ring.catch_up();
                CHECK_EQ(wait_one(set, fd, 0), 0);
                tell_peer();
                serve(ring, set, fd, 10 * kMessage);
              },
          .client =
              [](int fd) {
                await_peer();
                ask_and_compare(fd, 0, 10);
                await_peer();
                ask_and_compare(fd, 10, 30);
                ::close(fd);
              },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
