// A named pipe carries what is wanted: a descriptor of its own would be one more in each role.
#include "alarms.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr const char* kPipe = "alarms";

}  // namespace

void alarm_after_sleep_ms(int milliseconds) {
  const int pipe = ::open(scratch_file(kPipe).c_str(), O_WRONLY | O_CLOEXEC);
  CHECK(pipe >= 0);
  const Alarms::Wanted wanted{::getpid(), ::gettid(), milliseconds};
  CHECK_EQ(::write(pipe, &wanted, sizeof wanted), sizeof wanted);
  CHECK_EQ(::close(pipe), 0);
}

Alarms::Alarms(const std::string& directory) {
  const std::string name = directory + "/" + kPipe;
  if (::mkfifo(name.c_str(), 0600) != 0) throw std::system_error(errno, std::generic_category(), "mkfifo");
  pipe_ = ::open(name.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);  // for writing too: it never ends
  if (pipe_ < 0) throw std::system_error(errno, std::generic_category(), "open");
}

Alarms::~Alarms() { ::close(pipe_); }

std::optional<int> Alarms::look() {
  for (Wanted wanted; ::read(pipe_, &wanted, sizeof wanted) == sizeof wanted;) waiting_.push_back({wanted, now_ms()});
  std::erase_if(waiting_, [](Waiting& one) {
    if (!is_sleeping(one.wanted.thread)) one.awake_ms = now_ms();
    if (now_ms() - one.awake_ms < one.wanted.sleep_ms) return false;
    ::syscall(SYS_tgkill, one.wanted.process, one.wanted.thread, SIGALRM);
    return true;
  });
  return waiting_.empty() ? std::nullopt : std::optional(1);
}

}  // namespace shunt::behaviour
