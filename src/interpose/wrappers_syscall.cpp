// syscall(2): libuv and others close, poll and batch through it. A call that concerns us is made as the call itself;
// every other number, and every descriptor that is not ours, goes on with the very same arguments.
#include <linux/aio_abi.h>
#include <sys/syscall.h>

#include <type_traits>
#include <utility>

#include "calls/closing.h"
#include "calls/connecting.h"
#include "calls/control.h"
#include "calls/duplicating.h"
#include "calls/escape.h"
#include "calls/receiving.h"
#include "calls/sending.h"
#include "calls/socket_options.h"
#include "calls/uring.h"
#include "calls/uring_watched.h"
#include "calls/waiting.h"
#include "interpose/children.h"
#include "interpose/export.h"
#include "interpose/wrappers.h"
#include "sys/raw.h"

namespace {

using shunt::is_connection;
using shunt::interpose::active;
using shunt::interpose::give;
using shunt::interpose::next;
namespace calls = shunt::calls;

template <typename To>
To convert(long word) {
  if constexpr (std::is_pointer_v<To>)
    return reinterpret_cast<To>(word);
  else
    return static_cast<To>(word);
}

template <typename Result, typename... Parameters, size_t... i>
long apply(Result (*wrapper)(Parameters...), const long (&words)[6], std::index_sequence<i...>) {
  return static_cast<long>(wrapper(convert<Parameters>(words[i])...));
}

template <typename Result, typename... Parameters>
long apply(Result (*wrapper)(Parameters...), const long (&words)[6]) {
  return apply(wrapper, words, std::index_sequence_for<Parameters...>());
}

// The kernel refuses a signal mask of any other size.
bool fits_a_mask(long mask, long bytes) { return mask == 0 || bytes == sizeof(uint64_t); }

long pselect6(const long (&words)[6]) {
  struct Mask {
    const sigset_t* set;
    size_t bytes;
  };
  const auto* mask = convert<const Mask*>(words[5]);
  if (mask && (calls::unreadable(mask) || !fits_a_mask(shunt::sys::word(mask->set), static_cast<long>(mask->bytes))))
    return calls::kPassOn;
  return calls::pselect_and_tell(static_cast<int>(words[0]), convert<fd_set*>(words[1]), convert<fd_set*>(words[2]),
                                 convert<fd_set*>(words[3]), convert<timespec*>(words[4]), mask ? mask->set : nullptr);
}

// An answer, or kPassOn.
long by_hand(long number, const long (&words)[6]) {
  const int fd = static_cast<int>(words[0]);
  switch (number) {
    case SYS_preadv2:
      return calls::preadv2(fd, convert<const iovec*>(words[1]), static_cast<int>(words[2]), words[3],
                            static_cast<int>(words[5]));
    case SYS_pwritev2:
      return calls::pwritev2(fd, convert<const iovec*>(words[1]), static_cast<int>(words[2]), words[3],
                             static_cast<int>(words[5]));
    case SYS_ppoll:
      if (!fits_a_mask(words[3], words[4])) return calls::kPassOn;
      return calls::ppoll_and_tell(convert<pollfd*>(words[0]), static_cast<nfds_t>(words[1]),
                                   convert<timespec*>(words[2]), convert<const sigset_t*>(words[3]));
    case SYS_pselect6:
      return pselect6(words);
    case SYS_io_submit:
      calls::before_kernel_aio(words[1], convert<iocb* const*>(words[2]));
      return calls::kPassOn;
    case SYS_close:
      calls::forget_ring(fd);
      return calls::is_ours(fd) ? calls::close(fd) : calls::kPassOn;
    case SYS_mmap: {
      const long memory = next.syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
      if (memory == -1) return -errno;
      calls::after_mapping(static_cast<int>(words[4]), convert<void*>(memory), static_cast<size_t>(words[1]), static_cast<int>(words[2]),
                           words[5]);
      return memory;
    }
    case SYS_io_uring_setup: {
      const long ring = next.syscall(number, words[0], words[1], 0, 0, 0, 0);
      if (calls::made(static_cast<int>(ring)) < 0) return -errno;
      calls::after_ring_setup(static_cast<int>(ring), convert<const io_uring_params*>(words[1]));
      return ring;
    }
    case SYS_io_uring_enter: {
      const calls::Submission submission(fd, static_cast<uint32_t>(words[1]), static_cast<uint32_t>(words[3]));
      const long result = next.syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
      return result < 0 ? -errno : result;
    }
    case SYS_io_uring_register:
      calls::before_ring_register(fd, static_cast<unsigned>(words[1]), convert<const void*>(words[2]),
                                  static_cast<unsigned>(words[3]));
      return calls::kPassOn;
    case SYS_fork:
    case SYS_vfork:
      return shunt::interpose::fork_by_number();
    case SYS_clone:
      return shunt::interpose::clone_by_number(words);
    case SYS_clone3:
      return shunt::interpose::clone3_by_number(words[0], words[1]);
    case SYS_exit_group:
      shunt::interpose::report_end("_exit");
      return calls::kPassOn;
    default:
      return calls::kPassOn;
  }
}

}  // namespace

SHUNT_WRAPPER(long, syscall, (long number, long a, long b, long c, long d, long e, long f)) {
  const long words[] = {a, b, c, d, e, f};
  const int fd = static_cast<int>(a);
  long answer = calls::kPassOn;
  bool makes = false;
  if (active()) {
    switch (number) {
#define SHUNT_NUMBER(name, condition)                   \
  case SYS_##name:                                      \
    if (condition) answer = apply(&calls::name, words); \
    break;
#define SHUNT_NUMBER_WRAPPED(name, condition)         \
  case SYS_##name:                                    \
    if (condition) return apply(shunt_##name, words); \
    break;
#define SHUNT_NUMBER_MAKES(name) \
  case SYS_##name:               \
    makes = true;                \
    break;
#define SHUNT_NUMBER_BY_HAND(name, words_of_it) \
  case SYS_##name:                              \
    answer = by_hand(number, words);            \
    break;
#include "interpose/syscalls.def"
      default:
        break;
    }
  }
  if (answer != calls::kPassOn) return give<long>(answer);
  const long result = next.syscall(number, a, b, c, d, e, f);
  return makes ? calls::made(static_cast<int>(result)) : calls::perhaps_made(result);
}
