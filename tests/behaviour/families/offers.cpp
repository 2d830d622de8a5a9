// The write that carries the offer of a channel fails: the program gets its own error, and the report the reason.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

std::string reports_so_far() {
  const char* file = std::getenv("SHUNT_REPORT");
  std::ostringstream text;
  if (file != nullptr) text << std::ifstream(file).rdbuf();
  return text.str();
}

const std::string kWord = "hello";

void expect_word(int fd) { CHECK_EQ(read_exactly(fd, kWord.size()), kWord); }

// The reader has fallen asleep by then, and is seen to wait.
void say_slowly(int fd) {
  sleep_ms(20);
  write_all(fd, kWord);
}

BEHAVIOUR{.name = "that_fail_say_why",
          .server =
              [](int) {
                const int listener = listen_at(path_address());
                tell_peer();
                join_child(in_child([listener] {
                  const int gone = accept_at(listener);
                  expect_word(gone);
                  say_slowly(gone);
                  expect_word(gone);  // the client has been seen to read and wait by now, and may be offered a channel
                  await_peer();
                  CHECK_ERRNO(::send(gone, "x", 1, MSG_NOSIGNAL), EPIPE);
                }));
                if (current_way() == Way::both) CHECK(reports_so_far().find("\"offer-failed\":1") != std::string::npos);
                // A buffer that cannot be read costs the program its offer, and nothing else.
                const int fd = accept_at(listener);
                expect_word(fd);
                say_slowly(fd);
                expect_word(fd);
                CHECK_ERRNO(::send(fd, reinterpret_cast<void*>(16), 5, 0), EFAULT);
                write_all(fd, kWord);
              },
          .client =
              [](int) {
                await_peer();
                const int gone = connect_to(path_address());
                say_slowly(gone);
                expect_word(gone);
                say_slowly(gone);
                ::close(gone);
                tell_peer();
                const int fd = connect_to(path_address());
                say_slowly(fd);
                expect_word(fd);
                say_slowly(fd);
                expect_word(fd);
              },
          .connects_itself = true,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
