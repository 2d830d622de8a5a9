// Descriptor numbers that change their meaning behind the library's back: closed by the program's own instructions and
// given out again, used in a vfork child, by a thread with descriptors of its own, by a spawned program.
#include <fcntl.h>
#include <linux/close_range.h>
#include <mqueue.h>
#include <pty.h>
#include <sched.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

extern char** environ;
extern "C" {  // glibc 2.36 forgot it
#include <sys/pidfd.h>
}

namespace shunt::behaviour {
namespace {

// Past libc.
void close_unseen(int fd) {
  long result = SYS_close;
  asm volatile("syscall" : "+a"(result) : "D"(fd) : "rcx", "r11", "memory");
  CHECK_EQ(result, 0);
}

int made_by_template(int (*make)(char*)) {
  std::string path = scratch_file("fileXXXXXX");
  return make(path.data());
}

int terminal = -1;  // made before the number is free

struct Maker {
  const char* name;
  int (*make)();
};

// What they make answers EAGAIN, or nothing, or holds nothing: a socket with three unread bytes is none of that.
constexpr Maker kMakers[] = {
    {"open", [] { return ::open("/dev/null", O_RDWR); }},
    {"open64", [] { return ::open64("/dev/null", O_RDWR); }},
    {"openat", [] { return ::openat(AT_FDCWD, "/dev/null", O_RDWR); }},
    {"creat", [] { return ::creat(scratch_file("new").c_str(), 0600); }},
    {"mkstemp", [] { return made_by_template(::mkstemp); }},
    {"memfd_create", [] { return ::memfd_create("x", 0); }},
    {"tmpfile", [] { return ::fileno(std::tmpfile()); }},
    {"fopen", [] { return ::fileno(std::fopen("/dev/null", "r+")); }},
    {"eventfd", [] { return ::eventfd(0, EFD_NONBLOCK); }},
    {"timerfd_create", [] { return ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); }},
    {"inotify_init1", [] { return ::inotify_init1(IN_NONBLOCK); }},
    {"pipe2",
     [] {
       int ends[2];
       CHECK_EQ(::pipe2(ends, O_NONBLOCK), 0);
       return ends[0];
     }},
    {"socket", [] { return ::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0); }},
    {"posix_openpt", [] { return ::posix_openpt(O_RDWR | O_NONBLOCK | O_NOCTTY); }},
    {"openat by number", [] { return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR)); }},
    {"TIOCGPTPEER", [] { return ::ioctl(terminal, TIOCGPTPEER, O_RDWR | O_NONBLOCK | O_NOCTTY); }},
    {"TIOCGPTPEER by number",
     [] { return static_cast<int>(::syscall(SYS_ioctl, terminal, TIOCGPTPEER, O_RDWR | O_NONBLOCK | O_NOCTTY)); }},
    {"eventfd2 by number", [] { return static_cast<int>(::syscall(SYS_eventfd2, 0, EFD_NONBLOCK)); }},
};

void is_something_new(int fd) {
  char data[8];
  const ssize_t n = ::read(fd, data, sizeof data);
  CHECK(n == 0 || (n < 0 && (errno == EAGAIN || errno == EBADF)));  // EBADF: creat opens for writing only
}

BEHAVIOUR{.name = "closed_unseen_and_given_out_again",
          .server =
              [](int) {
                for ([[maybe_unused]] const Maker& maker : kMakers) {
                  const int fd = accept_another();
                  write_all(fd, "abc");
                  tell_peer();
                  char byte = 0;
                  // Bytes were left unread: a reset, or the end where they had not been sent before.
                  const ssize_t n = ::read(fd, &byte, 1);
                  CHECK(n == 0 || (n < 0 && errno == ECONNRESET));
                  CHECK_EQ(::close(fd), 0);
                }
              },
          .client =
              [](int) {
                terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
                CHECK_EQ(::unlockpt(terminal), 0);
                for (const Maker& maker : kMakers) {
                  about(maker.name);
                  const int fd = connect_another();
                  await_peer();
                  close_unseen(fd);
                  const int other = maker.make();
                  CHECK_EQ(other, fd);
                  is_something_new(other);
                }
              }};

// libc writes to the number that it knows, whatever is there.
BEHAVIOUR{.name = "put_under_a_stream_of_libc",
          .server =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 6), "before");
                CHECK_EQ(read_exactly(fd, 11), "by a stream");
                write_all(fd, "answer\n");
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                std::FILE* file = std::fopen("/dev/null", "r+");
                const int number = ::fileno(file);
                write_all(fd, "before");
                CHECK_EQ(::dup2(fd, number), number);
                CHECK_EQ(::close(fd), 0);
                CHECK_EQ(std::fputs("by a stream", file), 1);
                CHECK_EQ(std::fflush(file), 0);
                char line[20];
                CHECK(std::fgets(line, sizeof line, file) == line);
                CHECK_EQ(std::string(line), "answer\n");
                CHECK_EQ(std::fclose(file), 0);
              },
          .leaves_ring = true};

