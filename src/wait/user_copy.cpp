// The way out of a copy.
#include "wait/user_copy.h"

#include <ucontext.h>

namespace shunt {
namespace {

constexpr greg_t kDirectionFlag = 0x400;

}  // namespace

bool end_copy(int signal, const siginfo_t& information, void* context) {
  if (!duties.copy || (signal != SIGSEGV && signal != SIGBUS) || information.si_code <= 0) return false;
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  registers[REG_RIP] = reinterpret_cast<greg_t>(duties.copy->instruction);
  registers[REG_RSP] = static_cast<greg_t>(duties.copy->stack);
  registers[REG_RBP] = static_cast<greg_t>(duties.copy->frame);
  registers[REG_EFL] &= ~kDirectionFlag;
  duties.copy = nullptr;
  return true;
}

}  // namespace shunt
