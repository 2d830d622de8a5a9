// Whom a program sees at the other end of a connection that it was handed with unread bytes, and whether it gets these.
// As root the peer is another user, in other groups; else it is of our own.
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr uint64_t kUnread = 30'000, kReply = 3000;
constexpr uid_t kUser = 64'301;
constexpr gid_t kGroup = 64'302;
constexpr gid_t kGroups[] = {64'303, 64'304};

// The kernel notes the effective ids of who connects, and of who listens.
class AsAnotherUser {
 public:
  AsAnotherUser() : can_(::geteuid() == 0) {
    if (!can_) return;
    groups_.resize(static_cast<size_t>(::getgroups(0, nullptr)));
    CHECK_EQ(::getgroups(static_cast<int>(groups_.size()), groups_.data()), groups_.size());
    CHECK_EQ(::setgroups(std::size(kGroups), kGroups), 0);
    CHECK_EQ(::setegid(kGroup), 0);
    CHECK_EQ(::seteuid(kUser), 0);
  }
  ~AsAnotherUser() {
    if (!can_) return;
    CHECK_EQ(::seteuid(0), 0);
    CHECK_EQ(::setegid(::getgid()), 0);
    CHECK_EQ(::setgroups(groups_.size(), groups_.data()), 0);
  }
  AsAnotherUser(const AsAnotherUser&) = delete;
  AsAnotherUser& operator=(const AsAnotherUser&) = delete;

 private:
  bool can_;
  std::vector<gid_t> groups_;
};

struct Peer {
  ucred who{};
  std::vector<gid_t> groups;
  ino_t file = 0;  // of our end

  bool has_ids_of(const Peer& other) const {
    return who.uid == other.who.uid && who.gid == other.who.gid && groups == other.groups;
  }
  bool is_foreign() const { return who.uid != ::geteuid(); }
};

Peer peer_of(int fd) {
  Peer peer;
  socklen_t bytes = sizeof peer.who;
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer.who, &bytes), 0);
  peer.groups.resize(1000);
  bytes = static_cast<socklen_t>(peer.groups.size() * sizeof(gid_t));
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &bytes), 0);
  peer.groups.resize(bytes / sizeof(gid_t));
  struct stat status {};
  CHECK_EQ(::fstat(fd, &status), 0);
  peer.file = status.st_ino;
  return peer;
}

// With each of its ids.
bool runs_as(int process, uid_t user) {
  std::ifstream status("/proc/" + std::to_string(process) + "/status");
  std::string word;
  while (status >> word && word != "Uid:") continue;
  uid_t real = 0, effective = 0, saved = 0;
  status >> real >> effective >> saved;
  return status && real == user && effective == user && saved == user;
}

// From its own user: it is a copy of ours.
bool hides_its_memory(int process) {
  const AsAnotherUser user;
  return ::open(("/proc/" + std::to_string(process) + "/mem").c_str(), O_RDONLY) < 0 && errno == EACCES;
}

// Where nothing depends on chance, unread bytes lay in the ring.
bool surely_on_ring() { return current_way() == Way::both; }

