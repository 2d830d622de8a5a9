// The counting handler and the timers of signals.h.
#include "signals.h"

#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>

#include "check.h"

// The kernel returns from a handler by way of this.
asm(".text\n"
    "shunt_behaviour_restorer:\n\t"
    "movl $15, %eax\n\t"
    "syscall\n");
extern "C" void shunt_behaviour_restorer();

namespace shunt::behaviour {
namespace {

std::atomic<int> counted{0};
static_assert(std::atomic<int>::is_always_lock_free);

void count_one(int) { counted.fetch_add(1); }

void set_timer(int first_us, int every_us) {
  itimerval timer{};
  timer.it_value.tv_sec = first_us / 1'000'000;
  timer.it_value.tv_usec = first_us % 1'000'000;
  timer.it_interval.tv_usec = every_us;
  CHECK_EQ(::setitimer(ITIMER_REAL, &timer, nullptr), 0);
}

}  // namespace

void count_signal(int signal, int flags) {
  struct sigaction action {};
  action.sa_handler = count_one;
  action.sa_flags = flags;
  CHECK_EQ(::sigaction(signal, &action, nullptr), 0);
  counted = 0;
}

int signals_counted() { return counted; }

void handle_past_libc(int signal, void (*handler)(int)) {
  constexpr unsigned long kRestorer = 0x04000000;  // SA_RESTORER
  const struct {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)();
    unsigned long mask;
  } action{handler, kRestorer, shunt_behaviour_restorer, 0};
  CHECK_EQ(::syscall(SYS_rt_sigaction, signal, &action, nullptr, sizeof action.mask), 0);
}

void alarm_after_ms(int milliseconds) { set_timer(milliseconds * 1000, 0); }
void alarm_after_us(int microseconds) { set_timer(microseconds, 0); }
void alarm_every_us(int microseconds) { set_timer(microseconds, microseconds); }

}  // namespace shunt::behaviour
