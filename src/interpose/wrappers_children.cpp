// Children that are made by fork(), and past it. A program's own fork handlers do not run for the latter, ours must.
#include "interpose/children.h"
#include "interpose/export.h"

using shunt::interpose::active;
using shunt::interpose::give;
using shunt::interpose::next;
using shunt::interpose::with_fork_handlers;

SHUNT_WRAPPER(pid_t, fork, ()) {
  if (!active()) return next.fork();
  return with_fork_handlers([] { return next.fork(); });
}
SHUNT_SECOND_NAME(__fork, fork);

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

// Both return through the caller's frame, which the child would destroy: there must be none of ours. So libc's function is jumped to.
extern "C" [[gnu::visibility("hidden")]] void* shunt_before_vfork() {
  if (active()) shunt::note_vfork();
  else shunt::interpose::resolve();
  return reinterpret_cast<void*>(next.vfork);
}
asm(R"(
  .text
  .p2align 4
  .globl vfork
  .type vfork, @function
  .globl __vfork
  .type __vfork, @function
vfork:
__vfork:
  .cfi_startproc
  endbr64
  subq $8, %rsp
  .cfi_adjust_cfa_offset 8
  call shunt_before_vfork
  addq $8, %rsp
  .cfi_adjust_cfa_offset -8
  jmp *%rax
  .cfi_endproc
  .size vfork, . - vfork
  .size __vfork, . - __vfork
)");
