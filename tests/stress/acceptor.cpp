// The accepting end: a thread for each connection, or a child.
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>

#include "ends.h"
#include "stream.h"

namespace shunt::stress {
namespace {

std::atomic<int> serving{0};

const char* name_of(Task task) {
  switch (task) {
    case Task::echo:
      return "echo";
    case Task::forked:
      return "forked";
    case Task::one_way:
      return "one way";
    case Task::late:
      return "late";
  }
  return "no such task";
}

bool answer(int fd, Dice& dice, const Header& header) {
  switch (header.task) {
    case Task::echo:
    case Task::forked:
      return answer_turns(fd, dice, header, 0, turns_of(header));
    case Task::one_way:
      if (!read_stream(fd, dice, header.seed, 0, header.up)) return false;
      expect_end(fd);
      return write_stream(fd, dice, ~header.seed, 0, header.down);
    case Task::late:
      ::usleep(2000);  // the reader sleeps by then
      return write_stream(fd, dice, ~header.seed, 0, header.down);
  }
  CHECK(false && "no such task");
  return false;
}

// The parent's other threads are inside all kinds of calls when this child is made.
void answer_in_child(int fd, Dice& dice, const Header& header) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(answer(fd, dice, header) || header.may_be_cut);
    ::_exit(0);
  }
  ::close(fd);
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

void serve(int fd, uint64_t seed) {
  Dice dice(seed);
  Header header{};
  if (!read_whole(fd, dice, reinterpret_cast<char*>(&header), sizeof header)) {
    ::close(fd);  // cut before it began
  } else if (deed = name_of(header.task); header.task == Task::forked) {
    answer_in_child(fd, dice, header);
  } else {
    CHECK(answer(fd, dice, header) || header.may_be_cut);
    ::close(fd);
  }
  --serving;
}

struct Served {
  int fd;
  uint64_t seed;
};

// Detached from its beginning: glibc's pthread_detach() looks at a thread that may be gone by then (its bug 19951).
void serve_in_a_thread(const Served& served) {
  pthread_attr_t detached;
  CHECK(::pthread_attr_init(&detached) == 0 && ::pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED) == 0);
  const auto begin = [](void* argument) -> void* {
    const std::unique_ptr<Served> own(static_cast<Served*>(argument));
    serve(own->fd, own->seed);
    return nullptr;
  };
  pthread_t thread;
  errno = ::pthread_create(&thread, &detached, begin, new Served(served));
  CHECK(errno == 0);
  ::pthread_attr_destroy(&detached);
}

}  // namespace

int accept_and_answer(const Plan& plan) {
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  CHECK(plan.path.size() < sizeof name.sun_path);
  std::memcpy(name.sun_path, plan.path.c_str(), plan.path.size());
  CHECK(::bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  CHECK(::listen(listener, 100) == 0);
  (void)!::write(STDOUT_FILENO, "!", 1);  // connect now
  Dice dice(plan.seed);
  for (bool over = false; !over || serving > 0;) {
    pollfd both[2] = {{.fd = listener, .events = POLLIN, .revents = 0}, {.fd = over ? -1 : STDIN_FILENO, .events = POLLIN, .revents = 0}};
    CHECK(::poll(both, 2, over ? 10 : -1) >= 0);
    over = over || both[1].revents != 0;
    if ((both[0].revents & POLLIN) == 0) continue;
    const int fd = ::accept4(listener, nullptr, nullptr, dice.one_in(2) ? SOCK_CLOEXEC : SOCK_CLOEXEC | SOCK_NONBLOCK);
    CHECK(fd >= 0);
    ++serving;
    serve_in_a_thread({fd, dice.next()});
  }
  return 0;
}

}  // namespace shunt::stress
