// The ways out of the library's sight: exec, spawned programs, stdio, aio, splice. Connections go back to the kernel
// first.
// Any thread.
#pragma once

#include <cstdarg>

#include "calls/common.h"

struct aiocb;
struct iocb;

namespace shunt::calls {

// Before exec: what stays open in the new program leaves the ring. after_failed_exec() if exec returned.
void before_exec();
void after_failed_exec();
// exec of `path` cannot succeed, so nothing needs to be prepared: shells try one directory after the other.
bool exec_must_fail(const char* path);

// Before the program starts another one and goes on itself: posix_spawn, system, popen.
void before_spawn();
// A file action says that `fd` will be open in a program to be spawned, under another number: of whatever it then is.
void before_inheritance(int fd);
// Before a spawn with file actions.
void before_spawn_with_actions();

// `fd` gets a FILE: libc reads and writes it by itself.
void before_stdio(int fd);
void before_splice(int from, int to);
// libc reads or writes `fd` by itself, in this call or in a thread of its own.
void before_libc_uses(int fd);
// aio_read(3) and its kin; what is not a request is left to libc.
void before_aio(const aiocb* request);
void before_aio_list(const aiocb* const* requests, int count);
// io_submit(2).
void before_kernel_aio(long count, const iocb* const* requests);
// A thread gets descriptors of its own (unshare, CLOSE_RANGE_UNSHARE), and the table knows one meaning of each number.
void before_unsharing_descriptors();
// A child is about to be made that shares this process's descriptors, its memory or both, and runs beside it: what is ours becomes the kernel's alone.
enum class Memory : uint8_t { own, shared };
void before_child_beside(Memory memory);
// A child will count processes and threads anew, so that ids say nothing across the family.
void before_child_of_other_ids();
// What was descriptor 0, 1 and 2 is another file now.
void after_streams_replaced();

// vdprintf on a connection: written out in full, as libc does. The number of bytes, −errno, or kPassOn. `check`:
// __vdprintf_chk's flag.
long vdprintf(int fd, int check, const char* format, va_list arguments);

// At the end of the process: adds what the live connections did to the totals.
void fold_live_connections();

}  // namespace shunt::calls
