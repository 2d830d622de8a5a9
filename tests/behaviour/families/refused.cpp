// Calls that the kernel refuses on a socket, and forms of recvmmsg and sendmmsg that it refuses in the middle: same
// errno, and no byte is taken or lost.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

int file_of(uint64_t count) {
  const int fd = ::open(scratch_file("file").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0);
  write_stream(fd, 0, count, 4096);
  CHECK_EQ(::lseek(fd, 0, SEEK_SET), 0);
  return fd;
}

void refuse_positions(int fd) {
  char data[10];
  iovec part{data, sizeof data};
  CHECK_ERRNO(::pread(fd, data, 10, 0), ESPIPE);
  CHECK_ERRNO(::pread64(fd, data, 10, 5), ESPIPE);
  CHECK_ERRNO(::pread(fd, data, 10, -1), EINVAL);
  CHECK_ERRNO(::pwrite(fd, data, 10, 0), ESPIPE);
  CHECK_ERRNO(::preadv(fd, &part, 1, 0), ESPIPE);
  CHECK_ERRNO(::preadv(fd, &part, 1, -1), EINVAL);
  CHECK_ERRNO(::pwritev(fd, &part, 1, 0), ESPIPE);
  CHECK_ERRNO(::preadv2(fd, &part, 1, 0, 0), ESPIPE);
  CHECK_ERRNO(::preadv2(fd, &part, 1, -2, 0), EINVAL);
  CHECK_ERRNO(::preadv2(fd, &part, 1, -1, 0x4000'0000), EOPNOTSUPP);
  CHECK_ERRNO(::pwritev2(fd, &part, 1, 7, RWF_NOWAIT), ESPIPE);
  CHECK_ERRNO(::pwritev2(fd, &part, 1, -1, 0x4000'0000), EOPNOTSUPP);
  CHECK_ERRNO(::syscall(SYS_pread64, fd, data, 10, 0), ESPIPE);
  CHECK_ERRNO(::syscall(SYS_pwrite64, fd, data, 10, 0), ESPIPE);
  CHECK_ERRNO(::syscall(SYS_preadv, fd, &part, 1, 0, 0), ESPIPE);
  CHECK_ERRNO(::syscall(SYS_pwritev, fd, &part, 1, 0, 0), ESPIPE);
  CHECK_ERRNO(::syscall(SYS_preadv2, fd, &part, 1, 0, 0, 0), ESPIPE);
  CHECK_ERRNO(::syscall(SYS_pwritev2, fd, &part, 1, 0, 0, 0), ESPIPE);
  CHECK_ERRNO(::lseek(fd, 0, SEEK_CUR), ESPIPE);
}

void refuse_pages(int fd, int file, const int (&ends)[2]) {
  char data[10] = {};
  iovec part{data, sizeof data};
  CHECK_ERRNO(::tee(fd, ends[1], 10, 0), EINVAL);
  CHECK_ERRNO(::tee(ends[0], fd, 10, 0), EINVAL);
  CHECK_ERRNO(::vmsplice(fd, &part, 1, 0), EBADF);
  CHECK_ERRNO(::copy_file_range(fd, nullptr, file, nullptr, 10, 0), EINVAL);
  CHECK_ERRNO(::copy_file_range(file, nullptr, fd, nullptr, 10, 0), EINVAL);
  CHECK_ERRNO(::syscall(SYS_tee, fd, ends[1], 10, 0), EINVAL);
  CHECK_ERRNO(::syscall(SYS_vmsplice, fd, &part, 1, 0), EBADF);
  CHECK_ERRNO(::syscall(SYS_copy_file_range, fd, nullptr, file, nullptr, 10, 0), EINVAL);
  CHECK_ERRNO(::ftruncate(fd, 1), EINVAL);
  CHECK_ERRNO(::fsync(fd), EINVAL);
  CHECK_ERRNO(::readahead(fd, 0, 10), EINVAL);
  errno = 0;
  CHECK(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
  CHECK_EQ(errno, ENODEV);
  CHECK_ERRNO(::isatty(fd) - 1, ENOTTY);
}

BEHAVIOUR{.name = "positions_and_pages_of_a_socket",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 1000));
                tell_peer();
                CHECK_EQ(read_exactly(fd, 4), "done");
              },
          .client =
              [](int fd) {
                await_peer();
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                const int file = file_of(100);
                refuse_positions(fd);
                refuse_pages(fd, file, ends);
                CHECK_EQ(read_exactly(fd, 1000), bytes_at(0, 1000));
                write_all(fd, "done");
              }};

// These might have moved bytes inside the kernel, so the library steps aside before it knows that they are refused.
BEHAVIOUR{.name = "transfers_between_files_and_sockets",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 1000));
                tell_peer();
                CHECK_EQ(read_exactly(fd, 4), "done");
              },
          .client =
              [](int fd) {
                await_peer();
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                const int file = file_of(100);
                off_t offset = 0;
                CHECK_ERRNO(::sendfile(file, fd, nullptr, 10), EINVAL);
                CHECK_ERRNO(::sendfile(ends[1], fd, &offset, 10), ESPIPE);
                CHECK_ERRNO(::sendfile(fd, fd, nullptr, 10), EINVAL);
                CHECK_ERRNO(::splice(fd, nullptr, fd, nullptr, 10, 0), EINVAL);
                CHECK_ERRNO(::splice(fd, &offset, ends[1], nullptr, 10, 0), EINVAL);
                CHECK_ERRNO(::splice(file, nullptr, fd, nullptr, 10, 0), EINVAL);
                CHECK_EQ(read_exactly(fd, 1000), bytes_at(0, 1000));
                write_all(fd, "done");
              },
          .leaves_ring = true};

