// Evidence of use: who is upgraded, who is not, and what a connector that has shown its marker hands to its program.
#include <fcntl.h>
#include <sys/un.h>

#include <map>

#include "connection/evidence.h"
#include "stream_pair.h"

namespace shunt::testing {
namespace {

bool has_marker(int fd) {
  sockaddr_un name{};
  socklen_t length = sizeof name;
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length), 0);
  Bits bits;
  return read_marker(name, length, bits) == Marker::understood;
}

Reason plain(int fd) { return Pin(fd)->side->plain.load(); }

enum class Waits { none, each, at_first };

// Rounds of one byte there and back, as `auto` sees them. Every read finds its byte, so none of them sleeps: a wait is noted by hand.
void talk(StreamPair& pair, int rounds, Waits waits) {
  behaviour = {};
  char byte = 'x';
  for (int i = 0; i < rounds; ++i) {
    const bool waited = waits == Waits::each || (waits == Waits::at_first && i < 3);
    ASSERT_EQ(write_to(pair.connector, &byte, 1), 1);
    if (waited) note_wait(*Pin(pair.acceptor));
    ASSERT_EQ(read_from(pair.acceptor, &byte, 1, MSG_DONTWAIT), 1);
    ASSERT_EQ(write_to(pair.acceptor, &byte, 1), 1);
    if (waited) note_wait(*Pin(pair.connector));
    ASSERT_EQ(read_from(pair.connector, &byte, 1, MSG_DONTWAIT), 1);
  }
}

TEST(Evidence, IsShownWithTheFirstReplies) {
  StreamPair pair;
  talk(pair, 8, Waits::each);
  EXPECT_TRUE(has_marker(pair.connector));
  EXPECT_EQ(Pin(pair.connector)->side->out_flow.load(), Flow::ring);
  EXPECT_EQ(Pin(pair.acceptor)->side->out_flow.load(), Flow::ring);
}

TEST(Evidence, OfAShortConnectionCostsNothing) {
  StreamPair pair;
  talk(pair, 3, Waits::each);
  EXPECT_FALSE(has_marker(pair.connector));
}

TEST(Evidence, NeedsAWaitThatWasSeen) {
  StreamPair pair;
  talk(pair, 100, Waits::none);
  EXPECT_FALSE(has_marker(pair.connector));
  EXPECT_FALSE(has_channel(*Pin(pair.acceptor)));
  EXPECT_EQ(reason_without_offer(*Pin(pair.connector)), Reason::unseen_use);
}

TEST(Evidence, IsNoMoreWhereReadsGoOnWithoutWaits) {
  StreamPair pair;
  behaviour = {};
  note_wait(*Pin(pair.connector)), note_wait(*Pin(pair.connector));
  char byte = 'x', room[16];
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(::write(pair.acceptor, &byte, 1), 1);
    ASSERT_EQ(read_from(pair.connector, room, sizeof room, MSG_DONTWAIT), 1);  // and nothing is left
  }
  ASSERT_EQ(write_to(pair.connector, &byte, 1), 1);
  ASSERT_EQ(write_to(pair.connector, &byte, 1), 1);
  EXPECT_FALSE(has_marker(pair.connector));
}

TEST(Evidence, IsNotShownWhereAnOptionAsksForMoreThanBytes) {
  for (const int option : {SO_PASSCRED, 76 /* SO_PASSPIDFD */}) {
    StreamPair pair;
    const int on = 1;
    ASSERT_EQ(setsockopt(pair.connector, SOL_SOCKET, option, &on, sizeof on), 0);
    talk(pair, 8, Waits::each);
    EXPECT_FALSE(has_marker(pair.connector)) << option;
    EXPECT_EQ(plain(pair.connector), Reason::pass_credentials) << option;
  }
}

