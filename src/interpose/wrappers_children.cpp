// Children that are made past fork(). A program's own fork handlers do not run for them, ours must.
#include "interpose/children.h"
#include "interpose/export.h"

using shunt::interpose::active;
using shunt::interpose::give;
using shunt::interpose::next;

SHUNT_WRAPPER(pid_t, _Fork, ()) {
  if (!active()) return next._Fork();
  return give<pid_t>(shunt::interpose::fork_quietly());
}

// Variadic: what the flags do not ask for is passed on as it is found.
SHUNT_WRAPPER(int, clone,
              (int (*function)(void*), void* stack, int flags, void* argument, int* parent_tid, void* tls,
               int* child_tid)) {
  if (!active()) return next.clone(function, stack, flags, argument, parent_tid, tls, child_tid);
  return give<int>(shunt::interpose::clone_function(function, stack, flags, argument, parent_tid, tls, child_tid));
}
SHUNT_SECOND_NAME(__clone, clone);
