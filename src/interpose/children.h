// Children that are made past fork(), for the wrappers of _Fork, clone and syscall. Any thread, any context, signal
// handlers too; makes raw calls and calls of the next library, and allocates nothing. Results ≥ 0 or −errno.
#pragma once

#include "descriptors/slab.h"

namespace shunt::interpose {

// `make` is libc's call that forks, and runs the fork handlers: they count a child before it is born, and are not told if it never is.
template <typename Make>
int with_fork_handlers(Make make) {
  expect_fork();
  const int child = make();
  if (child < 0) discount_fork();
  return child;
}

// _Fork(3).
long fork_quietly();
// clone(2) as libc has it.
long clone_function(int (*function)(void*), void* stack, int flags, void* argument, int* parent_tid, void* tls,
                    int* child_tid);

// By number. kPassOn: the number itself, as it is.
long fork_by_number();
long clone_by_number(const long (&words)[6]);
long clone3_by_number(long arguments, long bytes);

}  // namespace shunt::interpose
