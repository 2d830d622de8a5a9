// libc's streams over descriptors: libc reads, writes and closes inside itself, where we are not.
#include "calls/escape.h"
#include "calls/policy.h"
#include "interpose/export.h"
#include "interpose/wrappers.h"

using shunt::Closing;
using shunt::is_connection;
using shunt::interpose::give;
using shunt::interpose::KeepErrno;
using shunt::interpose::next;
namespace calls = shunt::calls;

namespace {

// The stream's descriptor if it is ours to forget; −1 else.
int descriptor_of(FILE* file) {
  if (!file) return -1;
  KeepErrno keep;
  const int fd = fileno(file);
  if (!shunt::in_foreign_process()) calls::forget_stream(fd);
  return calls::is_ours(fd) && !shunt::in_foreign_process() ? fd : -1;
}

FILE* opened(FILE* file) {
  if (!file) return file;
  KeepErrno keep;
  calls::note_stream(calls::made(fileno(file)));
  return file;
}

long print(int fd, int check, const char* format, va_list arguments) {
  if (!is_connection(fd)) return calls::kPassOn;
  KeepErrno keep;
  return calls::vdprintf(fd, check, format, arguments);
}

}  // namespace

SHUNT_WRAPPER(FILE*, fdopen, (int fd, const char* mode)) {
  calls::before_stdio(fd);
  FILE* file = next.fdopen(fd, mode);
  if (file) calls::note_stream(fd);
  return file;
}
SHUNT_SECOND_NAME(_IO_fdopen, fdopen);

SHUNT_WRAPPER(FILE*, _IO_file_attach, (FILE * file, int fd)) {
  calls::before_stdio(fd);
  calls::note_stream(fd);
  return next._IO_file_attach(file, fd);
}

SHUNT_WRAPPER(int, fclose, (FILE * file)) {
  Closing closing(descriptor_of(file));
  return next.fclose(file);
}
SHUNT_SECOND_NAME(_IO_fclose, fclose);

SHUNT_WRAPPER(int, pclose, (FILE * file)) {
  Closing closing(descriptor_of(file));
  return next.pclose(file);
}

SHUNT_WRAPPER(int, endmntent, (FILE * file)) {
  Closing closing(descriptor_of(file));
  return next.endmntent(file);
}
SHUNT_SECOND_NAME(__endmntent, endmntent);

SHUNT_WRAPPER(FILE*, freopen, (const char* path, const char* mode, FILE* file)) {
  Closing closing(descriptor_of(file));
  return opened(next.freopen(path, mode, file));
}

SHUNT_WRAPPER(FILE*, freopen64, (const char* path, const char* mode, FILE* file)) {
  Closing closing(descriptor_of(file));
  return opened(next.freopen64(path, mode, file));
}

SHUNT_WRAPPER(FILE*, fopen, (const char* path, const char* mode)) { return opened(next.fopen(path, mode)); }
SHUNT_SECOND_NAME(fopen64, fopen);
SHUNT_SECOND_NAME(_IO_fopen, fopen);

SHUNT_WRAPPER(FILE*, tmpfile, ()) { return opened(next.tmpfile()); }
SHUNT_SECOND_NAME(tmpfile64, tmpfile);

SHUNT_WRAPPER(int, vdprintf, (int fd, const char* format, va_list arguments)) {
  const long answer = print(fd, 0, format, arguments);
  return answer != calls::kPassOn ? give<int>(answer) : next.vdprintf(fd, format, arguments);
}

SHUNT_WRAPPER(int, __vdprintf_chk, (int fd, int flag, const char* format, va_list arguments)) {
  const long answer = print(fd, flag, format, arguments);
  return answer != calls::kPassOn ? give<int>(answer) : next.__vdprintf_chk(fd, flag, format, arguments);
}

SHUNT_WRAPPER(int, dprintf, (int fd, const char* format, ...)) {
  va_list arguments;
  va_start(arguments, format);
  const int result = shunt_vdprintf(fd, format, arguments);
  va_end(arguments);
  return result;
}

SHUNT_WRAPPER(int, __dprintf_chk, (int fd, int flag, const char* format, ...)) {
  va_list arguments;
  va_start(arguments, format);
  const int result = shunt___vdprintf_chk(fd, flag, format, arguments);
  va_end(arguments);
  return result;
}
