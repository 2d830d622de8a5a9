// A descriptor of ours is forgotten before the kernel closes it, so that its number cannot meet old state.
#include "calls/closing.h"

#include <linux/close_range.h>
#include <sys/single_threaded.h>

#include <climits>

#include "calls/escape.h"
#include "calls/kernel.h"

namespace shunt::calls {

long close(int fd) {
  if (!is_ours(fd)) return kPassOn;
  if (in_foreign_process(fd)) return note_foreign_number(fd), kPassOn;
  if (Pin connection(fd); connection) take_last_bells(*connection, fd);
  Closing closing(fd);
  return kernel.close(fd);
}

void before_close_range(unsigned first, unsigned last, int flags) {
  if (first > last || (flags & ~static_cast<int>(CLOSE_RANGE_UNSHARE))) return;  // closes nothing, or fails
  // Unsharing gives the caller descriptors of its own; the other threads keep theirs, and the table is theirs.
  if ((flags & static_cast<int>(CLOSE_RANGE_UNSHARE)) && !__libc_single_threaded) return before_unsharing_descriptors();
  const int end = descriptors_in_use();
  if (end == 0 || first >= static_cast<unsigned>(end)) return;
  last = min_of(last, static_cast<unsigned>(end) - 1);
  for (unsigned fd = first; fd <= last; ++fd) close(static_cast<int>(fd));
}

}  // namespace shunt::calls
