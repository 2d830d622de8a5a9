// Filters as sandboxes install them (seccomp(2)), for this process and its children, for good. Told by the address of the instruction: only calls that the
// library makes by itself are refused, none of the program's, which come from libc. Where there is no library the same filter meets nothing.
#pragma once

namespace shunt::behaviour {

enum class Answer {
  eperm,
  enosys,
  trap,  // SIGSYS; this program's handler then makes it EPERM, and leaves another errno behind
};
const char* name_of(Answer answer);

inline constexpr long kAnyOperation = -1;
// `first`: only calls whose first argument is this.
void refuse_librarys(long number, Answer answer, long first = kAnyOperation);
// As a common sandbox does: EPERM for what it does not allow (sandboxes.def), whoever calls.
enum class Sandbox : unsigned { docker = 1, service = 2 };
void enter(Sandbox sandbox);

}  // namespace shunt::behaviour
