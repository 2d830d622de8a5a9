// Can the caller's memory be read or written? The kernel answers EFAULT where a copy of ours would kill the program.
// Any thread, any context. Remembers per thread which pages were good: memory unmapped since then is not noticed.
#pragma once

#include <cstddef>

namespace shunt::sys {

enum class Access : unsigned char { read, write };
bool accessible(const void* memory, size_t bytes, Access access);

}  // namespace shunt::sys
