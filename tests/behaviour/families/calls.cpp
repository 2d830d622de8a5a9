// Every call that writes, read by every call that reads.
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr size_t kSizes[] = {1, 63, 4096, 40'000, 150'000};

// Three pieces, the middle one empty, as writev and its like must take them.
struct Pieces {
  Pieces(char* data, size_t count) : iov{{{data, count / 3}, {nullptr, 0}, {data + count / 3, count - count / 3}}} {}
  std::array<iovec, 3> iov;
};

msghdr header_of(Pieces& pieces) {
  msghdr header{};
  header.msg_iov = pieces.iov.data();
  header.msg_iovlen = pieces.iov.size();
  return header;
}

struct Writer {
  const char* name;
  ssize_t (*write)(int fd, char* data, size_t count);
};

struct Reader {
  const char* name;
  ssize_t (*read)(int fd, char* data, size_t count);
};

ssize_t by_sendmmsg(int fd, char* data, size_t count) {
  const size_t first = count / 2;
  Pieces one(data, first);
  Pieces two(data + first, count - first);
  mmsghdr headers[2] = {{header_of(one), 0}, {header_of(two), 0}};
  const int sent = ::sendmmsg(fd, headers, 2, 0);
  if (sent < 0) return -1;
  ssize_t total = 0;
  for (int i = 0; i < sent; ++i) total += headers[i].msg_len;
  return total;
}

// Each message takes what is there; a later one may find nothing, so the pieces are put together again.
ssize_t by_recvmmsg(int fd, char* data, size_t count) {
  const size_t first = (count + 1) / 2;
  Pieces one(data, first);
  Pieces two(data + first, count - first);
  mmsghdr headers[2] = {{header_of(one), 0}, {header_of(two), 0}};
  const int received = ::recvmmsg(fd, headers, count == first ? 1 : 2, MSG_WAITFORONE, nullptr);
  if (received < 1) return received;
  if (received == 1) return headers[0].msg_len;
  std::memmove(data + headers[0].msg_len, data + first, headers[1].msg_len);
  return static_cast<ssize_t>(headers[0].msg_len) + headers[1].msg_len;
}

constexpr Writer kWriters[] = {
    {"write", [](int fd, char* data, size_t count) { return ::write(fd, data, count); }},
    {"writev", [](int fd, char* data, size_t count) { return ::writev(fd, Pieces(data, count).iov.data(), 3); }},
    {"pwritev2",
     [](int fd, char* data, size_t count) { return ::pwritev2(fd, Pieces(data, count).iov.data(), 3, -1, 0); }},
    {"send", [](int fd, char* data, size_t count) { return ::send(fd, data, count, 0); }},
    {"sendto", [](int fd, char* data, size_t count) { return ::sendto(fd, data, count, MSG_NOSIGNAL, nullptr, 0); }},
    {"sendmsg",
     [](int fd, char* data, size_t count) {
       Pieces pieces(data, count);
       const msghdr header = header_of(pieces);
       return ::sendmsg(fd, &header, 0);
     }},
    {"sendmmsg", by_sendmmsg},
};

constexpr Reader kReaders[] = {
    {"read", [](int fd, char* data, size_t count) { return ::read(fd, data, count); }},
    {"readv", [](int fd, char* data, size_t count) { return ::readv(fd, Pieces(data, count).iov.data(), 3); }},
    {"preadv2",
     [](int fd, char* data, size_t count) { return ::preadv2(fd, Pieces(data, count).iov.data(), 3, -1, 0); }},
    {"recv", [](int fd, char* data, size_t count) { return ::recv(fd, data, count, 0); }},
    {"recvfrom", [](int fd, char* data, size_t count) { return ::recvfrom(fd, data, count, 0, nullptr, nullptr); }},
    {"recvmsg",
     [](int fd, char* data, size_t count) {
       Pieces pieces(data, count);
       msghdr header = header_of(pieces);
       const ssize_t n = ::recvmsg(fd, &header, 0);
       CHECK_EQ(header.msg_flags, 0);
       CHECK_EQ(header.msg_controllen, 0U);
       return n;
     }},
    {"recvmmsg", by_recvmmsg},
};

template <class Body>
void for_each_combination(const Body& body) {
  for (const Writer& writer : kWriters) {
    for (const Reader& reader : kReaders) {
      for (const size_t size : kSizes) {
        about(std::string(writer.name) + " to " + reader.name + ", " + std::to_string(size) + " bytes");
        body(writer, reader, size);
      }
    }
  }
}

void send_by(const Writer& writer, int fd, size_t size) {
  std::string data = bytes_at(size, size);
  CHECK_EQ(writer.write(fd, data.data(), data.size()), size);  // blocking: all of it
}

void receive_by(const Reader& reader, int fd, size_t size) {
  std::string data(size, '\0');
  for (size_t done = 0; done < size;) {
    const ssize_t n = reader.read(fd, data.data() + done, size - done);
    CHECK(n > 0);
    done += static_cast<size_t>(n);
  }
  CHECK_EQ(agreeing(data, size), size);
}

