// Installs the program's signal handlers behind a trampoline that counts them (wait/signals.h), and never lets the
// program see it. Any thread, signal handlers included. Results as sigaction(2) gives them: −1 and errno.
#pragma once

#include <csignal>

namespace shunt::interpose {

// At the start, where the program has no handlers of its own yet, for the faults that end a copy (shm/user_copy.h). The program is shown SIG_DFL, and any
// other fault ends it as without the library.
void install_handlers_of_faults();

// sigaction(2).
int install_handler(int signal, const struct sigaction* action, struct sigaction* old);

void handlers_after_fork_in_child();

}  // namespace shunt::interpose
