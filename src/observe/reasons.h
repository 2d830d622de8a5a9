// Reasons why a connection is plain or was demoted. Read-only tables.
#pragma once

#include <cstdint>

namespace shunt {

enum class Reason : uint8_t {
#define SHUNT_REASON(identifier, code, text) identifier,
#include "observe/reasons.def"
#undef SHUNT_REASON
  count_
};
inline constexpr uint32_t kReasons = static_cast<uint32_t>(Reason::count_);

inline constexpr const char* kReasonCodes[] = {
#define SHUNT_REASON(identifier, code, text) code,
#include "observe/reasons.def"
#undef SHUNT_REASON
};

}  // namespace shunt
