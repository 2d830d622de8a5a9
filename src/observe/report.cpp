// Formats the report and log lines into stack buffers. Must not allocate: it runs at exit, in signal handlers, before exec.
#include "observe/report.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fcntl.h>

#include "observe/counters.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"

namespace shunt {
namespace {

const Options* log_options = nullptr;

class Line {
 public:
  __attribute__((format(printf, 2, 3))) void add(const char* format, ...) {
    va_list list;
    va_start(list, format);
    const int n = vsnprintf(text_ + used_, sizeof text_ - used_, format, list);
    va_end(list);
    if (n > 0) used_ += min_of(static_cast<size_t>(n), sizeof text_ - used_ - 1);
  }
  // As a JSON string, cut so that the rest of the line always has room; bytes outside ASCII are shown as code points of their own.
  void add_text(const char* text) {
    add("\"");
    for (const size_t end = used_ + kMostText; *text && used_ < end; ++text)
      if (const int more = utf8_tail(text); more > 0) {
        add("%.*s", more + 1, text);
        text += more;
      } else if (*text == '"' || *text == '\\' || static_cast<unsigned char>(*text) < 0x20 || static_cast<unsigned char>(*text) > 0x7e)
        add("\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(*text)));
      else
        add("%c", *text);
    add("\"");
  }
  void add_reasons(const char* name, const std::atomic<uint64_t>* counters) {
    add("\"%s\":{", name);
    const char* comma = "";
    for (uint32_t i = 0; i < kReasons; ++i)
      if (const uint64_t n = counters[i].load(std::memory_order_relaxed)) {
        add("%s\"%s\":%lu", comma, kReasonCodes[i], n);
        comma = ",";
      }
    add("}");
  }
  // Opens, appends in one write, closes. The descriptor lives only inside this function.
  void append_to(const char* path) const {
    const long fd = sys::raw(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0) return;
    const sys::SignalsBlocked alone;  // one that ends the process would end the write between two pages of the file
    sys::raw(SYS_write, fd, text_, used_);
    sys::close(static_cast<int>(fd));
  }
  void print() const { sys::raw(SYS_write, 2, text_, used_); }

 private:
  // How many bytes follow the first of a UTF-8 character of several; 0 if there is none here.
  static int utf8_tail(const char* text) {
    const auto first = static_cast<unsigned char>(*text);
    const int more = first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : 0;
    for (int i = 1; i <= more; ++i)
      if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
    const auto second = static_cast<unsigned char>(more > 0 ? text[1] : 0);
    const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
    const bool outside = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
    return overlong || outside ? 0 : more;
  }
  static constexpr size_t kMostText = 1000;
  static constexpr size_t min_of(size_t a, size_t b) { return a < b ? a : b; }
  char text_[4096];
  size_t used_ = 0;
};

uint64_t get(const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); }

}  // namespace

void write_report(const Options& options, const char* program, const char* why) {
  if (!options.report_file[0]) return;
  Line line;
  line.add("{\"program\":");
  line.add_text(program);
  line.add(",\"pid\":%d,\"why\":\"%s\",\"connections\":{\"upgraded\":%lu,\"demoted\":%lu,", sys::process_id(), why,
           get(totals.upgraded), get(totals.demoted));
  line.add_reasons("plain", totals.plain);
  line.add(",");
  line.add_reasons("demoted_by", totals.demoted_by);
  line.add("},\"ring\":{\"bytes_out\":%lu,\"bytes_in\":%lu,\"ops_out\":%lu,\"ops_in\":%lu}", get(totals.ring_bytes_out),
           get(totals.ring_bytes_in), get(totals.ring_ops_out), get(totals.ring_ops_in));
  line.add(",\"kernel\":{\"bytes_out\":%lu,\"bytes_in\":%lu,\"ops_out\":%lu,\"ops_in\":%lu}", get(totals.kernel_bytes_out),
           get(totals.kernel_bytes_in), get(totals.kernel_ops_out), get(totals.kernel_ops_in));
  line.add(",\"bells\":%lu,\"spins\":{\"hit\":%lu,\"missed\":%lu},\"sleeps\":%lu}\n", get(totals.bells),
           get(totals.spin_hits), get(totals.spin_misses), get(totals.sleeps));
  line.append_to(options.report_file);
}

void set_log(const Options& options) { log_options = &options; }

void log_line(LogLevel level, const char* format, ...) {
  if (!log_options || level > log_options->log_level) return;
  static constexpr const char* kNames[] = {"off", "error", "info", "debug"};
  char text[512];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  Line line;
  line.add("shunt[%d] %s: %s\n", sys::process_id(), kNames[static_cast<int>(level)], text);
  if (log_options->log_file[0])
    line.append_to(log_options->log_file);
  else
    line.print();
}

}  // namespace shunt
