// The signal-installing calls, as glibc defines them on top of sigaction (glibc calls itself inside, unseen).
#include "interpose/export.h"
#include "interpose/handlers.h"

namespace {

using shunt::interpose::active;
using shunt::interpose::Handler;
using shunt::interpose::install_handler;
using shunt::interpose::next;

std::atomic<uint64_t> interrupting{0};  // by siginterrupt(): what signal() installs for these does not restart

bool is_interrupting(int signal) { return interrupting.load(std::memory_order_relaxed) >> (signal - 1) & 1; }

Handler install(int signal, Handler handler, int flags, bool block_itself) {
  struct sigaction action = {}, old = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  if (block_itself) sigaddset(&action.sa_mask, signal);
  return install_handler(signal, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}

bool is_signal(int signal) { return signal >= 1 && signal < NSIG; }

// SIG_HOLD blocks the signal and leaves its handler alone.
Handler hold(int signal, const sigset_t& only) {
  sigset_t before;
  if (sigprocmask(SIG_BLOCK, &only, &before) < 0) return SIG_ERR;
  if (sigismember(&before, signal)) return SIG_HOLD;
  struct sigaction current = {};
  return install_handler(signal, nullptr, &current) < 0 ? SIG_ERR : current.sa_handler;
}

}  // namespace

SHUNT_WRAPPER(int, sigaction, (int signal, const struct sigaction* action, struct sigaction* old)) {
  return install_handler(signal, action, old);
}
SHUNT_SECOND_NAME(__sigaction, sigaction);

SHUNT_WRAPPER(Handler, signal, (int signal, Handler handler)) {
  if (!active() || !is_signal(signal) || handler == SIG_ERR) return next.signal(signal, handler);
  return install(signal, handler, is_interrupting(signal) ? 0 : SA_RESTART, true);
}
SHUNT_SECOND_NAME(bsd_signal, signal);
SHUNT_SECOND_NAME(ssignal, signal);

SHUNT_WRAPPER(Handler, sysv_signal, (int signal, Handler handler)) {
  if (!active() || !is_signal(signal) || handler == SIG_ERR) return next.sysv_signal(signal, handler);
  return install(signal, handler, static_cast<int>(SA_RESETHAND | SA_NODEFER | SA_INTERRUPT), false);
}
SHUNT_SECOND_NAME(__sysv_signal, sysv_signal);

SHUNT_WRAPPER(Handler, sigset, (int signal, Handler handler)) {
  if (!active() || !is_signal(signal)) return next.sigset(signal, handler);
  sigset_t only, before;
  sigemptyset(&only);
  if (sigaddset(&only, signal) < 0) return SIG_ERR;
  if (handler == SIG_HOLD) return hold(signal, only);
  const Handler old = install(signal, handler, 0, false);
  if (old == SIG_ERR || sigprocmask(SIG_UNBLOCK, &only, &before) < 0) return SIG_ERR;
  return sigismember(&before, signal) ? SIG_HOLD : old;
}

SHUNT_WRAPPER(int, siginterrupt, (int signal, int interrupt)) {
  if (!active() || !is_signal(signal)) return next.siginterrupt(signal, interrupt);
  struct sigaction action = {};
  if (install_handler(signal, nullptr, &action) < 0) return -1;
  const uint64_t bit = uint64_t{1} << (signal - 1);
  if (interrupt) {
    interrupting.fetch_or(bit, std::memory_order_relaxed);
    action.sa_flags &= ~SA_RESTART;
  } else {
    interrupting.fetch_and(~bit, std::memory_order_relaxed);
    action.sa_flags |= SA_RESTART;
  }
  return install_handler(signal, &action, nullptr);
}
