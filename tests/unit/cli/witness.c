// The program that tests run: it prints what it was started with, and exits as told.
// Started by tests, dynamically and statically linked.
// Must not depend on anything but libc.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

extern char** environ;

int main(int argc, char** argv) {
  printf("secure=%lu\n", getauxval(AT_SECURE));
  for (int i = 0; i < argc; ++i) printf("argument=%s\n", argv[i]);
  for (char** entry = environ; *entry; ++entry)
    if (strncmp(*entry, "SHUNT_", 6) == 0 || strncmp(*entry, "LD_PRELOAD=", 11) == 0 ||
        strncmp(*entry, "PRELOAD_MARKER=", 15) == 0)
      puts(*entry);
  const char* status = getenv("WITNESS_STATUS");
  return status ? atoi(status) : 0;
}
