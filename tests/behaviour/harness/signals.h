// Signals for the parts: handlers that count, and timers that interrupt.
// Handlers are process-wide; a part installs what it needs before it starts threads.
#pragma once

#include <csignal>

namespace shunt::behaviour {

// From now on `signal` is counted. `flags` as for sigaction: 0 interrupts system calls, SA_RESTART restarts them.
void count_signal(int signal, int flags);
int signals_counted();  // since the last count_signal

// By the kernel's own call: the library does not see it.
void handle_past_libc(int signal, void (*handler)(int));

void alarm_after_ms(int milliseconds);  // one SIGALRM
void alarm_after_us(int microseconds);
void alarm_every_us(int microseconds);  // SIGALRM over and over; 0 ends it

}  // namespace shunt::behaviour
