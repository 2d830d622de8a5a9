// io_uring: a connection that a ring names goes back to the kernel, at an exact byte; one that no ring names stays.
// Where the kernel refuses rings, the same bytes go through ordinary calls.
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

class Ring {
 public:
  explicit Ring(unsigned flags = 0) { made_ = ::io_uring_queue_init(8, &ring_, flags) == 0; }
  ~Ring() {
    if (made_) ::io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  explicit operator bool() const { return made_; }
  io_uring* get() { return &ring_; }
  io_uring_sqe* entry() { return ::io_uring_get_sqe(&ring_); }

  int submit() {
    CHECK(::io_uring_submit(&ring_) >= 1);  // the kernel's thread may not have taken the last one yet
    return finish();
  }
  int finish() {
    io_uring_cqe* done = nullptr;
    CHECK_EQ(::io_uring_wait_cqe(&ring_, &done), 0);
    const int result = done->res;
    ::io_uring_cqe_seen(&ring_, done);
    return result;
  }

 private:
  io_uring ring_{};
  bool made_;
};

long read_by(Ring& ring, int fd, void* data, size_t bytes, uint8_t flags = 0) {
  if (!ring) return ::read(fd, data, bytes);
  io_uring_sqe* entry = ring.entry();
  ::io_uring_prep_read(entry, fd, data, static_cast<unsigned>(bytes), 0);
  entry->flags = flags;
  return ring.submit();
}

long write_by(Ring& ring, int fd, const void* data, size_t bytes) {
  if (!ring) return ::write(fd, data, bytes);
  io_uring_sqe* entry = ring.entry();
  ::io_uring_prep_write(entry, fd, data, static_cast<unsigned>(bytes), 0);
  CHECK_EQ(::io_uring_submit_and_wait(ring.get(), 1), 1);
  return ring.finish();
}

void expect_stream_by(Ring& ring, int fd, uint64_t position, uint64_t count, uint8_t flags = 0) {
  char data[3000];
  while (count > 0) {
    const long got = read_by(ring, fd, data, sizeof data, flags);
    CHECK(got > 0);
    const std::string text(data, static_cast<size_t>(got));
    CHECK_EQ(agreeing(text, position), text.size());
    position += text.size(), count -= text.size();
  }
}

void write_20k_and_await_answer(int fd) {
  write_stream(fd, 0, 20'000, 20'000);
  tell_peer();
  CHECK_EQ(read_exactly(fd, 5), "taken");
}

BEHAVIOUR{.name = "files_only",
          .server =
              [](int fd) {
                Ring ring;
                const int file = ::open(scratch_file("file").c_str(), O_RDWR | O_CREAT, 0600);
                for (int i = 0; i < 20; ++i) {
                  const std::string data = read_exactly(fd, 1000);
                  CHECK_EQ(write_by(ring, file, data.data(), data.size()), 1000);
                  CHECK_EQ(::lseek(file, 0, SEEK_SET), 0);
                  std::string back(1000, '\0');
                  CHECK_EQ(read_by(ring, file, back.data(), back.size()), 1000);
                  CHECK_EQ(::lseek(file, 0, SEEK_SET), 0);
                  write_all(fd, back);
                }
                ::close(file);
              },
          .client =
              [](int fd) {
                for (uint64_t i = 0; i < 20; ++i) {
                  write_all(fd, bytes_at(i * 1000, 1000));
                  CHECK_EQ(read_exactly(fd, 1000), bytes_at(i * 1000, 1000));
                }
              }};

BEHAVIOUR{.name = "reads_what_was_unread",
          .server =
              [](int fd) {
                await_peer();
                Ring ring;
                expect_stream_by(ring, fd, 0, 20'000);
                write_all(fd, "taken");
              },
          .client = write_20k_and_await_answer,
          .leaves_ring = true};

BEHAVIOUR{.name = "reads_by_long_entries",
          .server =
              [](int fd) {
                await_peer();
                Ring ring(IORING_SETUP_SQE128);
                expect_stream_by(ring, fd, 0, 20'000);
                write_all(fd, "taken");
              },
          .client = write_20k_and_await_answer,
          .leaves_ring = true};

BEHAVIOUR{.name = "reads_by_a_kernel_thread",
          .server =
              [](int fd) {
                await_peer();
                Ring ring(IORING_SETUP_SQPOLL);
                expect_stream_by(ring, fd, 0, 20'000);
                write_all(fd, "taken");
              },
          .client = write_20k_and_await_answer,
          .leaves_ring = true};

BEHAVIOUR{.name = "reads_by_registered_file",
          .server =
              [](int fd) {
                await_peer();
                Ring ring;
                if (ring) CHECK_EQ(::io_uring_register_files(ring.get(), &fd, 1), 0);
                // Index 0 of the registered files, if there are any.
                expect_stream_by(ring, ring ? 0 : fd, 0, 20'000, ring ? IOSQE_FIXED_FILE : 0);
                write_all(fd, "taken");
              },
          .client = write_20k_and_await_answer,
          .leaves_ring = true};

BEHAVIOUR{.name = "waits_then_reads",
          .server =
              [](int fd) {
                Ring ring;
                if (ring) {
                  ::io_uring_prep_poll_add(ring.entry(), fd, POLLIN);
                  CHECK_EQ(::io_uring_submit(ring.get()), 1);
                }
                tell_peer();
                if (ring) CHECK(ring.finish() & POLLIN);
                read_stream(fd, 0, 20'000, 3000);
                write_all(fd, "taken");
              },
          .client =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                write_20k_and_await_answer(fd);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "waits_on_an_epoll_set",
          .server =
              [](int fd) {
                Ring ring;
                const int set = ::epoll_create1(0);
                epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
                if (ring) {
                  ::io_uring_prep_poll_add(ring.entry(), set, POLLIN);
                  CHECK_EQ(::io_uring_submit(ring.get()), 1);
                }
                tell_peer();
                if (ring) CHECK(ring.finish() & POLLIN);
                CHECK_EQ(::epoll_wait(set, &event, 1, 10'000), 1);
                CHECK_EQ(event.data.fd, fd);
                read_stream(fd, 0, 20'000, 3000);
                write_all(fd, "taken");
              },
          .client =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                write_20k_and_await_answer(fd);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "writes_between_ordinary_writes",
          .server =
              [](int fd) {
                Ring ring;
                for (uint64_t i = 0; i < 20; ++i) {
                  const std::string data = bytes_at(i * 1000, 1000);
                  if (i % 2 == 0)
                    write_all(fd, data);
                  else
                    CHECK_EQ(write_by(ring, fd, data.data(), data.size()), 1000);
                }
                ::close(fd);
              },
          .client = [](int fd) { CHECK_EQ(read_stream_to_end(fd, 0, 3000), 20'000U); },
          .leaves_ring = true};

BEHAVIOUR{.name = "closes",
          .server =
              [](int fd) {
                Ring ring;
                write_stream(fd, 0, 20'000, 20'000);
                if (!ring) return (void)::close(fd);
                ::io_uring_prep_close(ring.entry(), fd);
                CHECK_EQ(ring.submit(), 0);
                CHECK_EQ(::open("/dev/zero", O_RDONLY), fd);  // the number's new owner is no connection
                char byte = 1;
                CHECK_EQ(::read(fd, &byte, 1), 1);
                CHECK_EQ(byte, 0);
              },
          .client = [](int fd) { CHECK_EQ(read_stream_to_end(fd, 0, 3000), 20'000U); },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
