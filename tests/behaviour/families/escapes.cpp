// Ways out of the library's sight: exec, stdio, splice, out-of-band data, credentials, SIGIO, offsets and low-water
// marks. The connection goes back to the kernel, at an exact byte; the program sees nothing of it.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

extern char** environ;

namespace shunt::behaviour {
namespace {

void ask_and_close_writing(int fd) {
  write_stream(fd, 0, 20'000, 20'000);
  CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
  CHECK_EQ(read_stream_to_end(fd, 0, 3000), 20'000);
}

void run_cat(int fd) {
  ::dup2(fd, STDIN_FILENO);
  ::dup2(fd, STDOUT_FILENO);
  ::execl("/bin/cat", "cat", static_cast<char*>(nullptr));
  CHECK(false && "execl");
}

BEHAVIOUR{.name = "exec_of_a_child_that_inherits_it",
          .server =
              [](int fd) {
                const int child = in_child([fd] { run_cat(fd); });
                ::close(fd);
                join_child(child);
              },
          .client = ask_and_close_writing,
          .leaves_ring = true};

BEHAVIOUR{.name = "exec_with_unread_bytes",
          .server =
              [](int fd) {
                await_peer();
                const int child = in_child([fd] { run_cat(fd); });
                ::close(fd);
                join_child(child);
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 20'000, 20'000);
                tell_peer();
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                CHECK_EQ(read_stream_to_end(fd, 0, 3000), 20'000);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "exec_with_unread_bytes_and_a_peer_that_sleeps_in_read",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(30);
                const int child = in_child([fd] { run_cat(fd); });
                ::close(fd);
                join_child(child);
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 20'000, 20'000);
                tell_peer();
                read_stream(fd, 0, 20'000, 3000);
                write_stream(fd, 20'000, 20'000, 700);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                CHECK_EQ(read_stream_to_end(fd, 20'000, 3000), 20'000);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "posix_spawn_with_file_actions",
          .server =
              [](int fd) {
                posix_spawn_file_actions_t actions;
                ::posix_spawn_file_actions_init(&actions);
                ::posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
                ::posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
                ::posix_spawn_file_actions_addclose(&actions, fd);
                char name[] = "cat";
                char* arguments[] = {name, nullptr};
                pid_t child = -1;
                CHECK_EQ(::posix_spawn(&child, "/bin/cat", &actions, nullptr, arguments, environ), 0);
                ::posix_spawn_file_actions_destroy(&actions);
                ::close(fd);
                join_child(child);
              },
          .client = ask_and_close_writing,
          .leaves_ring = true};

BEHAVIOUR{.name = "vfork_and_exec",
          .server =
              [](int fd) {
                const int child = static_cast<int>(::vfork());
                if (child == 0) {
                  ::dup2(fd, STDIN_FILENO);
                  ::dup2(fd, STDOUT_FILENO);
                  ::execl("/bin/cat", "cat", static_cast<char*>(nullptr));
                  ::_exit(127);
                }
                ::close(fd);
                join_child(child);
              },
          .client = ask_and_close_writing,
          .leaves_ring = true};

// It inherits the connection without knowing: what was not read yet stays its parent's.
BEHAVIOUR{.name = "vfork_and_exec_of_a_program_that_leaves_it_alone",
          .server =
              [](int fd) {
                await_peer();
                const int child = static_cast<int>(::vfork());
                if (child == 0) {
                  ::execl("/bin/true", "true", static_cast<char*>(nullptr));
                  ::_exit(127);
                }
                join_child(child);
                read_stream(fd, 0, 20'000, 3000);
                expect_end_of_stream(fd);
                write_stream(fd, 0, 20'000, 3000);
                CHECK_EQ(::close(fd), 0);
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 20'000, 20'000);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                tell_peer();
                CHECK_EQ(read_stream_to_end(fd, 0, 3000), 20'000);
              },
          .leaves_ring = true};

// Close-on-exec: the new program does not have it, and the connection may stay where it is.
BEHAVIOUR{.name = "exec_of_a_child_that_does_not_inherit_it",
          .server =
              [](int fd) {
                CHECK_EQ(::fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
                for (int i = 0; i < 3; ++i) {
                  join_child(in_child([] { ::execl("/bin/true", "true", static_cast<char*>(nullptr)); }));
                  write_all(fd, read_exactly(fd, 1000));
                }
              },
          .client =
              [](int fd) {
                for (uint64_t i = 0; i < 3; ++i) {
                  write_all(fd, bytes_at(i, 1000));
                  CHECK_EQ(agreeing(read_exactly(fd, 1000), i), 1000U);
                }
              }};

BEHAVIOUR{.name = "system_while_connected",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  CHECK_EQ(std::system("exit 7"), 7 << 8);
                  write_all(fd, read_exactly(fd, 1000));
                }
              },
          .client =
              [](int fd) {
                for (uint64_t i = 0; i < 3; ++i) {
                  write_all(fd, bytes_at(i, 1000));
                  CHECK_EQ(agreeing(read_exactly(fd, 1000), i), 1000U);
                }
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "stdio_on_the_descriptor",
          .server =
              [](int fd) {
                std::FILE* in = ::fdopen(fd, "r");
                std::FILE* out = ::fdopen(::dup(fd), "w");
                CHECK(in != nullptr && out != nullptr);
                char line[100];
                while (std::fgets(line, sizeof line, in) != nullptr) {
                  CHECK(std::fprintf(out, "you said: %s", line) > 0);
                  CHECK_EQ(std::fflush(out), 0);
                }
                CHECK_EQ(std::fclose(in), 0);
                CHECK_EQ(std::fclose(out), 0);
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 20; ++i) {
                  const std::string line = "line " + std::to_string(i) + "\n";
                  write_all(fd, line);
                  CHECK_EQ(read_exactly(fd, line.size() + 10), "you said: " + line);
                }
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                expect_end_of_stream(fd);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "stdio_with_unread_bytes",
          .server =
              [](int fd) {
                await_peer();
                std::FILE* in = ::fdopen(fd, "r+");
                char line[100];
                CHECK(std::fgets(line, sizeof line, in) != nullptr);
                CHECK_EQ(std::string(line), "first\n");
                CHECK(std::fgets(line, sizeof line, in) != nullptr);
                CHECK_EQ(std::string(line), "second\n");
                CHECK_EQ(std::fclose(in), 0);
              },
          .client =
              [](int fd) {
                write_all(fd, "first\nsecond\n");
                tell_peer();
                expect_end_of_stream(fd);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "dprintf_on_the_descriptor",
          .server =
              [](int fd) {
                for (int i = 0; i < 20; ++i) {
                  write_all(fd, "w");
                  CHECK_EQ(::dprintf(fd, "%03d", i), 3);
                }
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 20; ++i) CHECK_EQ(read_exactly(fd, 4), "w" + std::to_string(1000 + i).substr(1));
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "splice_to_a_pipe",
          .server =
              [](int fd) {
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                for (uint64_t done = 0; done < 40'000;) {
                  const ssize_t n = ::splice(fd, nullptr, ends[1], nullptr, 10'000, 0);
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

BEHAVIOUR{.name = "splice_from_a_pipe",
          .server =
              [](int fd) {
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                for (uint64_t done = 0; done < 40'000; done += 5000) {
                  write_stream(ends[1], done, 5000, 5000);
                  for (ssize_t left = 5000; left > 0;) {
                    const ssize_t n = ::splice(ends[0], nullptr, fd, nullptr, static_cast<size_t>(left), 0);
                    CHECK(n > 0);
                    left -= n;
                  }
                }
              },
          .client = [](int fd) { read_stream(fd, 0, 40'000, 6000); },
          .leaves_ring = true};

// System calls made past libc by one end that has told nobody: what libc's own syscall() is asked for can be seen.
BEHAVIOUR{.name = "system_calls_by_number",
          .server =
              [](int fd) {
                for (int i = 0; i < 5; ++i) write_all(fd, read_exactly(fd, 1000));
              },
          .client =
              [](int fd) {
                for (uint64_t i = 0; i < 5; ++i) {
                  const std::string data = bytes_at(i, 1000);
                  CHECK_EQ(::syscall(SYS_write, fd, data.data(), data.size()), 1000);
                  std::string back(1000, '\0');
                  for (size_t done = 0; done < 1000;) {
                    const long n = ::syscall(SYS_read, fd, back.data() + done, 1000 - done);
                    CHECK(n > 0);
                    done += static_cast<size_t>(n);
                  }
                  CHECK_EQ(agreeing(back, i), 1000U);
                }
                CHECK_EQ(::syscall(SYS_close, fd), 0);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "out_of_band_data",
          .server =
              [](int fd) {
                write_all(fd, "before");
                CHECK_EQ(::send(fd, "!", 1, MSG_OOB), 1);
                write_all(fd, "after");
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                pollfd one{.fd = fd, .events = POLLPRI, .revents = 0};
                CHECK_EQ(::poll(&one, 1, 10'000), 1);
                CHECK_EQ(one.revents, POLLPRI);
                CHECK_EQ(read_some(fd, 100), "before");  // a read stops at the mark
                char byte = 0;
                CHECK_EQ(::recv(fd, &byte, 1, MSG_OOB), 1);
                CHECK_EQ(byte, '!');
                CHECK_EQ(read_exactly(fd, 5), "after");
                write_all(fd, "x");
              },
          .leaves_ring = true};

pid_t sender_of(int fd, const std::string& wanted) {
  alignas(cmsghdr) char control[256] = {};
  char data[16];
  iovec piece{data, sizeof data};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &header, 0);
  CHECK(n > 0);
  CHECK_EQ(std::string(data, static_cast<size_t>(n)), wanted);
  cmsghdr* item = CMSG_FIRSTHDR(&header);
  CHECK(item != nullptr && item->cmsg_type == SCM_CREDENTIALS);
  ucred credentials{};
  std::memcpy(&credentials, CMSG_DATA(item), sizeof credentials);
  return credentials.pid;
}

BEHAVIOUR{.name = "credentials_with_every_message",
          .server =
              [](int fd) {
                const int on = 1;
                CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
                tell_peer();
                const auto pid = static_cast<pid_t>(await_peer());
                for (int i = 0; i < 5; ++i) {
                  CHECK_EQ(sender_of(fd, "hello"), pid);
                  write_all(fd, "x");
                }
              },
          .client =
              [](int fd) {
                await_peer();
                tell_peer(static_cast<uint32_t>(::getpid()));
                for (int i = 0; i < 5; ++i) {
                  write_all(fd, "hello");
                  CHECK_EQ(read_exactly(fd, 1), "x");
                }
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "sigio_when_data_arrives",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  await_peer();
                  write_all(fd, "x");
                }
              },
          .client =
              [](int fd) {
                count_signal(SIGIO, SA_RESTART);
                CHECK_EQ(::fcntl(fd, F_SETOWN, ::getpid()), 0);
                const int flags = ::fcntl(fd, F_GETFL);
                CHECK_EQ(::fcntl(fd, F_SETFL, flags | O_ASYNC), 0);
                for (int i = 0; i < 3; ++i) {
                  const int before = signals_counted();
                  tell_peer();
                  for (int tries = 0; signals_counted() == before && tries < 5000; ++tries) sleep_ms(1);
                  CHECK(signals_counted() > before);
                  CHECK_EQ(read_exactly(fd, 1), "x");
                }
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "peek_offset",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 100));
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                CHECK(is_readable(fd, 10'000));
                const int offset = 10;
                CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset), 0);
                char data[20];
                CHECK_EQ(::recv(fd, data, 20, MSG_PEEK), 20);
                CHECK_EQ(std::string(data, 20), bytes_at(10, 20));
                CHECK_EQ(::recv(fd, data, 20, MSG_PEEK), 20);
                CHECK_EQ(std::string(data, 20), bytes_at(30, 20));
                CHECK_EQ(read_exactly(fd, 100), bytes_at(0, 100));
                write_all(fd, "x");
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "low_water_mark",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, bytes_at(0, 60));
                sleep_ms(30);
                write_all(fd, bytes_at(60, 60));
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                const int mark = 100;
                CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark), 0);
                tell_peer();
                CHECK_EQ(read_some(fd, 200), bytes_at(0, 120));
                write_all(fd, "x");
              },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
