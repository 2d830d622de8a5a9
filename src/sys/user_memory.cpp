// Asks the kernel once per page and thread (MADV_POPULATE_*, which faults as a copy would). Raw calls only.
#include "sys/user_memory.h"

#include <cerrno>
#include <cstdint>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "sys/raw.h"

namespace shunt::sys {
namespace {

constexpr uintptr_t kPage = 4096;
constexpr size_t kRemembered = 64;
constexpr size_t kEveryPage = 8;  // of longer ranges only the first and the last page are asked

thread_local uintptr_t good[2][kRemembered];  // page number + 1

bool page_is_good(uintptr_t page, Access access) {
  uintptr_t& memory = good[static_cast<int>(access)][page % kRemembered];
  if (memory == page + 1) return true;
  const int advice = access == Access::read ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;
  const long result = raw(SYS_madvise, page * kPage, kPage, advice);
  if (result == -EFAULT || result == -ENOMEM) return false;
  // Permissions, a special mapping, or an old kernel. epoll_ctl copies its argument before it looks at the descriptors.
  if (result < 0 && raw(SYS_epoll_ctl, -1, EPOLL_CTL_ADD, -1, page * kPage) == -EFAULT) return false;
  memory = page + 1;
  return true;
}

}  // namespace

bool accessible(const void* memory, size_t bytes, Access access) {
  if (bytes == 0) return true;
  const uintptr_t first = reinterpret_cast<uintptr_t>(memory) / kPage;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(memory) + bytes - 1) / kPage;
  if (last < first) return false;
  if (last - first >= kEveryPage) return page_is_good(first, access) && page_is_good(last, access);
  for (uintptr_t page = first; page <= last; ++page)
    if (!page_is_good(page, access)) return false;
  return true;
}

}  // namespace shunt::sys
