// The body of a role process: makes the connection, warms it up, runs one part, waits for the other end's part.
// One thread until the part makes more. Knows nothing of the library but what the environment does to the process.
#include "role.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "check.h"
#include "io.h"
#include "launch.h"

namespace shunt::behaviour {
namespace {

constexpr int kWarmUpRounds = 16;
constexpr useconds_t kReaderFallsAsleepUs = 100;
constexpr size_t kWarmUpBytes = 16;

struct Role {
  const Behaviour* behaviour = nullptr;
  End end = End::neither;
  Way way = Way::kernel;
  std::string directory;
  int listener = -1;
};
Role role;
std::string row;

const Behaviour* behaviour_named(std::string_view wanted) {
  for (const Behaviour& one : all_behaviours()) {
    if (std::string(one.family) + "/" + one.name == wanted) return &one;
  }
  return nullptr;
}

bool warms_up() { return role.behaviour->warms_up && role.way != Way::cold; }

void run_server() {
  int fd = -1;
  if (!role.behaviour->connects_itself) {
    role.listener = listen_at(path_address());
    tell_peer();
    fd = accept_at(role.listener);
    if (warms_up()) warm_up_server(fd);
  }
  role.behaviour->server(fd);
}

void run_client() {
  int fd = -1;
  if (!role.behaviour->connects_itself) {
    await_peer();
    fd = connect_to(path_address());
    if (warms_up()) warm_up_client(fd);
  }
  role.behaviour->client(fd);
}

// Neither process ends before both parts are done, so that no exit races with the other's last words.
void part_is_done() {
  char byte = 0;
  ::signal(SIGPIPE, SIG_IGN);  // the other may have failed and gone
  ::fcntl(kToPeerFd, F_SETFL, O_NONBLOCK);
  (void)!::write(kToPeerFd, &byte, 1);
  if (role.behaviour->killed == End::neither) (void)!::read(kFromPeerFd, &byte, 1);
}

}  // namespace

void fail(const char* file, int line, const std::string& what) {
  const std::string text = std::string(std::strrchr(file, '/') != nullptr ? std::strrchr(file, '/') + 1 : file) + ":" +
                           std::to_string(line) + ": " + (row.empty() ? "" : "(" + row + ") ") + what + "\n";
  (void)!::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(1);
}

void about(const std::string& text) {
  row = text;
  if (std::getenv("SHUNT_TEST_ROWS") != nullptr) std::fprintf(stderr, "%d: %s\n", ::getpid(), row.c_str());
}

std::string current_row() { return row; }

Way current_way() { return role.way; }
End current_end() { return role.end; }
std::string scratch_file(const std::string& name) { return role.directory + "/" + name; }

void tell_peer(uint32_t word) { CHECK_EQ(::write(kToPeerFd, &word, sizeof word), sizeof word); }

uint32_t await_peer() {
  uint32_t word = 0;
  CHECK_EQ(::read(kFromPeerFd, &word, sizeof word), sizeof word);
  return word;
}

Address path_address() {
  Address address;
  const std::string path = scratch_file("socket");
  CHECK(path.size() < sizeof address.name.sun_path);
  address.name.sun_family = AF_UNIX;
  std::memcpy(address.name.sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

Address abstract_address() {
  Address address;
  const std::string name = std::string(1, '\0') + scratch_file("abstract");
  CHECK(name.size() <= sizeof address.name.sun_path);
  address.name.sun_family = AF_UNIX;
  std::memcpy(address.name.sun_path, name.data(), name.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  return address;
}

int listen_at(const Address& address, int backlog) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  CHECK_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address.name), address.length), 0);
  CHECK_EQ(::listen(fd, backlog), 0);
  return fd;
}

int connect_to(const Address& address) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  CHECK_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address.name), address.length), 0);
  return fd;
}

int accept_at(int listener) {
  const int fd = ::accept(listener, nullptr, nullptr);
  CHECK(fd >= 0);
  return fd;
}

void let_reader_wait(int fd) {
  constexpr int kTries = 20;
  ucred peer{};
  socklen_t length = sizeof peer;
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length), 0);
  for (int tries = 0; tries == 0 || (tries < kTries && !is_sleeping(peer.pid)); ++tries) ::usleep(kReaderFallsAsleepUs);
}

void warm_up_server(int fd) {
  for (int i = 0; i < kWarmUpRounds; ++i) {
    const std::string word = read_exactly(fd, kWarmUpBytes);
    CHECK_EQ(word, bytes_at(static_cast<uint64_t>(i), kWarmUpBytes));
    let_reader_wait(fd);
    write_all(fd, word);
  }
}

void warm_up_client(int fd) {
  for (int i = 0; i < kWarmUpRounds; ++i) {
    const std::string word = bytes_at(static_cast<uint64_t>(i), kWarmUpBytes);
    let_reader_wait(fd);
    write_all(fd, word);
    CHECK_EQ(read_exactly(fd, kWarmUpBytes), word);
  }
}

int accept_another() {
  const int fd = accept_at(role.listener);
  if (warms_up()) warm_up_server(fd);
  return fd;
}

int connect_another() {
  const int fd = connect_to(path_address());
  if (warms_up()) warm_up_client(fd);
  return fd;
}

std::optional<int> run_role(int argc, char** argv) {
  if (argc != 6 || std::strcmp(argv[1], kRoleFlag) != 0) return std::nullopt;
  role = {.behaviour = behaviour_named(argv[3]),
          .end = std::strcmp(argv[2], "server") == 0 ? End::server : End::client,
          .way = static_cast<Way>(std::atoi(argv[4])),
          .directory = argv[5]};
  CHECK(role.behaviour != nullptr);
  role.end == End::server ? run_server() : run_client();
  part_is_done();
  return 0;
}

}  // namespace shunt::behaviour
