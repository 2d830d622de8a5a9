// The calls that duplicate, control and close descriptors.
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "calls/closing.h"
#include "calls/control.h"
#include "calls/duplicating.h"
#include "calls/escape.h"
#include "interpose/export.h"

using shunt::is_connection;
using shunt::interpose::active;
using shunt::interpose::next;
namespace calls = shunt::calls;

SHUNT_FORWARD(int, close, (int fd), (fd), calls::is_ours(fd));
SHUNT_SECOND_NAME(__close, close);

SHUNT_WRAPPER(int, close_range, (unsigned first, unsigned last, int flags)) {
  calls::before_close_range(first, last, flags);
  return next.close_range(first, last, flags);
}

SHUNT_WRAPPER(void, closefrom, (int first)) {
  calls::before_close_range(first < 0 ? 0 : static_cast<unsigned>(first), ~0u, 0);
  next.closefrom(first);
}

SHUNT_FORWARD(int, mq_close, (int fd), (fd), calls::is_ours(fd));

SHUNT_FORWARD(int, dup, (int fd), (fd), active());
SHUNT_FORWARD(int, dup2, (int from, int to), (from, to), active());
SHUNT_SECOND_NAME(__dup2, dup2);
SHUNT_FORWARD(int, dup3, (int from, int to, int flags), (from, to, flags), active());

SHUNT_FORWARD(int, fcntl, (int fd, int command, long argument), (fd, command, argument),
              is_connection(fd) || command == F_SETFL || ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && active()));
SHUNT_SECOND_NAME(__fcntl, fcntl);
SHUNT_SECOND_NAME(fcntl64, fcntl);
SHUNT_WRAPPER(int, ioctl, (int fd, unsigned long request, long argument)) {
  if (is_connection(fd) || request == FIONBIO || request == FIOASYNC)
    if (const long answer = calls::ioctl(fd, request, argument); answer != calls::kPassOn) return shunt::interpose::give<int>(answer);
  return calls::perhaps_made(next.ioctl(fd, request, argument));  // TIOCGPTPEER, NS_GET_USERNS, USERFAULTFD_IOC_NEW, KVM_CREATE_VM, ...
}

SHUNT_FORWARD(int, pidfd_getfd, (int process, int fd, unsigned flags), (process, fd, flags), active());

SHUNT_WRAPPER(int, unshare, (int flags)) {
  if ((flags & CLONE_FILES) && active()) calls::before_unsharing_descriptors();
  return next.unshare(flags);
}