// Its numbers are its own, although it runs on its parent's memory.
BEHAVIOUR{.name = "vfork_child_gives_the_number_to_other_files",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) write_all(fd, read_exactly(fd, 5000));
              },
          .client =
              [](int fd) {
                const int null = ::open("/dev/null", O_RDWR);
                for (uint64_t way = 0; way < 3; ++way) {
                  const int child = static_cast<int>(::vfork());
                  if (child == 0) {
                    if (way == 0) ::dup2(null, fd);
                    if (way == 1) ::close(fd), ::open("/dev/null", O_RDWR);
                    if (way == 2) ::close(fd), ::dup(null);
                    ::_exit(::write(fd, "x", 1) == 1 ? 0 : 1);
                  }
                  const std::string data = bytes_at(way, 5000);
                  const int next = static_cast<int>(::vfork());  // has its parent's numbers again
                  if (next == 0) ::_exit(::write(fd, data.data(), 1000) == 1000 ? 0 : 1);
                  join_child(child);
                  join_child(next);
                  write_all(fd, data.substr(1000));
                  CHECK_EQ(agreeing(read_exactly(fd, 5000), way), 5000U);
                }
              }};

void have_own_descriptors(int fd, int way) {
  std::thread([fd, way] {
    if (way == 0) {
      CHECK_EQ(::unshare(CLONE_FILES), 0);
      CHECK_EQ(::close(fd), 0);
    } else {
      const auto number = static_cast<unsigned>(fd);
      CHECK_EQ(::close_range(number, number, CLOSE_RANGE_UNSHARE), 0);
    }
    CHECK_EQ(::open("/dev/null", O_RDWR), fd);
    CHECK_EQ(::write(fd, "x", 1), 1);
  }).join();
}

BEHAVIOUR{.name = "a_thread_with_descriptors_of_its_own",
          .server =
              [](int fd) {
                for (int i = 0; i < 4; ++i) write_all(fd, read_exactly(fd, 5000));
                CHECK_EQ(read_exactly(fd, 6), "unread");
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                for (int way = 0; way < 2; ++way) {
                  about("way " + std::to_string(way));
                  have_own_descriptors(fd, way);
                  for (uint64_t i = 0; i < 2; ++i) {
                    write_all(fd, bytes_at(i, 5000));
                    CHECK_EQ(agreeing(read_exactly(fd, 5000), i), 5000U);
                  }
                }
                write_all(fd, "unread");
                CHECK_EQ(::close(fd), 0);
              },
          .leaves_ring = true};

// A file action names a number; what it is then is decided by the spawn.
BEHAVIOUR{.name = "file_action_made_before_the_connection",
          .server =
              [](int) {
                const int number = ::dup(STDIN_FILENO);
                CHECK_EQ(::close(number), 0);
                posix_spawn_file_actions_t actions;
                ::posix_spawn_file_actions_init(&actions);
                ::posix_spawn_file_actions_adddup2(&actions, number, STDIN_FILENO);
                ::posix_spawn_file_actions_adddup2(&actions, number, STDOUT_FILENO);
                ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
                const int fd = accept_another();
                CHECK_EQ(fd, number);
                CHECK_EQ(::fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
                write_all(fd, read_exactly(fd, 1000));
                char name[] = "cat";
                char* arguments[] = {name, nullptr};
                pid_t child = -1;
                CHECK_EQ(::posix_spawn(&child, "/bin/cat", &actions, nullptr, arguments, environ), 0);
                CHECK_EQ(::close(fd), 0);
                join_child(child);
              },
          .client =
              [](int) {
                const int fd = connect_another();
                write_all(fd, bytes_at(7, 1000));
                CHECK_EQ(agreeing(read_exactly(fd, 1000), 7), 1000U);
                write_stream(fd, 0, 20'000, 20'000);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                CHECK_EQ(read_stream_to_end(fd, 0, 3000), 20'000);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "pidfd_getfd_of_the_own_process",
          .server =
              [](int fd) {
                for (int i = 0; i < 2; ++i) write_all(fd, read_exactly(fd, 5000));
              },
          .client =
              [](int fd) {
                const int self = ::pidfd_open(::getpid(), 0);
                CHECK(self >= 0);
                for (uint64_t way = 0; way < 2; ++way) {
                  const int other =
                      way == 0 ? ::pidfd_getfd(self, fd, 0) : static_cast<int>(::syscall(SYS_pidfd_getfd, self, fd, 0));
                  CHECK(other >= 0);
                  CHECK_EQ(::close(fd), 0);
                  fd = other;
                  write_all(fd, bytes_at(way, 5000));
                  CHECK_EQ(agreeing(read_exactly(fd, 5000), way), 5000U);
                }
              }};

int spawn_with_the_terminal_of(int fd) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addtcsetpgrp_np(&actions, fd);
  char name[] = "true";
  char* arguments[] = {name, nullptr};
  pid_t child = -1;
  const int error = ::posix_spawn(&child, "/bin/true", &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  return error;
}

BEHAVIOUR{.name = "terminals_beside_the_connection",
          .server =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 18), "forkpty login_tty ");
                write_all(fd, "to parent");
              },
          .client =
              [](int fd) {
                int terminal = -1;
                const int child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
                CHECK(child >= 0);
                if (child == 0) {
                  write_all(fd, "forkpty ");
                  ::_exit(::isatty(STDIN_FILENO) ? 0 : 1);
                }
                join_child(child);
                CHECK_EQ(::close(terminal), 0);
                join_child(in_child([fd] {
                  int master = -1, slave = -1;
                  CHECK_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
                  CHECK_ERRNO(::login_tty(fd), ENOTTY);
                  CHECK_EQ(::login_tty(slave), 0);
                  CHECK_EQ(::isatty(STDOUT_FILENO), 1);
                  write_all(fd, "login_tty ");
                }));
                CHECK_EQ(::fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
                CHECK_EQ(spawn_with_the_terminal_of(fd), ENOTTY);
                CHECK_EQ(read_exactly(fd, 9), "to parent");
              }};

}  // namespace
}  // namespace shunt::behaviour
