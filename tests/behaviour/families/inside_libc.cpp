// Calls in which libc itself reads, writes, asks or closes the descriptor: aio, eventfd_read, sockatmark, streams.
#include <aio.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <mntent.h>
#include <mqueue.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

ssize_t finish(aiocb& request) {
  const aiocb* one[] = {&request};
  while (::aio_error(&request) == EINPROGRESS) ::aio_suspend(one, 1, nullptr);
  CHECK_EQ(::aio_error(&request), 0);
  return ::aio_return(&request);
}

aiocb request_of(int fd, char* data, size_t bytes, int operation) {
  aiocb request{};
  request.aio_fildes = fd;
  request.aio_buf = data;
  request.aio_nbytes = bytes;
  request.aio_lio_opcode = operation;
  return request;
}

void echo_by_aio(int fd, uint64_t total) {
  char data[3000];
  for (uint64_t done = 0; done < total;) {
    aiocb in = request_of(fd, data, sizeof data, LIO_NOP);
    CHECK_EQ(::aio_read(&in), 0);
    const ssize_t n = finish(in);
    CHECK(n > 0);
    aiocb out = request_of(fd, data, static_cast<size_t>(n), LIO_NOP);
    CHECK_EQ(::aio_write(&out), 0);
    CHECK_EQ(finish(out), n);
    done += static_cast<uint64_t>(n);
  }
}

