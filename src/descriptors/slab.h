// Where connections and their sides live: slabs of 64 that are never unmapped, so that a stale pointer meets another life, never a hole.
// Any thread, any context; the slow paths take a process-private lock.
#pragma once

#include "connection/connection.h"

namespace shunt {

// Whether the kernel has made the child.
enum class Born : uint8_t { no, yes };

// A fresh connection with one reference and a zeroed side, or null without memory.
Connection* allocate_connection();
// Its last reference is gone. A slot that a forked child may still use is retired, not reused; a slab of nothing but retired slots is mapped anew.
void free_connection(Connection& connection);

// ---- fork; between before and after no other thread allocates, renews or upgrades, and no handler runs on this one
void lock_slabs_before_fork();  // marks every live connection as shared
void unlock_slabs_in_parent(Born born);
// libc's fork handlers do not say whether a child was born. Around a call that forks: nobody was, so nobody shares anything.
void expect_fork();
void discount_fork();
// All slots belong to the parent from now on. `in_use` tells how many descriptors of the child, and calls that it goes on with, refer to a connection.
void adopt_slabs_in_child(uint32_t parent, uint32_t (*in_use)(const Connection&));

// In a child of a fork that nobody told the library of. No call.
bool slabs_were_copied();

}  // namespace shunt
