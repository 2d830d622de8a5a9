// A connected pair of stream sockets, both ends entered into the descriptor table as an aware connect and accept would.
// For tests that call the library's floors directly, without LD_PRELOAD.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "descriptors/table.h"
#include "linux/membarrier.h"
#include "sys/raw.h"

namespace shunt::testing {

class StreamPair {
 public:
  StreamPair() {
    static const bool started = [] {
      sys::raw(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
      patience.start(-1);
      note_process();
      return true;
    }();
    (void)started;
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    socklen_t length = sizeof(sa_family_t);
    EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&name), length), 0);  // autobind
    length = sizeof name;
    getsockname(listener, reinterpret_cast<sockaddr*>(&name), &length);
    EXPECT_EQ(listen(listener, 1), 0);
    connector = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(connector, reinterpret_cast<sockaddr*>(&name), length), 0);
    acceptor = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    enter_connection(connector, Role::connector, false);
    enter_connection(acceptor, Role::acceptor, false);
    close(listener);
  }
  ~StreamPair() {
    close_end(connector);
    close_end(acceptor);
  }
  static void close_end(int& fd) {
    if (fd < 0) return;
    Closing closing(fd);
    close(fd);
    fd = -1;
  }

  int connector, acceptor;
};

inline long write_to(int fd, const void* data, size_t bytes, int flags = 0) {
  Pin pin(fd);
  iovec part{const_cast<void*>(data), bytes};
  return send(*pin, fd, {Cursor(&part, 1), bytes, flags, nullptr});
}

inline long read_from(int fd, void* data, size_t bytes, int flags = 0) {
  Pin pin(fd);
  iovec part{data, bytes};
  return receive(*pin, fd, {Cursor(&part, 1), bytes, flags, nullptr});
}

inline short ready(int fd) {
  Pin pin(fd);
  return look(*pin, fd);
}

inline void upgrade_early() {
  behaviour = {};
  behaviour.calls_before_evidence = 2;
  behaviour.waits_before_evidence = 0;  // one thread: nobody has to wait
  behaviour.writes_before_offer = 0;
}

// The connector has shown its marker: the acceptor's next write carries the offer.
inline void exchange_before_offer(int connector, int acceptor) {
  upgrade_early();
  char byte = 'x';
  ASSERT_EQ(write_to(connector, &byte, 1), 1);
  ASSERT_EQ(read_from(acceptor, &byte, 1), 1);
  ASSERT_EQ(write_to(acceptor, &byte, 1), 1);
  ASSERT_EQ(read_from(connector, &byte, 1), 1);
  ASSERT_EQ(write_to(connector, &byte, 1), 1);
  ASSERT_EQ(read_from(acceptor, &byte, 1), 1);
}

// Echoes until both directions are on the ring.
inline void upgrade(StreamPair& pair) {
  upgrade_early();
  char c = 'x';
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(write_to(pair.connector, &c, 1), 1);
    ASSERT_EQ(read_from(pair.acceptor, &c, 1), 1);
    ASSERT_EQ(write_to(pair.acceptor, &c, 1), 1);
    ASSERT_EQ(read_from(pair.connector, &c, 1), 1);
  }
  for (const int fd : {pair.connector, pair.acceptor}) {
    Pin pin(fd);
    ASSERT_EQ(pin->side->out_flow.load(), Flow::ring);
    ASSERT_EQ(pin->side->in_flow.load(), Flow::ring);
  }
}

}  // namespace shunt::testing