// It makes no call that could help.
BEHAVIOUR{.name = "aio_read_from_a_client_that_does_something_else",
          .server =
              [](int fd) {
                await_peer();
                std::string got;
                while (got.size() < 20'000) {
                  char data[4000];
                  aiocb in = request_of(fd, data, sizeof data, LIO_NOP);
                  CHECK_EQ(::aio_read(&in), 0);
                  const ssize_t n = finish(in);
                  CHECK(n > 0);
                  got.append(data, static_cast<size_t>(n));
                }
                CHECK_EQ(got, bytes_at(0, 20'000));
                tell_peer();
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 20'000, 20'000);
                tell_peer();
                await_peer();
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "aio_read_and_aio_write",
          .server = [](int fd) { echo_by_aio(fd, 20'000); },
          .client =
              [](int fd) {
                write_stream(fd, 0, 20'000, 7000);
                read_stream(fd, 0, 20'000, 3000);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "lio_listio",
          .server =
              [](int fd) {
                char first[] = "first ", second[] = "second ", third[] = "third";
                aiocb one = request_of(fd, first, 6, LIO_WRITE), nothing = request_of(fd, first, 6, LIO_NOP);
                aiocb two = request_of(fd, second, 7, LIO_WRITE), three = request_of(fd, third, 5, LIO_WRITE);
                aiocb* all[] = {&one, nullptr, &nothing, &two, &three};
                CHECK_EQ(::lio_listio(LIO_WAIT, all, 5, nullptr), 0);
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 18), "first second third");
                write_all(fd, "x");
              },
          .leaves_ring = true};

std::string text_of(void* const* addresses, int count) {
  int ends[2];
  CHECK_EQ(::pipe(ends), 0);
  ::backtrace_symbols_fd(addresses, count, ends[1]);
  return read_some(ends[0], 4096);
}

BEHAVIOUR{.name = "backtrace_symbols_fd_to_the_descriptor",
          .server =
              [](int fd) {
                void* addresses[4];
                const int count = ::backtrace(addresses, 4);
                const std::string text = text_of(addresses, count);
                tell_peer(static_cast<uint32_t>(text.size()));
                write_all(fd, text);
                ::backtrace_symbols_fd(addresses, count, fd);
                write_all(fd, "end");
              },
          .client =
              [](int fd) {
                const size_t size = await_peer();
                const std::string wanted = read_exactly(fd, size);
                CHECK_EQ(read_exactly(fd, size), wanted);
                CHECK_EQ(read_exactly(fd, 3), "end");
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "eventfd_read_and_write_of_a_socket",
          .server =
              [](int fd) {
                CHECK_EQ(::eventfd_write(fd, 0x3837363534333231), 0);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                eventfd_t value = 0;
                CHECK_EQ(::eventfd_read(fd, &value), 0);
                CHECK(std::memcmp(&value, "abcdefgh", 8) == 0);
                CHECK_EQ(::eventfd_read(fd, &value), -1);  // three bytes are no value
              },
          .client =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 8), "12345678");
                expect_end_of_stream(fd);
                write_all(fd, "abcdefgh");
                sleep_ms(20);
                write_all(fd, "ijk");
              },
          .limit = kByFences};

// "while (sockatmark(fd) == 0) read(fd, ...)": the mark stands behind everything that was sent before the urgent byte.
BEHAVIOUR{.name = "sockatmark_behind_the_bytes_before_it",
          .server =
              [](int fd) {
                write_all(fd, "before");
                CHECK_EQ(::send(fd, "!", 1, MSG_OOB), 1);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                CHECK_EQ(::sockatmark(fd), 0);
                await_peer();
                std::string before;
                while (::sockatmark(fd) == 0) before += read_exactly(fd, 1);
                CHECK_EQ(before, "before");
                int mark = 0;
                CHECK_EQ(::ioctl(fd, SIOCATMARK, &mark), 0);
                CHECK_EQ(mark, 1);
                char byte = 0;
                CHECK_EQ(::recv(fd, &byte, 1, MSG_OOB), 1);
                CHECK_EQ(byte, '!');
                write_all(fd, "x");
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "getline_from_a_stream",
          .server =
              [](int fd) {
                std::FILE* in = ::fdopen(fd, "r+");
                char* line = nullptr;
                size_t room = 0;
                for (int i = 0; i < 10; ++i) {
                  CHECK(::getline(&line, &room, in) > 0);
                  CHECK_EQ(std::string(line), "line " + std::to_string(i) + "\n");
                }
                CHECK_EQ(::getline(&line, &room, in), -1);
                CHECK(std::feof(in));
                std::free(line);
                CHECK(std::fputs("bye", in) >= 0);
                CHECK_EQ(std::fclose(in), 0);
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 10; ++i) write_all(fd, "line " + std::to_string(i) + "\n");
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                CHECK_EQ(read_exactly(fd, 3), "bye");
                expect_end_of_stream(fd);
              },
          .leaves_ring = true};

// Each way to end a stream writes out what is in its buffer and closes the descriptor.
constexpr int kWaysToEnd = 5;
void end_stream(std::FILE* file, int way) {
  switch (way) {
    case 0:
      CHECK_EQ(std::fclose(file), 0);
      break;
    case 1:
      CHECK(std::freopen("/dev/null", "w", file) == file);
      break;
    case 2:
      CHECK(::freopen64("/dev/null", "w", file) == file);
      break;
    case 3: {
      int (*volatile close_by)(std::FILE*) = ::pclose;  // out of the compiler's sight, which knows better
      close_by(file);
      break;
    }
    default:
      ::endmntent(file);
  }
}

BEHAVIOUR{.name = "ends_of_a_stream_write_and_close",
          .server =
              [](int) {
                for (int way = 0; way < kWaysToEnd; ++way) {
                  const int fd = accept_another();
                  std::FILE* out = ::fdopen(fd, "w");
                  CHECK(std::fputs("buffered", out) >= 0);
                  end_stream(out, way);
                }
              },
          .client =
              [](int) {
                for (int way = 0; way < kWaysToEnd; ++way) {
                  about("way " + std::to_string(way));
                  const int fd = connect_another();
                  CHECK_EQ(read_exactly(fd, 8), "buffered");
                  expect_end_of_stream(fd);
                  CHECK_EQ(::close(fd), 0);
                }
              },
          .leaves_ring = true};

// mq_close(3) is close(2) by another name.
BEHAVIOUR{.name = "mq_close_closes",
          .server = [](int fd) { expect_end_of_stream(fd); },
          .client =
              [](int fd) {
                CHECK_EQ(::mq_close(fd), 0);
                const int file = ::open("/dev/null", O_RDWR);
                CHECK_EQ(file, fd);
                char byte = 0;
                CHECK_EQ(::read(file, &byte, 1), 0);
                CHECK_EQ(::write(file, "x", 1), 1);
              }};

// sendfile(2) into a pipe takes any file, a socket too.
BEHAVIOUR{.name = "sendfile_to_a_pipe",
          .server =
              [](int fd) {
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                for (uint64_t done = 0; done < 40'000;) {
                  const ssize_t n = ::sendfile(ends[1], fd, nullptr, 10'000);
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

}  // namespace
}  // namespace shunt::behaviour
