// Signals that find a thread asleep: a role asks for one, and the runner looks at the role from outside until it sleeps. A timer cannot do that: where
// the processor is taken away, it ends before the call has begun.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace shunt::behaviour {

// Of a role: one SIGALRM for this thread, once it has slept in the kernel for about that long.
void alarm_after_sleep_ms(int milliseconds);

// The runner's side, one for each pair of roles. One thread.
class Alarms {
 public:
  // Makes the pipe, in the pair's private directory. Throws std::system_error.
  explicit Alarms(const std::string& directory);
  ~Alarms();
  Alarms(const Alarms&) = delete;
  Alarms& operator=(const Alarms&) = delete;

  int fd() const { return pipe_; }  // readable: look()
  // Sends what is due. In milliseconds: when it has to be called again at the latest, if ever.
  std::optional<int> look();

  struct Wanted {
    pid_t process, thread;
    int sleep_ms;
  };

 private:
  struct Waiting {
    Wanted wanted;
    double awake_ms;  // when it was last seen so
  };
  int pipe_;
  std::vector<Waiting> waiting_;
};

}  // namespace shunt::behaviour