// `receive` runs in another process, which gets `fd` from this one; this one closes it.
template <typename Receive>
void hand_on(int fd, Receive receive) {
  int pair[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const int child = in_child([&] {
    ::close(fd);
    receive(receive_descriptor(pair[1]));
  });
  send_descriptor(pair[0], fd);
  CHECK_EQ(::close(fd), 0);
  ::close(pair[0]), ::close(pair[1]);
  join_child(child);
}

int accept_from_another_user() {
  const int listener = listen_at(abstract_address());
  tell_peer();
  const int fd = accept_at(listener);
  ::close(listener);
  if (current_way() != Way::cold) warm_up_server(fd);
  await_peer();
  return fd;
}

int connect_as_another_user() {
  await_peer();
  int fd = -1;
  {
    const AsAnotherUser other;
    fd = connect_to(abstract_address());
  }
  if (current_way() != Way::cold) warm_up_client(fd);
  return fd;
}

void hand_on_and_reply(int fd) {
  const Peer before = peer_of(fd);
  hand_on(fd, [&](int received) {
    const Peer seen = peer_of(received);
    CHECK(seen.has_ids_of(before));
    if (current_way() == Way::kernel) CHECK(seen.file == before.file && seen.who.pid == before.who.pid);
    if (surely_on_ring()) {
      CHECK(seen.file != before.file);  // a relay stands in, and is of that user itself
      CHECK(runs_as(seen.who.pid, before.who.uid));
      if (before.is_foreign()) CHECK(hides_its_memory(seen.who.pid));
    }
    read_stream(received, 0, kUnread, 4000);
    expect_end_of_stream(received);
    write_stream(received, 0, kReply, 700);
  });
}

void ask_and_shut(int fd) {
  write_stream(fd, 0, kUnread, kUnread);
  CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
  tell_peer();
  CHECK_EQ(read_stream_to_end(fd, 0, 1000), kReply);
}

BEHAVIOUR{.name = "shows_a_client_that_has_shut_its_writing",
          .server = [](int) { hand_on_and_reply(accept_from_another_user()); },
          .client = [](int) { ask_and_shut(connect_as_another_user()); },
          .connects_itself = true,
          .leaves_ring = true};

BEHAVIOUR{.name = "shows_a_server_that_has_shut_its_writing",
          .server =
              [](int) {
                int listener = -1;
                {
                  const AsAnotherUser other;
                  listener = listen_at(abstract_address());
                }
                tell_peer();
                const int fd = accept_at(listener);
                if (current_way() != Way::cold) warm_up_server(fd);
                ask_and_shut(fd);
              },
          .client =
              [](int) {
                await_peer();
                const int fd = connect_to(abstract_address());
                if (current_way() != Way::cold) warm_up_client(fd);
                await_peer();
                hand_on_and_reply(fd);
              },
          .connects_itself = true,
          .leaves_ring = true};

BEHAVIOUR{.name = "shows_a_client_that_is_gone",
          .server =
              [](int) {
                const int fd = accept_from_another_user();
                const Peer before = peer_of(fd);
                hand_on(fd, [&](int received) {
                  CHECK(peer_of(received).has_ids_of(before));
                  read_stream(received, 0, kUnread, 4000);
                  expect_end_of_stream(received);
                });
              },
          .client =
              [](int) {
                const int fd = connect_as_another_user();
                write_stream(fd, 0, kUnread, kUnread);
                CHECK_EQ(::close(fd), 0);
                tell_peer();
              },
          .connects_itself = true,
          .leaves_ring = true};

// It makes no call on the connection, so nobody but the giver can bring its bytes.
BEHAVIOUR{.name = "shows_a_client_that_does_something_else",
          .server =
              [](int) {
                const int fd = accept_from_another_user();
                const Peer before = peer_of(fd);
                hand_on(fd, [&](int received) {
                  CHECK(peer_of(received).has_ids_of(before));
                  read_stream(received, 0, kUnread, 4000);
                  write_stream(received, 0, kReply, 700);
                });
                tell_peer();
              },
          .client =
              [](int) {
                const int fd = connect_as_another_user();
                write_stream(fd, 0, kUnread, kUnread);
                tell_peer();
                await_peer();
                CHECK_EQ(read_stream_to_end(fd, 0, 1000), kReply);
              },
          .connects_itself = true,
          .leaves_ring = true};

void connect_write_and_shut(int) {
  const int fd = connect_as_another_user();
  write_stream(fd, 0, kUnread, kUnread);
  CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
  tell_peer();
}

// ---- a giver that may not take on the peer's ids

void give_up_other_ids() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  CHECK_EQ(::syscall(SYS_capget, &header, sets), 0);
  sets[0].effective &= ~(1U << CAP_SETUID | 1U << CAP_SETGID);
  sets[0].permitted &= ~(1U << CAP_SETUID | 1U << CAP_SETGID);
  sets[0].inheritable = 0;
  CHECK_EQ(::syscall(SYS_capset, &header, sets), 0);
}

// Bytes come under the name of who sent them, or not at all, and then that is said.
void expect_own_name_or_reset(int fd, const Peer& before, uint64_t from) {
  if (peer_of(fd).has_ids_of(before)) {
    CHECK(!(surely_on_ring() && before.is_foreign()));
    read_stream(fd, from, kUnread - from, 4000);
    expect_end_of_stream(fd);
  } else {
    CHECK(before.is_foreign());
    char byte = 0;
    CHECK_ERRNO(::read(fd, &byte, 1), ECONNRESET);
    CHECK_EQ(::read(fd, &byte, 1), 0);
  }
}

BEHAVIOUR{.name = "is_never_shown_as_the_givers",
          .server =
              [](int) {
                const int fd = accept_from_another_user();
                give_up_other_ids();
                const Peer before = peer_of(fd);
                hand_on(fd, [&](int received) { expect_own_name_or_reset(received, before, 0); });
              },
          .client = connect_write_and_shut,
          .connects_itself = true,
          .leaves_ring = true};

