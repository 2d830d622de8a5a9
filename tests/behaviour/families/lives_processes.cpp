// Lives of a descriptor in several processes and programs: fork, vfork, spawn, exec.
#include <fcntl.h>
#include <spawn.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "life.h"

extern char** environ;

namespace shunt::behaviour {
namespace {

constexpr const char* kThisProgram = "/proc/self/exe";
constexpr int kHigh = 100;

// One process waits until another has got so far.
class Gate {
 public:
  Gate() { CHECK_EQ(::pipe2(ends_, O_CLOEXEC), 0); }
  ~Gate() { ::close(ends_[0]), ::close(ends_[1]); }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void open() const { write_all(ends_[1], "g"); }
  void await() const { CHECK_EQ(read_exactly(ends_[0], 1), "g"); }

 private:
  int ends_[2];
};

constexpr Life kForked[] = {
    {"fork, the parent carries on",
     [](int fd, const Stream& rest) {
       const int child = in_child([fd] { CHECK_EQ(::close(fd), 0); });
       rest.first(fd);
       join_child(child);
       rest.second(fd), rest.last(fd);
       CHECK_EQ(::close(fd), 0);
     }},
    {"fork, the child carries on",
     [](int fd, const Stream& rest) {
       const int child = in_child([&] { rest.all(fd); });
       CHECK_EQ(::close(fd), 0);
       join_child(child);
     }},
    {"fork, both carry on",
     [](int fd, const Stream& rest) {
       join_child(in_child([&] { rest.first(fd); }));
       rest.second(fd);
       const int child = in_child([&] { rest.last(fd); });
       CHECK_EQ(::close(fd), 0);
       join_child(child);
     }},
    {"double fork",
     [](int fd, const Stream& rest) {
       const Gate done;
       join_child(in_child([&] {
         in_child([&] {
           rest.all(fd);
           done.open();
         });
       }));
       CHECK_EQ(::close(fd), 0);
       done.await();
     }},
    {"daemon",
     [](int fd, const Stream& rest) {
       const Gate done;
       join_child(in_child([&] {
         CHECK_EQ(::daemon(1, 1), 0);
         rest.all(fd);
         done.open();
       }));
       CHECK_EQ(::close(fd), 0);
       done.await();
     }},
    {"fork with other threads inside calls",
     [](int fd, const Stream& rest) {
       int child = -1;
       {
         const CallsBeside others(fd);
         child = in_child([&] { rest.all(fd); });
       }
       CHECK_EQ(::close(fd), 0);
       join_child(child);
     }},
};

BEHAVIOUR{.name = "forked_at_the_server", .server = holds<kForked>, .client = faces<kForked>, .warms_up = false};
BEHAVIOUR{.name = "forked_at_the_client", .server = faces<kForked>, .client = holds<kForked>, .warms_up = false};

// The environment without the library. Named and empty: without the name the library would be given along.
std::vector<char*> wiped_environment() {
  static char no_library[] = "LD_PRELOAD=";
  std::vector<char*> wiped{no_library};
  for (char** one = environ; *one != nullptr; ++one) {
    if (std::strncmp(*one, "LD_PRELOAD=", 11) != 0 && std::strncmp(*one, "SHUNT_", 6) != 0) wiped.push_back(*one);
  }
  wiped.push_back(nullptr);
  return wiped;
}

enum class Library { kept, wiped };

[[noreturn]] void become(const char* program, int fd, const Stream& rest, Library library) {
  ImageArguments arguments(program, fd, rest);
  ::execve(program, arguments.argv, library == Library::kept ? environ : wiped_environment().data());
  fail(__FILE__, __LINE__, "execve");
}

// The new image is the only holder.
void in_an_image(int fd, const Stream& rest, const char* program, Library library) {
  const Gate closed;
  const int child = in_child([&] {
    closed.await();
    become(program, fd, rest, library);
  });
  CHECK_EQ(::close(fd), 0);
  closed.open();
  join_child(child);
}

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
const char* setuid_copy() { return kThisProgram; }  // which their runtimes refuse
#else
// A copy of this program with another user's rights, for which the loader leaves the library out. Only root can give
// those away; for others it is this program.
class SetuidCopy {
 public:
  SetuidCopy() {
    constexpr uid_t kNobody = 65534;
    const int from = ::open(kThisProgram, O_RDONLY | O_CLOEXEC), to = ::mkstemp(path_);
    CHECK(from >= 0 && to >= 0);
    while (const ssize_t copied = ::sendfile(to, from, nullptr, 1 << 20)) CHECK(copied > 0);
    if (::geteuid() == 0) CHECK_EQ(::fchown(to, kNobody, kNobody), 0);
    CHECK_EQ(::fchmod(to, 04755), 0);
    CHECK_EQ(::close(from), 0);
    CHECK_EQ(::close(to), 0);
  }
  ~SetuidCopy() { ::unlink(path_); }
  SetuidCopy(const SetuidCopy&) = delete;
  SetuidCopy& operator=(const SetuidCopy&) = delete;
  const char* path() const { return path_; }

