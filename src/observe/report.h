// SHUNT_REPORT and SHUNT_LOG: one line of JSON per process, and log lines.
// Any thread; safe at exit and right before exec. Uses raw calls only and leaves no descriptor open.
#pragma once

#include "config/options.h"

namespace shunt {

// Appends this process's line to the report file, in one write. `why`: "exit", "_exit", "exec".
void write_report(const Options& options, const char* program, const char* why);

// One line: "shunt[PID] LEVEL: text". Truncated at 512 bytes.
void log_line(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));
void set_log(const Options& options);

}  // namespace shunt
