// The calls in which libc reads or writes a descriptor by itself, at once or in a thread of its own.
#include <aio.h>

#include "calls/escape.h"
#include "interpose/export.h"
#include "interpose/wrappers.h"

using shunt::interpose::next;
namespace calls = shunt::calls;

SHUNT_WRAPPER(int, aio_read, (aiocb * request)) {
  calls::before_aio(request);
  return next.aio_read(request);
}
SHUNT_SECOND_NAME(aio_read64, aio_read);

SHUNT_WRAPPER(int, aio_write, (aiocb * request)) {
  calls::before_aio(request);
  return next.aio_write(request);
}
SHUNT_SECOND_NAME(aio_write64, aio_write);

SHUNT_WRAPPER(int, lio_listio, (int mode, aiocb* const* requests, int count, sigevent* done)) {
  calls::before_aio_list(requests, count);
  return next.lio_listio(mode, requests, count, done);
}
SHUNT_SECOND_NAME(lio_listio64, lio_listio);

SHUNT_WRAPPER(void, backtrace_symbols_fd, (void* const* addresses, int count, int fd)) {
  calls::before_libc_uses(fd);
  next.backtrace_symbols_fd(addresses, count, fd);
}
SHUNT_SECOND_NAME(__backtrace_symbols_fd, backtrace_symbols_fd);