TEST(Evidence, TakesOverWhatWasSetPastTheLibrary) {
  StreamPair pair;
  ASSERT_EQ(fcntl(pair.connector, F_SETFL, O_NONBLOCK), 0);
  const timeval limit{3, 0};
  ASSERT_EQ(setsockopt(pair.acceptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  talk(pair, 8, Waits::each);
  EXPECT_TRUE(Pin(pair.connector)->side->nonblocking.load());
  EXPECT_EQ(Pin(pair.acceptor)->side->receive_timeout_ns.load(), 3'000'000'000u);
}

// As a library of protocol 3 marks itself.
TEST(Evidence, OfAnotherVersionIsLeftAlone) {
  StreamPair pair;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  memcpy(name.sun_path + 1, "shunt1-ABEiM0RVZneImaq7zN3u_w", 29);
  ASSERT_EQ(::bind(pair.connector, reinterpret_cast<sockaddr*>(&name), offsetof(sockaddr_un, sun_path) + 30), 0);
  talk(pair, 12, Waits::each);
  EXPECT_EQ(plain(pair.acceptor), Reason::other_version);
  EXPECT_EQ(plain(pair.connector), Reason::own_name);
  EXPECT_FALSE(has_channel(*Pin(pair.acceptor)));
}

// The counts never agree again, so the direction stays where the reader finds its bytes.
TEST(Evidence, EndsWhereBytesAreTakenPastTheLibrary) {
  StreamPair pair;
  exchange_before_offer(pair.connector, pair.acceptor);
  char byte = 'x';
  ASSERT_EQ(write_to(pair.acceptor, &byte, 1), 1);  // carries the offer
  ASSERT_EQ(read_from(pair.connector, &byte, 1), 1);
  ASSERT_TRUE(has_channel(*Pin(pair.connector)));
  for (int i = 1; i < 60; ++i) {
    ASSERT_EQ(::write(pair.acceptor, &byte, 1), 1);  // not counted, either: as if it had been written through the library and taken past it
    ASSERT_EQ(::read(pair.connector, &byte, 1), 1);
    Pin(pair.acceptor)->side->kernel_sent.fetch_add(1);
    ASSERT_EQ(write_to(pair.acceptor, &byte, 1), 1);
    ASSERT_EQ(::read(pair.connector, &byte, 1), 1);
  }
  EXPECT_EQ(plain(pair.acceptor), Reason::unseen_use);
  EXPECT_NE(Pin(pair.acceptor)->side->out_flow.load(), Flow::ring);
}

// ---- control data that comes to a connector with a marker: as the kernel would have handed it out

struct Received {
  long bytes;
  int flags;
  size_t room_used;
  std::vector<std::string> items;  // level, type, length and what they hold, descriptors by their number alone
  bool operator==(const Received&) const = default;
};

void PrintTo(const Received& r, std::ostream* out) {
  *out << r.bytes << " bytes, flags " << r.flags << ", control " << r.room_used << ":";
  for (const std::string& item : r.items) *out << " [" << item << "]";
}

Received take_apart(long bytes, msghdr& message) {
  Received received{bytes, message.msg_flags, message.msg_controllen, {}};
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
    received.items.push_back(std::to_string(item->cmsg_level) + "/" + std::to_string(item->cmsg_type) + "/" + std::to_string(item->cmsg_len));
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= item->cmsg_len; at += sizeof(int)) {
      int fd;
      memcpy(&fd, reinterpret_cast<uint8_t*>(item) + at, sizeof fd);
      EXPECT_EQ(::close(fd), 0);
    }
  }
  return received;
}

template <typename Receive>
Received receive_with(size_t room, Receive receive) {
  alignas(cmsghdr) uint8_t control[512] = {};
  char data[16];
  iovec part{data, sizeof data};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room > 0 ? control : nullptr;
  message.msg_controllen = room;
  const long bytes = receive(part, message);
  return take_apart(bytes, message);
}

void send_descriptors(int fd, int count) {
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(4 * sizeof(int))] = {};
  char byte = 'd';
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(static_cast<size_t>(count) * sizeof(int));
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    *item = {CMSG_LEN(static_cast<size_t>(count) * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    for (int i = 0; i < count; ++i) memcpy(CMSG_DATA(item) + static_cast<size_t>(i) * sizeof(int), &fd, sizeof fd);
  }
  ASSERT_EQ(::sendmsg(fd, &message, 0), 1);
}

TEST(ControlData, OfAMarkedConnectorIsTheKernelsToTheByte) {
  StreamPair pair;
  exchange_before_offer(pair.connector, pair.acceptor);
  ASSERT_TRUE(awaits_offer(*Pin(pair.connector)));
  int kernel[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, kernel), 0);
  for (const int credentials : {0, 1}) {
    for (const int fd : {pair.connector, kernel[0]}) ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &credentials, sizeof credentials), 0);
    for (int count = 0; count <= 4; ++count)
      for (size_t room = 0; room <= 96; room += 4) {
        SCOPED_TRACE(::testing::Message() << count << " descriptors, room " << room << ", credentials " << credentials);
        send_descriptors(kernel[1], count);
        send_descriptors(pair.acceptor, count);
        const Received wanted = receive_with(room, [&](iovec&, msghdr& message) { return ::recvmsg(kernel[0], &message, 0); });
        const Received got = receive_with(room, [&](iovec& part, msghdr& message) {
          Pin pin(pair.connector);
          return receive(*pin, pair.connector, {Cursor(&part, 1), part.iov_len, 0, &message});
        });
        ASSERT_EQ(got, wanted);
      }
  }
  ::close(kernel[0]), ::close(kernel[1]);
}

// An offer beside credentials that the program asked for since it showed its marker: they come as if there were none.
TEST(ControlData, BesideAnOfferIsWhatItWouldHaveBeenWithoutIt) {
  for (const size_t room : {size_t{0}, CMSG_SPACE(sizeof(ucred)), size_t{200}}) {
    SCOPED_TRACE(room);
    StreamPair pair;
    exchange_before_offer(pair.connector, pair.acceptor);
    const int on = 1;
    ASSERT_EQ(setsockopt(pair.connector, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    char byte = 'o';
    ASSERT_EQ(write_to(pair.acceptor, &byte, 1), 1);
    ASSERT_TRUE(has_channel(*Pin(pair.acceptor))) << "the write carried an offer";
    const Received got = receive_with(room, [&](iovec& part, msghdr& message) {
      Pin pin(pair.connector);
      return receive(*pin, pair.connector, {Cursor(&part, 1), part.iov_len, 0, &message});
    });
    EXPECT_EQ(got.bytes, 1);
    EXPECT_EQ(got.items.size(), room > 0 ? 1u : 0u);
    EXPECT_EQ(got.flags & MSG_CTRUNC, room > 0 ? 0 : MSG_CTRUNC) << "credentials without room";
    EXPECT_EQ(plain(pair.connector), Reason::pass_credentials);
    EXPECT_FALSE(has_channel(*Pin(pair.connector)));
  }
}

}  // namespace
}  // namespace shunt::testing