 private:
  char path_[32] = "/tmp/shunt-setuid-XXXXXX";
};

const char* setuid_copy() {
  static const SetuidCopy copy;
  return copy.path();
}
#endif

constexpr Life kExecuted[] = {
    {"exec of an aware image", [](int fd, const Stream& rest) { in_an_image(fd, rest, kThisProgram, Library::kept); },
     nullptr, true},
    {"exec of an unaware image",
     [](int fd, const Stream& rest) { in_an_image(fd, rest, kThisProgram, Library::wiped); }, nullptr, true},
    {"exec of a static image",
     [](int fd, const Stream& rest) { in_an_image(fd, rest, SHUNT_STATIC_IMAGE, Library::kept); }, nullptr, true},
    {"exec of a setuid image", [](int fd, const Stream& rest) { in_an_image(fd, rest, setuid_copy(), Library::kept); },
     nullptr, true},
    {"exec of a program that leaves it alone",
     [](int fd, const Stream& rest) {
       join_child(in_child([] { ::execl("/bin/true", "true", static_cast<char*>(nullptr)); }));
       rest.all(fd);
       CHECK_EQ(::close(fd), 0);
     },
     nullptr, true},
    {"vfork, close, dup, exec",
     [](int fd, const Stream& rest) {
       ImageArguments arguments(kThisProgram, kHigh, rest);
       const int child = static_cast<int>(::vfork());
       if (child == 0) {
         ::dup2(fd, kHigh);
         ::close(fd);
         ::execve(kThisProgram, arguments.argv, environ);
         ::_exit(127);
       }
       CHECK_ERRNO(::fcntl(kHigh, F_GETFD), EBADF);
       CHECK_EQ(::close(fd), 0);
       join_child(child);
     },
     nullptr, true},
    {"posix_spawn with file actions",
     [](int fd, const Stream& rest) {
       ImageArguments arguments(kThisProgram, kHigh, rest);
       posix_spawn_file_actions_t actions;
       CHECK_EQ(::posix_spawn_file_actions_init(&actions), 0);
       CHECK_EQ(::posix_spawn_file_actions_adddup2(&actions, fd, kHigh), 0);
       CHECK_EQ(::posix_spawn_file_actions_addclose(&actions, fd), 0);
       pid_t child = -1;
       CHECK_EQ(::posix_spawn(&child, kThisProgram, &actions, nullptr, arguments.argv, environ), 0);
       ::posix_spawn_file_actions_destroy(&actions);
       CHECK_EQ(::close(fd), 0);
       join_child(child);
     },
     nullptr, true},
    {"system",
     [](int fd, const Stream& rest) {
       CHECK_EQ(std::system("exit 0"), 0);
       rest.all(fd);
       CHECK_EQ(::close(fd), 0);
     },
     nullptr, true},
    {"popen",
     [](int fd, const Stream& rest) {
       std::FILE* pipe = ::popen("exit 0", "r");
       CHECK(pipe != nullptr);
       rest.first(fd);
       CHECK_EQ(::pclose(pipe), 0);
       rest.second(fd), rest.last(fd);
       CHECK_EQ(::close(fd), 0);
     },
     nullptr, true},
};

BEHAVIOUR{.name = "executed_at_the_server",
          .server = holds<kExecuted>,
          .client = faces<kExecuted>,
          .warms_up = false,
          .leaves_ring = true};
BEHAVIOUR{.name = "executed_at_the_client",
          .server = faces<kExecuted>,
          .client = holds<kExecuted>,
          .warms_up = false,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
