// A peer that is stopped in the middle of a write (SIGSTOP, a debugger) while this end leaves: nobody waits for it for
// long, and nothing is lost.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

constexpr size_t kPage = 4096, kWrite = 2 * kPage;
char* pages;

// The second page of what is written appears while it is copied, and the process stops there. (With a handler that libc installed, the write would end in
// front of that page, as the kernel's does.)
void stop_in_the_copy(int) {
  ::mprotect(pages, kWrite, PROT_READ | PROT_WRITE);
  ::raise(SIGSTOP);
}

void write_pages(int fd, uint64_t position) {
  std::memcpy(pages, bytes_at(position, kWrite).data(), kWrite);
  for (size_t done = 0; done < kWrite;) {
    const ssize_t n = ::write(fd, pages + done, kWrite - done);
    CHECK(n > 0);
    done += static_cast<size_t>(n);
  }
}

void write_and_stop_in_it(int fd, uint64_t position) {
  std::memcpy(pages, bytes_at(position, kWrite).data(), kWrite);
  handle_past_libc(SIGSEGV, stop_in_the_copy);
  CHECK_EQ(::mprotect(pages + kPage, kPage, PROT_NONE), 0);
  for (size_t done = 0; done < kWrite;) {
    const ssize_t n = ::write(fd, pages + done, kWrite - done);
    if (n < 0) {  // the kernel copies before it takes anything: the process stops in front of it
      CHECK_EQ(errno, EFAULT);
      stop_in_the_copy(0);
      continue;
    }
    CHECK(n > 0);
    done += static_cast<size_t>(n);
  }
}

// What is written before the stop is left unread, or not.
template <bool kLeftUnread>
void write_and_stop(int fd) {
  void* const mapped = ::mmap(nullptr, kWrite, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(mapped != MAP_FAILED);
  pages = static_cast<char*>(mapped);
  write_pages(fd, 0);
  tell_peer(static_cast<uint32_t>(::getpid()));
  if (!kLeftUnread) await_peer();
  write_and_stop_in_it(fd, kWrite);
  await_peer();  // it makes no further call before all that has come
  write_pages(fd, 2 * kWrite);
  CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
  CHECK_EQ(read_stream_to_end(fd, 0, 1000), kWrite);
}

void await_stopped(int process) {
  for (;;) {
    std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
    std::string text;
    std::getline(stat, text);
    if (text.substr(text.rfind(')') + 2, 1) == "T") return;
    sleep_ms(1);
  }
}

// Returns the peer, which has stopped.
int await_stop(int fd, bool left_unread) {
  const auto peer = static_cast<int>(await_peer());
  if (!left_unread) {
    read_stream(fd, 0, kWrite, 3000);
    tell_peer();
  }
  await_stopped(peer);
  return peer;
}

void read_all_and_reply(int fd, uint64_t from) {
  read_stream(fd, from, 2 * kWrite - from, 3000);
  tell_peer();
  read_stream(fd, 2 * kWrite, kWrite, 3000);
  expect_end_of_stream(fd);
  write_stream(fd, 0, kWrite, 3000);
}

template <bool kLeftUnread>
void hand_on(int fd) {
  const int peer = await_stop(fd, kLeftUnread);
  int pair[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const int child = in_child([&] {
    ::close(fd);
    read_all_and_reply(receive_descriptor(pair[1]), kLeftUnread ? 0 : kWrite);
  });
  const double begin = now_ms();
  send_descriptor(pair[0], fd);
  CHECK(now_ms() - begin < 5000);
  CHECK_EQ(::close(fd), 0);
  CHECK_EQ(::kill(peer, SIGCONT), 0);
  join_child(child);
}

BEHAVIOUR{.name = "before_unread_bytes_of_it_are_handed_on",
          .server = hand_on<true>,
          .client = write_and_stop<true>,
          .leaves_ring = true};
BEHAVIOUR{.name = "before_the_connection_is_handed_on",
          .server = hand_on<false>,
          .client = write_and_stop<false>,
          .leaves_ring = true};

// Back to the kernel, and still read by the process that had it.
BEHAVIOUR{.name = "before_sigio_is_asked_for",
          .server =
              [](int fd) {
                const int peer = await_stop(fd, true);
                CHECK_EQ(::fcntl(fd, F_SETOWN, ::getpid()), 0);
                CHECK_EQ(::kill(peer, SIGCONT), 0);
                read_all_and_reply(fd, 0);
                CHECK_EQ(::close(fd), 0);
              },
          .client = write_and_stop<true>,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