// Nobody stands in for a sender that is alive: it brings its bytes when it next acts.
BEHAVIOUR{.name = "is_a_client_that_acts_later",
          .server =
              [](int) {
                const int fd = accept_from_another_user();
                give_up_other_ids();
                const Peer before = peer_of(fd);
                hand_on(fd, [&](int received) {
                  CHECK(peer_of(received).has_ids_of(before));
                  tell_peer();
                  read_stream(received, 0, kUnread + 1, 4000);
                  write_stream(received, 0, kReply, 700);
                });
              },
          .client =
              [](int) {
                const int fd = connect_as_another_user();
                write_stream(fd, 0, kUnread, kUnread);
                tell_peer();
                await_peer();
                write_stream(fd, kUnread, 1, 1);
                CHECK_EQ(read_stream_to_end(fd, 0, 1000), kReply);
              },
          .connects_itself = true,
          .leaves_ring = true};

// Without room there is no number left for any other file.
void dup_to_stdin(int fd, bool room) {
  rlimit before{};
  CHECK_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = STDERR_FILENO + 1, .rlim_max = before.rlim_max};
  if (!room) CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  CHECK_EQ(::dup2(fd, STDIN_FILENO), STDIN_FILENO);
  if (!room) CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

// splice takes bytes past the library: the process itself gets them, and is told the truth; others are not misled.
template <bool kRoom>
void splice_and_share(int) {
  const int fd = accept_from_another_user();
  give_up_other_ids();
  const Peer before = peer_of(fd);
  int ends[2];
  CHECK_EQ(::pipe(ends), 0);
  uint64_t moved = 0;
  while (moved < 10'000) {
    const ssize_t n = ::splice(fd, nullptr, ends[1], nullptr, 10'000 - moved, 0);
    CHECK(n > 0);
    CHECK_EQ(read_exactly(ends[0], static_cast<size_t>(n)), bytes_at(moved, static_cast<size_t>(n)));
    moved += static_cast<uint64_t>(n);
  }
  const Peer after = peer_of(fd);
  CHECK_EQ(after.who.pid, before.who.pid);
  CHECK_EQ(after.who.uid, before.who.uid);
  CHECK_EQ(after.who.gid, before.who.gid);
  dup_to_stdin(fd, kRoom);
  const bool named = peer_of(STDIN_FILENO).has_ids_of(before);
  if (!named) kRoom ? expect_own_name_or_reset(STDIN_FILENO, before, moved) : expect_end_of_stream(STDIN_FILENO);
  if (surely_on_ring()) CHECK_EQ(named, !before.is_foreign());
  hand_on(fd, [&](int received) { expect_own_name_or_reset(received, before, moved); });
}

BEHAVIOUR{.name = "is_never_shown_as_the_givers_after_splice",
          .server = splice_and_share<true>,
          .client = connect_write_and_shut,
          .connects_itself = true,
          .leaves_ring = true};
BEHAVIOUR{.name = "is_never_shown_as_the_givers_where_no_number_is_left",
          .server = splice_and_share<false>,
          .client = connect_write_and_shut,
          .connects_itself = true,
          .leaves_ring = true};

// The program that is executed alone has the connection: all bytes, or an error.
BEHAVIOUR{.name = "is_whole_or_reset_after_exec",
          .server =
              [](int) {
                const int fd = accept_from_another_user();
                const bool foreign = peer_of(fd).is_foreign();
                give_up_other_ids();
                constexpr int kNumber = 7;
                CHECK_EQ(::dup2(fd, kNumber), kNumber);
                ::close(fd);
                int ends[2];
                CHECK_EQ(::pipe2(ends, O_CLOEXEC), 0);
                const int child = in_child([&] {
                  ::dup2(ends[1], STDOUT_FILENO);
                  ::execl("/bin/sh", "sh", "-c", "exec cat <&7 2>/dev/null", static_cast<char*>(nullptr));
                });
                ::close(kNumber), ::close(ends[1]);
                std::string got;
                for (std::string more = read_some(ends[0], 4000); !more.empty(); more = read_some(ends[0], 4000))
                  got += more;
                int status = 0;
                CHECK_EQ(::waitpid(child, &status, 0), child);
                CHECK(WIFEXITED(status));
                const bool whole = WEXITSTATUS(status) == 0;
                if (whole) CHECK_EQ(got, bytes_at(0, kUnread));
                CHECK(whole || (foreign && got.empty()));
                if (surely_on_ring()) CHECK_EQ(whole, !foreign);
                tell_peer();
              },
          .client =
              [](int) {
                const int fd = connect_as_another_user();
                write_stream(fd, 0, kUnread, kUnread);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                tell_peer();
                await_peer();
              },
          .connects_itself = true,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
