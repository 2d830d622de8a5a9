// SO_RCVTIMEO and SO_SNDTIMEO: EAGAIN after about the time, never before it.
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kTimeout_ms = 60;
constexpr double kEarly_ms = 12;   // the kernel counts in ticks
constexpr double kLate_ms = 1500;  // a busy machine is late, not wrong

void set_timeout(int fd, int option, int milliseconds) {
  const timeval time{milliseconds / 1000, milliseconds % 1000 * 1000};
  CHECK_EQ(::setsockopt(fd, SOL_SOCKET, option, &time, sizeof time), 0);
}

// Runs `call`, which must take about the timeout.
template <class Call>
void expect_timeout(const Call& call) {
  const double start = now_ms();
  call();
  const double took = now_ms() - start;
  CHECK(took > kTimeout_ms - kEarly_ms && took < kTimeout_ms + kLate_ms);
}

BEHAVIOUR{.name = "of_receiving",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                char data[10];
                iovec piece{data, sizeof data};
                msghdr header{};
                header.msg_iov = &piece;
                header.msg_iovlen = 1;
                set_timeout(fd, SO_RCVTIMEO, kTimeout_ms);
                expect_timeout([&] { CHECK_ERRNO(::read(fd, data, sizeof data), EAGAIN); });
                expect_timeout([&] { CHECK_ERRNO(::readv(fd, &piece, 1), EAGAIN); });
                expect_timeout([&] { CHECK_ERRNO(::recv(fd, data, sizeof data, 0), EAGAIN); });
                expect_timeout([&] { CHECK_ERRNO(::recv(fd, data, sizeof data, MSG_PEEK), EAGAIN); });
                expect_timeout([&] { CHECK_ERRNO(::recvmsg(fd, &header, 0), EAGAIN); });
                tell_peer();
              }};

BEHAVIOUR{.name = "of_receiving_with_data_in_time",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                write_all(fd, "x");
                await_peer();
              },
          .client =
              [](int fd) {
                set_timeout(fd, SO_RCVTIMEO, 5000);
                tell_peer();
                const double start = now_ms();
                CHECK_EQ(read_exactly(fd, 1), "x");
                CHECK(now_ms() - start < 4000);
                set_timeout(fd, SO_RCVTIMEO, kTimeout_ms);
                char byte = 0;
                expect_timeout([&] { CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN); });
                tell_peer();
              }};

BEHAVIOUR{.name = "of_waiting_for_all",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 500));
                await_peer();
              },
          .client =
              [](int fd) {
                CHECK(is_readable(fd, 10'000));
                set_timeout(fd, SO_RCVTIMEO, kTimeout_ms);
                std::string data(1000, '\0');
                expect_timeout([&] { CHECK_EQ(::recv(fd, data.data(), data.size(), MSG_WAITALL), 500); });
                CHECK_EQ(agreeing(data.substr(0, 500), 0), 500U);
                tell_peer();
              }};

BEHAVIOUR{.name = "of_sending",
          .server =
              [](int fd) {
                const uint64_t count = await_peer();
                read_stream(fd, 0, count, 65'536);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 4), "more");
              },
          .client =
              [](int fd) {
                set_timeout(fd, SO_SNDTIMEO, kTimeout_ms);
                const std::string data = bytes_at(0, size_t{8} << 20);
                ssize_t n = 0;
                expect_timeout([&] { n = ::write(fd, data.data(), data.size()); });
                CHECK(n > 0 && n < static_cast<ssize_t>(data.size()));
                const char* rest = data.data() + n;
                expect_timeout([&] { CHECK_ERRNO(::write(fd, rest, 100'000), EAGAIN); });
                expect_timeout([&] { CHECK_ERRNO(::send(fd, rest, 100'000, MSG_NOSIGNAL), EAGAIN); });
                tell_peer(static_cast<uint32_t>(n));
                await_peer();
                write_all(fd, "more");
              },
          .limit = kByFences};

BEHAVIOUR{.name = "are_read_back_and_taken_away",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(kTimeout_ms * 2);
                write_all(fd, "x");
              },
          .client =
              [](int fd) {
                set_timeout(fd, SO_RCVTIMEO, 5500);
                timeval time{};
                socklen_t length = sizeof time;
                CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, &length), 0);
                CHECK_EQ(time.tv_sec, 5);
                CHECK(time.tv_usec >= 490'000 && time.tv_usec <= 510'000);
                set_timeout(fd, SO_RCVTIMEO, kTimeout_ms);
                set_timeout(fd, SO_RCVTIMEO, 0);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");
              }};

BEHAVIOUR{.name = "of_a_duplicate_hold_for_both",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                const int other = ::dup(fd);
                set_timeout(other, SO_RCVTIMEO, kTimeout_ms);
                char byte = 0;
                expect_timeout([&] { CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN); });
                tell_peer();
              }};

BEHAVIOUR{.name = "set_before_connecting",
          .server =
              [](int) {
                const int listener = listen_at(path_address());
                tell_peer();
                const int fd = accept_at(listener);
                warm_up_server(fd);
                await_peer();
              },
          .client =
              [](int) {
                await_peer();
                const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
                set_timeout(fd, SO_RCVTIMEO, kTimeout_ms);
                const Address address = path_address();
                CHECK_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address.name), address.length), 0);
                char byte = 0;
                expect_timeout([&] { CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN); });
                set_timeout(fd, SO_RCVTIMEO, 10'000);
                warm_up_client(fd);
                set_timeout(fd, SO_RCVTIMEO, kTimeout_ms);
                expect_timeout([&] { CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN); });
                tell_peer();
              },
          .connects_itself = true};

}  // namespace
}  // namespace shunt::behaviour
