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

BEHAVIOUR{.name = "that_fail_say_why",
          .server =
              [](int) {
                const int listener = listen_at(path_address());
                tell_peer();
                join_child(in_child([listener] {
                  const int gone = accept_at(listener);
                  await_peer();
                  CHECK_ERRNO(::send(gone, "x", 1, MSG_NOSIGNAL), EPIPE);
                }));
                if (current_way() == Way::both) CHECK(reports_so_far().find("\"offer-failed\":1") != std::string::npos);
                // A buffer that cannot be read costs the program its offer, and nothing else.
                const int fd = accept_at(listener);
                CHECK_ERRNO(::send(fd, reinterpret_cast<void*>(16), 5, 0), EFAULT);
                write_all(fd, "hello");
              },
          .client =
              [](int) {
                await_peer();
                ::close(connect_to(path_address()));
                tell_peer();
                CHECK_EQ(read_exactly(connect_to(path_address()), 5), "hello");
              },
          .connects_itself = true,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
