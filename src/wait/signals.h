// How many of the program's signal handlers ran on this thread, so that a call that spins can end as the kernel's would.
// Written by the handler wrapper (interpose), read by whoever waits, same thread only.
// signal(7): a blocking socket call is restarted after a handler with SA_RESTART unless a timeout is set; poll never is.
#pragma once

#include <cstdint>

namespace shunt {

struct SignalCount {
  volatile uint32_t all;           // handlers that ran
  volatile uint32_t interrupting;  // of these, without SA_RESTART
};
inline thread_local SignalCount signal_count{};

// Which handlers end a wait.
enum class Interruption : uint8_t { by_any_handler, by_handlers_without_restart };

class SignalWatch {
 public:
  explicit SignalWatch(Interruption kind) : kind_(kind), start_(now()) {}
  bool interrupted() const { return now() != start_; }

 private:
  uint32_t now() const {
    return kind_ == Interruption::by_any_handler ? signal_count.all : signal_count.interrupting;
  }
  Interruption kind_;
  uint32_t start_;
};

}  // namespace shunt
