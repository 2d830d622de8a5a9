// libc's syscall(2) with every number that moves bytes, waits, or changes descriptors, and libc's second names.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

extern "C" {
ssize_t __read(int, void*, size_t);
ssize_t __write(int, const void*, size_t);
ssize_t __send(int, const void*, size_t, int);
int __connect(int, const sockaddr*, socklen_t);
int __poll(pollfd*, nfds_t, int);
int __select(int, fd_set*, fd_set*, fd_set*, timeval*);
int __fcntl(int, int, ...);
int __dup2(int, int);
int __close(int);
int __open(const char*, int, ...);
pid_t __fork();
}

namespace shunt::behaviour {
namespace {

constexpr size_t kSizes[] = {1, 5000, 70'000};

struct Mover {
  const char* name;
  ssize_t (*move)(int fd, char* data, size_t count);
};

struct OneMessage {
  OneMessage(char* data, size_t count) : part{data, count} {
    several.msg_hdr.msg_iov = &part;
    several.msg_hdr.msg_iovlen = 1;
  }
  iovec* parts() { return &part; }
  iovec part;
  mmsghdr several{};
};

ssize_t length_of(long messages, const OneMessage& one) {
  return messages == 1 ? static_cast<ssize_t>(one.several.msg_len) : messages;
}

ssize_t by_sendfile(int fd, char* data, size_t count) {
  const int file = ::open(scratch_file("file").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  write_all(file, std::string(data, count));
  off_t from = 0;
  const ssize_t n = ::syscall(SYS_sendfile, fd, file, &from, count);
  CHECK_EQ(::close(file), 0);
  return n;
}

constexpr Mover kWriters[] = {
    {"write", [](int fd, char* data, size_t count) { return ::syscall(SYS_write, fd, data, count); }},
    {"writev",
     [](int fd, char* data, size_t count) { return ::syscall(SYS_writev, fd, OneMessage(data, count).parts(), 1); }},
    {"pwritev2",
     [](int fd, char* data, size_t count) {
       return ::syscall(SYS_pwritev2, fd, OneMessage(data, count).parts(), 1, -1L, 0L, 0);
     }},
    {"sendto", [](int fd, char* data, size_t count) { return ::syscall(SYS_sendto, fd, data, count, 0, nullptr, 0); }},
    {"sendmsg",
     [](int fd, char* data, size_t count) {
       OneMessage one(data, count);
       return ::syscall(SYS_sendmsg, fd, &one.several.msg_hdr, 0);
     }},
    {"sendmmsg",
     [](int fd, char* data, size_t count) {
       OneMessage one(data, count);
       return length_of(::syscall(SYS_sendmmsg, fd, &one.several, 1, 0), one);
     }},
    {"sendfile", by_sendfile},
    {"__write", [](int fd, char* data, size_t count) { return ::__write(fd, data, count); }},
    {"__send", [](int fd, char* data, size_t count) { return ::__send(fd, data, count, 0); }},
    {"pwritev64v2",
     [](int fd, char* data, size_t count) { return ::pwritev64v2(fd, OneMessage(data, count).parts(), 1, -1, 0); }},
};

constexpr Mover kReaders[] = {
    {"read", [](int fd, char* data, size_t count) { return ::syscall(SYS_read, fd, data, count); }},
    {"readv",
     [](int fd, char* data, size_t count) { return ::syscall(SYS_readv, fd, OneMessage(data, count).parts(), 1); }},
    {"preadv2",
     [](int fd, char* data, size_t count) {
       return ::syscall(SYS_preadv2, fd, OneMessage(data, count).parts(), 1, -1L, 0L, 0);
     }},
    {"recvfrom",
     [](int fd, char* data, size_t count) { return ::syscall(SYS_recvfrom, fd, data, count, 0, nullptr, nullptr); }},
    {"recvmsg",
     [](int fd, char* data, size_t count) {
       OneMessage one(data, count);
       return ::syscall(SYS_recvmsg, fd, &one.several.msg_hdr, 0);
     }},
    {"recvmmsg",
     [](int fd, char* data, size_t count) {
       OneMessage one(data, count);
       return length_of(::syscall(SYS_recvmmsg, fd, &one.several, 1, 0, nullptr), one);
     }},
    {"__read", [](int fd, char* data, size_t count) { return ::__read(fd, data, count); }},
    {"preadv64v2",
     [](int fd, char* data, size_t count) { return ::preadv64v2(fd, OneMessage(data, count).parts(), 1, -1, 0); }},
};

template <class Body>
void for_each_combination(const Body& body) {
  for (const Mover& writer : kWriters) {
    for (const Mover& reader : kReaders) {
      for (const size_t size : kSizes) {
        about(std::string(writer.name) + " to " + reader.name + ", " + std::to_string(size) + " bytes");
        body(writer, reader, size);
      }
    }
  }
}

BEHAVIOUR{.name = "every_writer_with_every_reader",
          .server =
              [](int fd) {
                for_each_combination([fd](const Mover&, const Mover& reader, size_t size) {
                  std::string data(size, '\0');
                  for (size_t done = 0; done < size;) {
                    const ssize_t n = reader.move(fd, data.data() + done, size - done);
                    CHECK(n > 0);
                    done += static_cast<size_t>(n);
                  }
                  CHECK_EQ(agreeing(data, size), size);
                });
              },
          .client =
              [](int fd) {
                for_each_combination([fd](const Mover& writer, const Mover&, size_t size) {
                  std::string data = bytes_at(size, size);
                  CHECK_EQ(writer.move(fd, data.data(), size), size);
                });
              }};

int wait_by_epoll(int fd, int way) {
  const int set = static_cast<int>(way % 2 == 0 ? ::syscall(SYS_epoll_create1, 0) : ::syscall(SYS_epoll_create, 1));
  epoll_event wanted{};
  wanted.events = EPOLLIN;
  CHECK_EQ(::syscall(SYS_epoll_ctl, set, EPOLL_CTL_ADD, fd, &wanted), 0);
  epoll_event got{};
  const timespec limit{10, 0};
  long ready = -1;
  if (way % 3 == 0) ready = ::syscall(SYS_epoll_wait, set, &got, 1, 10'000);
  if (way % 3 == 1) ready = ::syscall(SYS_epoll_pwait, set, &got, 1, 10'000, nullptr, 8);
  if (way % 3 == 2) ready = ::syscall(SYS_epoll_pwait2, set, &got, 1, &limit, nullptr, 8);
  CHECK_EQ(got.events, EPOLLIN);
  CHECK_EQ(::syscall(SYS_close, set), 0);
  return static_cast<int>(ready);
}

constexpr int kWaysToWait = 12;
long wait_by(int fd, int way) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  timeval limit{10, 0};
  timespec fine{10, 0};
  switch (way) {
    case 0:
      return ::syscall(SYS_poll, &one, 1, 10'000);
    case 1:
      return ::syscall(SYS_ppoll, &one, 1, &fine, nullptr, 8);
    case 2:
      return ::syscall(SYS_select, fd + 1, &set, nullptr, nullptr, &limit);
    case 3:
      return ::syscall(SYS_pselect6, fd + 1, &set, nullptr, nullptr, &fine, nullptr);
    case 4:
      return ::__poll(&one, 1, 10'000);
    case 5:
      return ::__select(fd + 1, &set, nullptr, nullptr, &limit);
    default:
      return wait_by_epoll(fd, way);
  }
}

BEHAVIOUR{.name = "waiting",
          .server =
              [](int fd) {
                for (int way = 0; way < kWaysToWait; ++way) {
                  await_peer();
                  sleep_ms(5);
                  write_all(fd, "x");
                }
              },
          .client =
              [](int fd) {
                for (int way = 0; way < kWaysToWait; ++way) {
                  about("way " + std::to_string(way));
                  tell_peer();
                  CHECK_EQ(wait_by(fd, way), 1);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                }
              }};

// The kernel writes back what is left of the time; libc's functions of the same name do not.
void expect_rest(int fd, bool ready) {
  for (int way = 0; way < 2; ++way) {
    about(std::string(way == 0 ? "ppoll" : "pselect6") + (ready ? ", ready" : ", not ready"));
    timespec time = ready ? timespec{100, 500} : timespec{0, 3'000'000};
    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    const long count = way == 0 ? ::syscall(SYS_ppoll, &one, 1, &time, nullptr, 8)
                                : ::syscall(SYS_pselect6, fd + 1, &set, nullptr, nullptr, &time, nullptr);
    CHECK_EQ(count, ready ? 1 : 0);
    if (ready) CHECK(time.tv_sec >= 90 && (time.tv_sec < 100 || time.tv_nsec <= 500));
    if (!ready) CHECK_EQ(time.tv_sec + time.tv_nsec, 0);
  }
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  const uint64_t none = 0;
  CHECK_ERRNO(::syscall(SYS_ppoll, &one, 1, nullptr, &none, 7), EINVAL);
}

BEHAVIOUR{.name = "rest_of_the_time",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, "x");
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "y");
              },
          .client =
              [](int fd) {
                int plain[2];
                CHECK_EQ(::pipe(plain), 0);
                expect_rest(plain[0], false);
                expect_rest(fd, false);
                tell_peer();
                await_peer();
                write_all(plain[1], "x");
                expect_rest(plain[0], true);
                expect_rest(fd, true);
                CHECK_EQ(read_exactly(fd, 1), "x");
                write_all(fd, "y");
              }};

constexpr int kWaysToCopy = 7;
int copied(int fd, int way) {
  switch (way) {
    case 0:
      return static_cast<int>(::syscall(SYS_dup, fd));
    case 1:
      return static_cast<int>(::syscall(SYS_dup2, fd, 50));
    case 2:
      return static_cast<int>(::syscall(SYS_dup3, fd, 51, O_CLOEXEC));
    case 3:
      return static_cast<int>(::syscall(SYS_fcntl, fd, F_DUPFD, 60));
    case 4:
      return static_cast<int>(::syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 70));
    case 5:
      return ::__dup2(fd, 80);
    default:
      return ::__fcntl(fd, F_DUPFD, 90);
  }
}

void close_by(int fd, int way) {
  if (way % 3 == 0) CHECK_EQ(::syscall(SYS_close, fd), 0);
  if (way % 3 == 1) CHECK_EQ(::syscall(SYS_close_range, fd, fd, 0), 0);
  if (way % 3 == 2) CHECK_EQ(::__close(fd), 0);
}

BEHAVIOUR{.name = "duplicates_and_closes",
          .server =
              [](int fd) {
                for (int way = 0; way < kWaysToCopy; ++way) write_all(fd, read_exactly(fd, 5000));
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                for (int way = 0; way < kWaysToCopy; ++way) {
                  about("way " + std::to_string(way));
                  const int other = copied(fd, way);
                  CHECK(other >= 0);
                  close_by(fd, way);
                  fd = other;
                  write_all(fd, bytes_at(1, 5000));
                  CHECK_EQ(agreeing(read_exactly(fd, 5000), 1), 5000U);
                }
                CHECK_EQ(::syscall(SYS_shutdown, fd, SHUT_WR), 0);
              }};

// The client makes, connects and sets its socket by numbers; the server accepts by one.
BEHAVIOUR{.name = "a_life_by_numbers",
          .server =
              [](int) {
                const int listener = listen_at(abstract_address());
                tell_peer();
                const int fd = static_cast<int>(::syscall(SYS_accept4, listener, nullptr, nullptr, SOCK_CLOEXEC));
                CHECK(fd >= 0);
                for (int i = 0; i < 8; ++i) {
                  const std::string word = read_exactly(fd, 100);
                  let_reader_wait(fd);
                  write_all(fd, word);
                }
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int) {
                await_peer();
                const Address address = abstract_address();
                const int fd = static_cast<int>(::syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
                int on = 1;
                CHECK_EQ(::syscall(SYS_ioctl, fd, FIONBIO, &on), 0);
                CHECK_EQ(::syscall(SYS_connect, fd, &address.name, address.length), 0);
                sockaddr_un name{};
                socklen_t length = sizeof name;
                CHECK_EQ(::syscall(SYS_getsockname, fd, &name, &length), 0);
                CHECK_EQ(length, sizeof(sa_family_t));
                for (uint64_t i = 0; i < 8; ++i) {
                  let_reader_wait(fd);
                  write_all(fd, bytes_at(i, 100));
                  std::string back;
                  while (back.size() < 100) {
                    CHECK(is_readable(fd, 10'000));
                    back += read_some(fd, 100 - back.size());
                  }
                  CHECK_EQ(agreeing(back, i), 100U);
                }
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN);
                int error = -1;
                length = sizeof error;
                CHECK_EQ(::syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
                CHECK_EQ(error, 0);
                write_all(fd, "x");
              },
          .connects_itself = true};

ssize_t submit_one(aio_context_t context, int fd, char* data, size_t bytes, int operation) {
  iocb request{};
  request.aio_fildes = static_cast<uint32_t>(fd);
  request.aio_buf = reinterpret_cast<uint64_t>(data);
  request.aio_nbytes = bytes;
  request.aio_lio_opcode = static_cast<uint16_t>(operation);
  iocb* requests[] = {&request};
  CHECK_EQ(::syscall(SYS_io_submit, context, 1, requests), 1);
  io_event done{};
  CHECK_EQ(::syscall(SYS_io_getevents, context, 1, 1, &done, nullptr), 1);
  return static_cast<ssize_t>(done.res);
}

BEHAVIOUR{.name = "io_submit",
          .server =
              [](int fd) {
                aio_context_t context = 0;
                CHECK_EQ(::syscall(SYS_io_setup, 4, &context), 0);
                char data[3000];
                for (int done = 0; done < 20'000;) {
                  const ssize_t n = submit_one(context, fd, data, sizeof data, IOCB_CMD_PREAD);
                  CHECK(n > 0);
                  CHECK_EQ(submit_one(context, fd, data, static_cast<size_t>(n), IOCB_CMD_PWRITE), n);
                  done += static_cast<int>(n);
                }
                CHECK_EQ(::syscall(SYS_io_destroy, context), 0);
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 20'000, 7000);
                read_stream(fd, 0, 20'000, 3000);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "splice_and_sendfile_to_a_pipe",
          .server =
              [](int fd) {
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                for (uint64_t done = 0; done < 40'000;) {
                  const long n = done % 2 == 0 ? ::syscall(SYS_splice, fd, nullptr, ends[1], nullptr, 9'001, 0)
                                               : ::syscall(SYS_sendfile, ends[1], fd, nullptr, 9'001);
                  CHECK(n > 0);
                  CHECK_EQ(agreeing(read_exactly(ends[0], static_cast<size_t>(n)), done), static_cast<size_t>(n));
                  done += static_cast<uint64_t>(n);
                }
                write_all(fd, "done");
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 40'000, 6000);
                CHECK_EQ(read_exactly(fd, 4), "done");
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "execve_and_execveat",
          .server =
              [](int fd) {
                char name[] = "cat";
                char* arguments[] = {name, nullptr};
                for (int way = 0; way < 2; ++way) {
                  const int other = way == 0 ? fd : accept_another();
                  const int child = static_cast<int>(::__fork());
                  if (child == 0) {
                    ::syscall(SYS_dup2, other, STDIN_FILENO);
                    ::syscall(SYS_dup2, other, STDOUT_FILENO);
                    if (way == 0) ::syscall(SYS_execve, "/bin/cat", arguments, environ);
                    ::syscall(SYS_execveat, AT_FDCWD, "/bin/cat", arguments, environ, 0);
                    ::_exit(1);
                  }
                  CHECK_EQ(::close(other), 0);
                  join_child(child);
                }
              },
          .client =
              [](int fd) {
                for (int way = 0; way < 2; ++way) {
                  const int other = way == 0 ? fd : connect_another();
                  write_stream(other, 0, 20'000, 20'000);
                  CHECK_EQ(::shutdown(other, SHUT_WR), 0);
                  CHECK_EQ(read_stream_to_end(other, 0, 3000), 20'000);
                }
              },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
