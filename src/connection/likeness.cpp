// A pair shows the effective ids that its maker has. Who may take on the peer's does so; who may not has them already,
// or has no likeness of the peer.
#include "connection/likeness.h"

#include <fcntl.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstring>

#include "sys/raw.h"

namespace shunt {
namespace {

constexpr size_t kMostGroups = 1024;  // of a peer in more there is no likeness
constexpr size_t kMostLabel = 512;    // nor with a longer label

struct Ids {
  ucred who{};
  gid_t groups[kMostGroups];
  size_t group_count = 0;

  bool has_group(gid_t group) const {
    for (size_t i = 0; i < group_count; ++i)
      if (groups[i] == group) return true;
    return false;
  }
};

long ask(int fd, int option, void* answer, socklen_t& bytes) {
  return sys::raw(SYS_getsockopt, fd, SOL_SOCKET, option, answer, &bytes);
}

bool read_ids(int fd, Ids& ids) {
  socklen_t bytes = sizeof ids.who;
  if (ask(fd, SO_PEERCRED, &ids.who, bytes) < 0) return false;
  bytes = sizeof ids.groups;
  if (ask(fd, SO_PEERGROUPS, ids.groups, bytes) < 0) return false;
  ids.group_count = bytes / sizeof(gid_t);
  return true;
}

bool shows_no_other_ids(int fd, const Ids& peer) {
  Ids shown;
  if (!read_ids(fd, shown) || shown.who.uid != peer.who.uid || shown.who.gid != peer.who.gid) return false;
  for (size_t i = 0; i < shown.group_count; ++i)
    if (!peer.has_group(shown.groups[i])) return false;
  return true;
}

bool shows_no_other_label(int fd, int original) {
  char shown[kMostLabel], before[kMostLabel];
  socklen_t bytes = sizeof shown, bytes_before = sizeof before;
  const long answer = ask(fd, SO_PEERSEC, shown, bytes);
  if (answer < 0) return answer != -ERANGE;  // none
  return ask(original, SO_PEERSEC, before, bytes_before) >= 0 && bytes == bytes_before &&
         memcmp(shown, before, bytes) == 0;
}

// Effective ids only: until the program has its end, nobody but its own user may end this process.
void take_on(const Ids& peer) {
  sys::raw(SYS_setgroups, peer.group_count, peer.groups);
  sys::raw(SYS_setresgid, -1, peer.who.gid, -1);
  sys::raw(SYS_setresuid, -1, peer.who.uid, -1);
}

long make_pair(int original, const Ids& peer, int (&pair)[2], bool& alike) {
  const long made = sys::raw(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
  alike = made >= 0 && shows_no_other_ids(pair[0], peer) && shows_no_other_label(pair[0], original);
  return made;
}

}  // namespace

long make_pair_like(int original, int (&pair)[2], bool& alike) {
  Ids peer;
  if (!read_ids(original, peer)) peer.who = {0, static_cast<uid_t>(-1), static_cast<gid_t>(-1)};  // nobody has these
  if (const long made = make_pair(original, peer, pair, alike); made < 0 || alike) return made;
  sys::close(pair[0]);
  sys::close(pair[1]);
  take_on(peer);
  return make_pair(original, peer, pair, alike);
}

void keep_ids() {
  const long user = sys::raw(SYS_geteuid), group = sys::raw(SYS_getegid);
  if (user == sys::raw(SYS_getuid) && group == sys::raw(SYS_getgid)) return;
  sys::raw(SYS_setresgid, group, group, group);
  sys::raw(SYS_setresuid, user, user, user);
  sys::raw(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);  // its memory is a copy of the program's
}

}  // namespace shunt
