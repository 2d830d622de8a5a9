// Sends back what it receives on the unix socket argv[2], by read, write and poll of libc, under a filter of system calls, until SIGTERM:
// argv[1] is `trap:CALL`: the call, which the program itself never makes, raises SIGSYS, and the handler answers EPERM, as a sandbox's does;
//         or `errno:rt_sigprocmask`: SIG_BLOCK alone is refused with EPERM.
// The signal mask has to be the same after each step, and at the end: else status 3.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <ucontext.h>
#include <unistd.h>

enum { kConnections = 64, kPiece = 65536, kMostUnsent = 262144 };

struct connection {
  size_t unsent;
  char bytes[kMostUnsent + kPiece];
  int ended;
};

static volatile sig_atomic_t stopped, trapped;
static sigset_t expected_mask;

static void on_stop(int number) {
  (void)number;
  stopped = 1;
}

static void on_trap(int number, siginfo_t* info, void* context) {
  (void)number, (void)info;
  ++trapped;
  ((ucontext_t*)context)->uc_mcontext.gregs[REG_RAX] = -EPERM;
}

static void install(const char* filter) {
  static const struct {
    const char* name;
    int number;
  } calls[] = {{"memfd_create", SYS_memfd_create}, {"recvfrom", SYS_recvfrom}, {"sendto", SYS_sendto}, {"rt_sigprocmask", SYS_rt_sigprocmask}};
  const char* name = strchr(filter, ':');
  int number = -1;
  for (size_t at = 0; name && at < sizeof calls / sizeof calls[0]; ++at)
    if (strcmp(name + 1, calls[at].name) == 0) number = calls[at].number;
  if (number < 0) {
    fprintf(stderr, "no such filter: %s\n", filter);
    exit(2);
  }
  int traps = strncmp(filter, "trap", 4) == 0;
  struct sock_filter lines[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3),
      // rt_sigprocmask: SIG_BLOCK (0) alone. Of the others every use.
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, traps ? 0xffffffffu : SIG_BLOCK + 1, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, traps ? SECCOMP_RET_TRAP : SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof lines / sizeof lines[0], lines};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
    perror("seccomp");
    exit(2);
  }
}

static void check_mask(const char* when) {
  sigset_t now;
  sigprocmask(SIG_SETMASK, NULL, &now);
  for (int number = 1; number < NSIG; ++number)
    if (sigismember(&now, number) != sigismember(&expected_mask, number)) {
      fprintf(stderr, "the mask changed at %s: signal %d\n", when, number);
      exit(3);
    }
}

static void must(int good, const char* what) {
  if (good) return;
  perror(what);
  exit(1);
}

static void receive(struct pollfd* polled, struct connection* connection) {
  ssize_t size = read(polled->fd, connection->bytes + connection->unsent, kPiece);
  must(size >= 0 || errno == EAGAIN, "read");
  if (size > 0) connection->unsent += (size_t)size;
  if (size == 0) connection->ended = 1;
}

static void answer(struct pollfd* polled, struct connection* connection) {
  ssize_t size = write(polled->fd, connection->bytes, connection->unsent);
  must(size >= 0 || errno == EAGAIN, "write");
  if (size <= 0) return;
  connection->unsent -= (size_t)size;
  memmove(connection->bytes, connection->bytes + size, connection->unsent);
}

static void serve(int listener, const sigset_t* while_waiting) {
  static struct connection connections[kConnections];
  static struct pollfd polled[kConnections + 1];
  for (int at = 0; at <= kConnections; ++at) polled[at] = (struct pollfd){-1, POLLIN, 0};
  polled[kConnections].fd = listener;
  while (!stopped) {
    for (int at = 0; at < kConnections; ++at)
      polled[at].events = (short)((connections[at].unsent < kMostUnsent && !connections[at].ended ? POLLIN : 0) | (connections[at].unsent ? POLLOUT : 0));
    if (ppoll(polled, kConnections + 1, NULL, while_waiting) < 0) {
      must(errno == EINTR, "ppoll");
      continue;
    }
    check_mask("ppoll");
    for (int at = 0; at < kConnections; ++at) {
      struct connection* connection = &connections[at];
      if (polled[at].fd < 0 || !polled[at].revents) continue;
      if (polled[at].revents & polled[at].events & POLLIN) receive(&polled[at], connection);
      check_mask("read");
      if (connection->unsent) answer(&polled[at], connection);
      check_mask("write");
      if ((connection->ended || !(polled[at].revents & (POLLIN | POLLOUT))) && !connection->unsent) {
        close(polled[at].fd);
        polled[at].fd = -1;
        connection->ended = 0;
      }
    }
    if (!(polled[kConnections].revents & POLLIN)) continue;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), at = 0;
    must(fd >= 0, "accept");
    check_mask("accept");
    while (at < kConnections && polled[at].fd >= 0) ++at;
    must(at < kConnections, "too many connections");
    polled[at].fd = fd;
  }
}

int main(int argc, char** argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (argc != 3 || strlen(argv[2]) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, argv[2]);
  struct sigaction stop = {.sa_handler = on_stop}, trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGTERM, &stop, NULL);
  sigaction(SIGSYS, &trap, NULL);
  signal(SIGPIPE, SIG_IGN);
  // SIGTERM comes only while waiting; two more that nobody sends show whether the mask was replaced.
  sigset_t while_waiting;
  sigprocmask(SIG_SETMASK, NULL, &while_waiting);
  sigaddset(&while_waiting, SIGUSR1);
  sigaddset(&while_waiting, SIGHUP);
  expected_mask = while_waiting;
  sigaddset(&expected_mask, SIGTERM);
  sigprocmask(SIG_SETMASK, &expected_mask, NULL);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  must(bind(listener, (struct sockaddr*)&address, sizeof address) == 0, "bind");
  install(argv[1]);
  must(listen(listener, 64) == 0, "listen");
  serve(listener, &while_waiting);
  check_mask("the end");
  printf("trapped %d\n", (int)trapped);
  return 0;
}
