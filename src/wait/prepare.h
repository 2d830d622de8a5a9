// What a process needs before its first connection moves to the ring, and no sooner: until then the library makes no call of its own.
// Any thread, under no lock that a handler may want; once per process, its forked children inherit it.
#pragma once

namespace shunt {

// Registers for the barrier that an end which leaves at once makes in its peer, and has copies protected against bad memory. False: a filter, or an old kernel,
// refuses, and no connection of this process is to be moved; or another thread is at it for longer than anybody should wait.
// A process with threads waits here once for 5 to 15 ms: so long does the kernel take to have every CPU know.
bool prepare_to_upgrade();

// By the interposition floor: installs what ends a copy that meets bad memory (shm/user_copy.h). False: it could not.
inline bool (*protect_copies)() = [] { return true; };

}  // namespace shunt
