// dprintf on a connection. Must not keep memory: a long text is formatted a second time, into pages of its own.
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>

#include "calls/escape.h"
#include "calls/sending.h"
#include "sys/raw.h"

extern "C" int __vsnprintf_chk(char* text, size_t room, int flag, size_t object_bytes, const char* format,
                               va_list arguments);

namespace shunt::calls {
namespace {

int format_text(char* text, size_t room, int check, const char* format, va_list arguments) {
  va_list copy;
  va_copy(copy, arguments);
  const int length =
      check > 0 ? __vsnprintf_chk(text, room, check, room, format, copy) : vsnprintf(text, room, format, copy);
  va_end(copy);
  return length;
}

// libc's buffer is written until all of it is out or an error comes.
long write_out(int fd, const char* text, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    long sent = write(fd, text + done, bytes - done);
    if (sent == kPassOn) sent = sys::raw(SYS_write, fd, text + done, bytes - done);
    if (sent < 0) return sent;
    done += static_cast<size_t>(sent);
  }
  return static_cast<long>(bytes);
}

}  // namespace

long vdprintf(int fd, int check, const char* format, va_list arguments) {
  if (!is_connection(fd)) return kPassOn;
  char text[1024];
  const int length = format_text(text, sizeof text, check, format, arguments);
  if (length < 0) return -errno;
  const size_t bytes = static_cast<size_t>(length);
  if (bytes < sizeof text) return write_out(fd, text, bytes);
  const long pages = sys::mmap(nullptr, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages < 0 && pages > -4096) return pages;
  auto* whole = reinterpret_cast<char*>(pages);
  format_text(whole, bytes + 1, check, format, arguments);
  const long result = write_out(fd, whole, bytes);
  sys::munmap(whole, bytes + 1);
  return result;
}

}  // namespace shunt::calls