struct Messages {
  explicit Messages(size_t bytes) {
    for (int i = 0; i < 3; ++i) {
      parts[i] = {data[i], bytes};
      headers[i].msg_hdr.msg_iov = &parts[i];
      headers[i].msg_hdr.msg_iovlen = 1;
    }
  }
  char data[3][16] = {};
  iovec parts[3] = {};
  mmsghdr headers[3] = {};
};

BEHAVIOUR{.name = "recvmmsg_in_every_form",
          .server =
              [](int fd) {
                write_all(fd, "abcdef");
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");
                write_all(fd, "ghi");
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "y");
              },
          .client =
              [](int fd) {
                await_peer();
                Messages some(3);
                CHECK_EQ(::recvmmsg(fd, some.headers, 0, 0, nullptr), 0);
                timespec bad{1, 1'000'000'000};
                CHECK_ERRNO(::recvmmsg(fd, some.headers, 1, 0, &bad), EINVAL);
                CHECK_ERRNO(::recvmmsg(fd, reinterpret_cast<mmsghdr*>(1), 1, 0, nullptr), EFAULT);
                CHECK_EQ(::recvmmsg(fd, some.headers, 3, MSG_DONTWAIT, nullptr), 2);
                CHECK_EQ(std::string(some.data[0], 3) + std::string(some.data[1], 3), "abcdef");
                CHECK_ERRNO(::recvmmsg(fd, some.headers, 3, MSG_DONTWAIT, nullptr), EAGAIN);
                timespec limit{0, 1};
                write_all(fd, "x");
                await_peer();
                CHECK_EQ(::recvmmsg(fd, some.headers, 3, 0, &limit), 1);  // its time is looked at after a message
                CHECK_EQ(std::string(some.data[0], 3), "ghi");
                CHECK_EQ(limit.tv_sec + limit.tv_nsec, 0);
                CHECK_EQ(::recvmmsg(fd, some.headers, 3, 0, nullptr), 3);  // the end counts as a message of nothing
                CHECK_EQ(some.headers[0].msg_len + some.headers[1].msg_len + some.headers[2].msg_len, 0U);
                write_all(fd, "y");
              },
          .limit = kByFences};

BEHAVIOUR{.name = "sendmmsg_in_every_form",
          .server =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 6), "aaabbb");
                CHECK_EQ(read_exactly(fd, 10), "aaaaaabbb!");
              },
          .client =
              [](int fd) {
                Messages some(3);
                for (int i = 0; i < 3; ++i) std::fill_n(some.data[i], 3, static_cast<char>('a' + i));
                CHECK_EQ(::sendmmsg(fd, some.headers, 0, 0), 0);
                CHECK_ERRNO(::sendmmsg(fd, reinterpret_cast<mmsghdr*>(1), 1, 0), EFAULT);
                CHECK_EQ(::sendmmsg(fd, some.headers, 2, 0), 2);
                some.parts[1].iov_base = reinterpret_cast<void*>(1);
                CHECK_EQ(::sendmmsg(fd, some.headers, 3, 0), 1);  // the second cannot be read
                CHECK_ERRNO(::sendmmsg(fd, some.headers + 1, 2, 0), EFAULT);
                some.parts[1].iov_base = some.data[1];
                some.headers[2].msg_hdr.msg_name = some.data[0];
                some.headers[2].msg_hdr.msg_namelen = 5;
                CHECK_EQ(::sendmmsg(fd, some.headers, 3, 0), 2);  // the third has an address
                CHECK_ERRNO(::sendmmsg(fd, some.headers + 2, 1, 0), EISCONN);
                CHECK_EQ(some.headers[1].msg_len, 3U);
                write_all(fd, "!");
              }};

}  // namespace
}  // namespace shunt::behaviour
