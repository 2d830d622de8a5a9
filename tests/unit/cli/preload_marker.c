// Stands for libshunt.so: a preloaded library that leaves a trace which the witness prints.
// Loaded by ld.so in tests.
// Must not do anything else.
#include <stdlib.h>

__attribute__((constructor)) static void leave_trace(void) { setenv("PRELOAD_MARKER", "loaded", 1); }