BEHAVIOUR{
    .name = "every_writer_with_every_reader",
    .server =
        [](int fd) {
          for_each_combination(
              [fd](const Writer&, const Reader& reader, size_t size) { receive_by(reader, fd, size); });
        },
    .client =
        [](int fd) {
          for_each_combination([fd](const Writer& writer, const Reader&, size_t size) { send_by(writer, fd, size); });
        }};

BEHAVIOUR{.name = "every_writer_with_every_reader_in_turns",
          .server =
              [](int fd) {
                for_each_combination([fd](const Writer& writer, const Reader& reader, size_t size) {
                  receive_by(reader, fd, size);
                  send_by(writer, fd, size);
                });
              },
          .client =
              [](int fd) {
                for_each_combination([fd](const Writer& writer, const Reader& reader, size_t size) {
                  send_by(writer, fd, size);
                  receive_by(reader, fd, size);
                });
              }};

// "recvmmsg blocks until vlen messages have been received": of a stream, each message is one receive.
BEHAVIOUR{.name = "recvmmsg_waits_for_every_message",
          .server =
              [](int fd) {
                write_all(fd, "one");
                await_peer();
                sleep_ms(20);
                write_all(fd, "two");
              },
          .client =
              [](int fd) {
                char first[10];
                char second[10];
                iovec iov[2] = {{first, sizeof first}, {second, sizeof second}};
                mmsghdr headers[2] = {};
                for (int i = 0; i < 2; ++i) {
                  headers[i].msg_hdr.msg_iov = &iov[i];
                  headers[i].msg_hdr.msg_iovlen = 1;
                }
                CHECK(is_readable(fd, 10'000));
                tell_peer();
                CHECK_EQ(::recvmmsg(fd, headers, 2, 0, nullptr), 2);
                CHECK_EQ(std::string(first, headers[0].msg_len), "one");
                CHECK_EQ(std::string(second, headers[1].msg_len), "two");
              }};

int file_of(uint64_t count) {
  const int fd = ::open(scratch_file("file").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0);
  write_stream(fd, 0, count, 1 << 20);
  CHECK_EQ(::lseek(fd, 0, SEEK_SET), 0);
  return fd;
}

BEHAVIOUR{.name = "sendfile_from_the_file_position",
          .server =
              [](int fd) {
                const int file = file_of(500'000);
                write_all(fd, bytes_at(900, 100));
                for (size_t done = 0; done < 500'000;) {
                  const ssize_t n = ::sendfile(fd, file, nullptr, 1'000'000 - done);
                  CHECK(n > 0);
                  done += static_cast<size_t>(n);
                  CHECK_EQ(::lseek(file, 0, SEEK_CUR), done);
                }
                CHECK_EQ(::sendfile(fd, file, nullptr, 10), 0);
                write_all(fd, bytes_at(7, 100));
              },
          .client =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 100), bytes_at(900, 100));
                read_stream(fd, 0, 500'000, 70'000);
                CHECK_EQ(read_exactly(fd, 100), bytes_at(7, 100));
              }};

BEHAVIOUR{.name = "sendfile_from_an_offset",
          .server =
              [](int fd) {
                const int file = file_of(500'000);
                off_t offset = 1000;
                while (offset < 300'000) {
                  const ssize_t n = ::sendfile(fd, file, &offset, static_cast<size_t>(300'000 - offset));
                  CHECK(n > 0);
                }
                CHECK_EQ(offset, 300'000);
                CHECK_EQ(::lseek(file, 0, SEEK_CUR), 0);
                off64_t far = 600'000;
                CHECK_EQ(::sendfile64(fd, file, &far, 100), 0);
              },
          .client = [](int fd) { read_stream(fd, 1000, 299'000, 70'000); }};

BEHAVIOUR{.name = "recvfrom_names_the_sender",
          .server =
              [](int fd) {
                write_all(fd, "a");
                char byte = 0;
                sockaddr_un name{};
                name.sun_family = 77;
                socklen_t length = sizeof name;
                CHECK_EQ(::recvfrom(fd, &byte, 1, 0, reinterpret_cast<sockaddr*>(&name), &length), 1);
                if (current_way() == Way::client_only)
                  return;              // this server sees the marker of a client with the library
                CHECK_EQ(length, 0U);  // the client has no name
                CHECK_EQ(name.sun_family, 77);
              },
          .client =
              [](int fd) {
                char byte = 0;
                sockaddr_un name{};
                socklen_t length = sizeof name;
                CHECK_EQ(::recvfrom(fd, &byte, 1, 0, reinterpret_cast<sockaddr*>(&name), &length), 1);
                CHECK_EQ(length, path_address().length);
                CHECK_EQ(std::string(name.sun_path), std::string(path_address().name.sun_path));
                write_all(fd, "b");
              }};

}  // namespace
}  // namespace shunt::behaviour
