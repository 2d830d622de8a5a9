// The calls that make descriptors of other kinds. A number of ours that the kernel gives out again was closed unseen,
// by the program's own instructions or inside libc: what was known of it must not meet the new file.
#include <fcntl.h>
#include <mqueue.h>
#include <pty.h>
#include <sys/types.h>

#include "calls/escape.h"
#include "interpose/children.h"
#include "interpose/export.h"
#include "interpose/wrappers.h"

using shunt::calls::made;
using shunt::interpose::next;
namespace calls = shunt::calls;

namespace {

int made_two(int result, const int* pair) {
  if (result == 0) made(pair[0]), made(pair[1]);
  return result;
}

}  // namespace

#define SHUNT_MAKER(name, parameters, arguments)                             \
  SHUNT_WRAPPER(int, name, parameters) { return made(next.name arguments); } \
  static_assert(true)

SHUNT_MAKER(open, (const char* path, int flags, unsigned mode), (path, flags, mode));
SHUNT_SECOND_NAME(open64, open);
SHUNT_SECOND_NAME(__open, open);
SHUNT_SECOND_NAME(__open64, open);
SHUNT_MAKER(__open_2, (const char* path, int flags), (path, flags));
SHUNT_SECOND_NAME(__open64_2, __open_2);
SHUNT_MAKER(openat, (int directory, const char* path, int flags, unsigned mode), (directory, path, flags, mode));
SHUNT_SECOND_NAME(openat64, openat);
SHUNT_MAKER(__openat_2, (int directory, const char* path, int flags), (directory, path, flags));
SHUNT_SECOND_NAME(__openat64_2, __openat_2);
SHUNT_MAKER(creat, (const char* path, unsigned mode), (path, mode));
SHUNT_SECOND_NAME(creat64, creat);
SHUNT_MAKER(open_by_handle_at, (int mount, file_handle* handle, int flags), (mount, handle, flags));
SHUNT_MAKER(open_tree, (int directory, const char* path, unsigned flags), (directory, path, flags));
SHUNT_MAKER(fsopen, (const char* name, unsigned flags), (name, flags));
SHUNT_MAKER(fsmount, (int context, unsigned flags, unsigned attributes), (context, flags, attributes));
SHUNT_MAKER(fspick, (int directory, const char* path, unsigned flags), (directory, path, flags));

SHUNT_MAKER(mkstemp, (char* path), (path));
SHUNT_SECOND_NAME(mkstemp64, mkstemp);
SHUNT_MAKER(mkostemp, (char* path, int flags), (path, flags));
SHUNT_SECOND_NAME(mkostemp64, mkostemp);
SHUNT_MAKER(mkstemps, (char* path, int suffix), (path, suffix));
SHUNT_SECOND_NAME(mkstemps64, mkstemps);
SHUNT_MAKER(mkostemps, (char* path, int suffix, int flags), (path, suffix, flags));
SHUNT_SECOND_NAME(mkostemps64, mkostemps);
SHUNT_MAKER(shm_open, (const char* name, int flags, unsigned mode), (name, flags, mode));
SHUNT_MAKER(memfd_create, (const char* name, unsigned flags), (name, flags));
SHUNT_MAKER(mq_open, (const char* name, int flags, unsigned mode, const mq_attr* attributes),
            (name, flags, mode, attributes));
SHUNT_MAKER(__mq_open_2, (const char* name, int flags), (name, flags));

SHUNT_WRAPPER(int, pipe, (int* ends)) { return made_two(next.pipe(ends), ends); }
SHUNT_SECOND_NAME(__pipe, pipe);
SHUNT_WRAPPER(int, pipe2, (int* ends, int flags)) { return made_two(next.pipe2(ends, flags), ends); }
SHUNT_MAKER(eventfd, (unsigned value, int flags), (value, flags));
SHUNT_MAKER(signalfd, (int fd, const sigset_t* mask, int flags), (fd, mask, flags));
SHUNT_MAKER(timerfd_create, (int clock, int flags), (clock, flags));
SHUNT_MAKER(inotify_init, (), ());
SHUNT_MAKER(inotify_init1, (int flags), (flags));
SHUNT_MAKER(fanotify_init, (unsigned flags, unsigned event_flags), (flags, event_flags));
SHUNT_MAKER(pidfd_open, (int process, unsigned flags), (process, flags));

// ---- terminals. libc puts the terminal over descriptors 0 to 2 by itself.

SHUNT_MAKER(posix_openpt, (int flags), (flags));
SHUNT_MAKER(getpt, (), ());

SHUNT_WRAPPER(int, openpty, (int* master, int* slave, char* name, const termios* mode, const winsize* size)) {
  const int result = next.openpty(master, slave, name, mode, size);
  if (result == 0) made(*master), made(*slave);
  return result;
}

SHUNT_WRAPPER(int, forkpty, (int* master, char* name, const termios* mode, const winsize* size)) {
  const int child = shunt::interpose::with_fork_handlers([&] { return next.forkpty(master, name, mode, size); });
  if (child > 0) made(*master);
  if (child == 0) calls::after_streams_replaced();
  return child;
}

SHUNT_WRAPPER(int, login_tty, (int fd)) {
  const int result = next.login_tty(fd);
  if (result == 0) made(fd), calls::after_streams_replaced();
  return result;
}
