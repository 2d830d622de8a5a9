// Installs the program's signal handlers behind a trampoline that counts them (wait/signals.h), and never lets the
// program see it. Any thread, signal handlers included. Results as sigaction(2) gives them: −1 and errno.
#pragma once

#include <csignal>

namespace shunt::interpose {

// Before the first copy from or to a ring, for the faults that end one (shm/user_copy.h): where the program has no handler it is shown SIG_DFL, and any other
// fault ends it as without the library. False: refused. errno is left as it was.
bool install_handlers_of_faults();

// sigaction(2).
int install_handler(int signal, const struct sigaction* action, struct sigaction* old);

void handlers_after_fork_in_child();

}  // namespace shunt::interpose
