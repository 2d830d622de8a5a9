// kill -9 of one member of a family at any place inside a call: the others, and the peer, go on with no byte lost,
// doubled or invented, to the end of the stream.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>

#include "connection/flow.h"
#include "readiness/readiness.h"
#include "victim.h"

namespace shunt::testing {
namespace {

constexpr unsigned kNetSeconds = 30;
constexpr int kMostPlaces = 150;

// Bytes that could be taken for bells: their numbers are small.
std::string like_bells(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i);
  return text;
}

// A thread that reads one end until it has ended, asleep in a call whenever nothing is there.
class Listener {
 public:
  explicit Listener(int fd)
      : thread_([this, fd] {
          id_ = gettid();
          char data[4000];
          for (long got; (got = read_from(fd, data, sizeof data)) != 0;) {
            if (got < 0) return void(error_ = got);
            const std::lock_guard lock(mutex_);
            heard_.append(data, static_cast<size_t>(got));
          }
        }) {}
  ~Listener() {
    if (thread_.joinable()) thread_.join();
  }
  std::string heard() {
    const std::lock_guard lock(mutex_);
    return heard_;
  }
  void await(size_t bytes) {
    while (heard().size() < bytes) usleep(200);
  }
  // The whole stream.
  std::string ended() {
    thread_.join();
    EXPECT_EQ(error_, 0);
    return heard_;
  }
  void await_sleep() {
    for (int still = 0; still < 3;) {
      usleep(500);
      const std::string stat = text_of("/proc/self/task/" + std::to_string(id_) + "/stat");
      still = stat.find(") S") != std::string::npos ? still + 1 : 0;
    }
  }

 private:
  static std::string text_of(const std::string& path) {
    char text[512] = {};
    FILE* file = fopen(path.c_str(), "r");
    if (file) (void)!fread(text, 1, sizeof text - 1, file), fclose(file);
    return text;
  }
  std::atomic<int> id_{0};
  std::atomic<long> error_{0};
  std::mutex mutex_;
  std::string heard_;
  std::thread thread_;
};

struct World {
  StreamPair pair;
  int mine() const { return pair.connector; }  // the family's
  int peer() const { return pair.acceptor; }
  std::optional<std::thread> retreating;  // the peer, all the while
};

struct Scene {
  const char* name;
  void (*prepare)(World&);
  void (*call)(World&);     // in which the victim dies
  std::string before = "";  // what the peer has yet to hear from the time before
  std::string said = "";    // what the victim may have said to the peer: all of it or nothing
  std::string waits = "";   // what lies unread for the family
  bool takes = false;       // the victim may have taken that: all of it or nothing
  bool upgraded = true;
  bool peer_listens = true;        // asleep in a read when it happens
  bool family_leaves_ring = true;  // afterwards, else the peer does
};

void PrintTo(const Scene& scene, std::ostream* out) { *out << scene.name; }

void say(int fd, const std::string& text) {
  ASSERT_EQ(write_to(fd, text.data(), text.size()), static_cast<long>(text.size()));
}

// Everything comes, in order, and then the end.
void go_on(World& world, const Scene& scene, Listener& peer_hears) {
  const std::string first = "first of the survivor", last = like_bells(40);
  Listener family_hears(world.mine());
  say(world.mine(), first);
  say(world.peer(), "first of the peer");
  const int leaves = scene.family_leaves_ring ? world.mine() : world.peer();
  make_plain(*Pin(leaves), leaves, Reason::stdio);
  for (const int fd : {world.mine(), world.peer()}) say(fd, last), say(fd, "end");
  shutdown(world.peer(), SHUT_WR);
  const std::string in = family_hears.ended();
  StreamPair::close_end(world.pair.connector);
  const std::string out = peer_hears.ended();
  const std::string survivor = first + last + "end", peer = "first of the peer" + last + "end";
  EXPECT_EQ(out, scene.before + (out == scene.before + survivor ? "" : scene.said) + survivor);
  EXPECT_EQ(in, (scene.takes && in == peer ? "" : scene.waits) + peer);
}

// What a victim has published is heard when one of its family looks at the connection, whatever for.
void await_what_was_published(const World& world) {
  ready(world.mine());
  const Pin peer(world.peer());
  const auto heard = [&] { return peer->side->head.load() == peer->in->tail.load(); };
  for (int i = 0; i < 5000 && !heard(); ++i) usleep(200);
  EXPECT_TRUE(heard()) << "the peer sleeps beside bytes";
}

// The channel exists, and no fence is placed; the family's bytes lie unread in the kernel, and the peer's behind the
// offer.
void attach_only(World& w, const std::string& unread, const std::string& behind_the_offer) {
  exchange_before_offer(w.mine(), w.peer());
  char byte;
  if (!unread.empty()) say(w.mine(), unread);
  say(w.peer(), "x");
  if (!behind_the_offer.empty()) say(w.peer(), behind_the_offer);
  ASSERT_EQ(read_from(w.mine(), &byte, 1), 1);
  ASSERT_TRUE(has_channel(*Pin(w.mine())));
}

void await_armed(const std::atomic<uint32_t>& arm) {
  while (!(arm & 1)) usleep(100);
  usleep(2000);  // and asleep
}

void arm_and_disarm(int fd) {
  Pin pin(fd);
  Sleeper sleeper;
  arm(*pin, fd, POLLIN, sleeper);
  disarm(*pin, sleeper);
}

// A bell lies in the family's socket.
void leave_a_bell(World& w) {
  arm_and_disarm(w.mine());
  const uint32_t rung = Pin(w.mine())->in->bells_rung;
  say(w.peer(), "x");
  char byte;
  ASSERT_EQ(read_from(w.mine(), &byte, 1), 1);
  ASSERT_EQ(Pin(w.mine())->in->bells_rung, rung + 1);
}

void leave_ring(int fd) { make_plain(*Pin(fd), fd, Reason::stdio); }
void take(int fd) {
  char data[4000];
  read_from(fd, data, sizeof data, MSG_DONTWAIT);
}

const std::string kMuch(1500, 'v');

const Scene kScenes[] = {
    {.name = "writes", .prepare = [](World&) {}, .call = [](World& w) { say(w.mine(), "victim"); }, .said = "victim"},
    {.name = "writes_and_lets_the_ring_grow",
     .prepare = [](World&) {},
     .call = [](World& w) { say(w.mine(), kMuch); },
     .said = kMuch},
    {.name = "writes_before_the_fence",
     .prepare = [](World& w) { attach_only(w, "unread", ""); },
     .call = [](World& w) { say(w.mine(), "victim"); },
     .before = "unread",
     .said = "victim",
     .upgraded = false,
     .peer_listens = false},
    {.name = "places_the_up_fence",
     .prepare = [](World& w) { attach_only(w, "", ""); },
     .call = [](World& w) { say(w.mine(), "victim"); },
     .said = "victim",
     .upgraded = false},
    {.name = "places_the_down_fence", .prepare = [](World&) {}, .call = [](World& w) { leave_ring(w.mine()); }},
    {.name = "places_the_down_fence_behind_bytes",
     .prepare = [](World& w) { say(w.mine(), "unread"); },
     .call = [](World& w) { leave_ring(w.mine()); },
     .before = "unread",
     .peer_listens = false},
    {.name = "reads",
     .prepare = [](World& w) { say(w.peer(), "peer"); },
     .call = [](World& w) { take(w.mine()); },
     .waits = "peer",
     .takes = true},
    {.name = "reads_before_the_fence",
     .prepare = [](World& w) { attach_only(w, "", "peer"); },
     .call = [](World& w) { take(w.mine()); },
     .waits = "peer",
     .takes = true,
     .upgraded = false},
    {.name = "passes_the_up_fence",
     .prepare = [](World& w) { attach_only(w, "", ""), say(w.peer(), "peer"); },
     .call = [](World& w) { take(w.mine()); },
     .waits = "peer",
     .takes = true,
     .upgraded = false},
    {.name = "takes_bells",
     .prepare = leave_a_bell,
     .call = [](World& w) { arm_and_disarm(w.mine()); },
     .family_leaves_ring = false},
    {.name = "passes_the_down_fence",
     .prepare = [](World& w) { leave_a_bell(w), leave_ring(w.peer()), say(w.peer(), like_bells(10)); },
     .call = [](World& w) { take(w.mine()); },
     .waits = like_bells(10),
     .takes = true},
    {.name = "retreats",
     .prepare = [](World& w) { leave_a_bell(w), say(w.peer(), like_bells(10)); },
     .call = [](World& w) { retreat(*Pin(w.mine()), w.mine(), Reason::stdio); },
     .waits = like_bells(10)},
    {.name = "follows_the_peer_to_the_kernel",
     .prepare = [](World& w) { leave_ring(w.peer()); },
     .call = [](World& w) { say(w.mine(), "victim"); },
     .said = "victim"},
    {.name = "stops_putting_back",
     .prepare =
         [](World& w) {
           say(w.mine(), like_bells(10));
           w.retreating.emplace([&w] { retreat(*Pin(w.peer()), w.peer(), Reason::stdio); });
           while (Pin(w.mine())->out->ask != Ask::put_back) usleep(100);
         },
     .call = [](World& w) { say(w.mine(), "victim"); },
     .before = like_bells(10),
     .said = "victim",
     .peer_listens = false},
};

void play(const Scene& scene, int places, bool& over) {
  SCOPED_TRACE("killed at place " + std::to_string(places));
  World world;
  if (scene.upgraded) upgrade(world.pair);
  scene.prepare(world);
  std::optional<Listener> peer_hears;
  if (scene.peer_listens) peer_hears.emplace(world.peer()), peer_hears->await_sleep();
  {
    Victim victim(world.pair, [&] { scene.call(world); });
    over = !victim.run(places);
  }
  if (world.retreating) world.retreating->join();
  if (scene.peer_listens) await_what_was_published(world);
  if (!scene.peer_listens) peer_hears.emplace(world.peer());
  go_on(world, scene, *peer_hears);
}

class KilledFamily : public ::testing::TestWithParam<Scene> {};

TEST_P(KilledFamily, GoesOn) {
  bounded(kNetSeconds, [&] {
    bool over = false;
    int places = 0;
    while (!over && places < kMostPlaces && !::testing::Test::HasFailure()) play(GetParam(), ++places, over);
    EXPECT_GT(places, 5);
    printf("%d places\n", places);
  });
}

INSTANTIATE_TEST_SUITE_P(In, KilledFamily, ::testing::ValuesIn(kScenes),
                         [](const auto& scene) { return std::string(scene.param.name); });

// The peer leaves with bytes unread, behind which lie the bells of a down-fence, as far as the victim came with it, and
// then data: by a relay, which tells bells from data as everybody does.
TEST(KilledFamilyMember, LeavesBellsThatARelayTells) {
  bounded(kNetSeconds, [] {
    bool over = false;
    for (int places = 1; !over && !::testing::Test::HasFailure(); ++places) {
      SCOPED_TRACE("killed at place " + std::to_string(places));
      World world;
      upgrade(world.pair);
      arm_and_disarm(world.peer());
      say(world.mine(), "unread");
      {
        Victim victim(world.pair, [&] { leave_ring(world.mine()); });
        over = !victim.run(places);
      }
      if (Pin(world.mine())->out->stage != Stage::kernel_again) continue;
      Pin(world.peer())->side->holders = 1;  // the victim has gone
      EXPECT_TRUE(retreat(*Pin(world.peer()), world.peer(), Reason::exec_inherited)) << "by a relay";
      leave_ring(world.mine());
      say(world.mine(), like_bells(40));
      shutdown(world.mine(), SHUT_WR);
      std::string data(100, ' ');
      size_t got = 0;
      for (ssize_t n; (n = read(world.peer(), data.data() + got, data.size() - got)) > 0;)
        got += static_cast<size_t>(n);
      EXPECT_EQ(data.substr(0, got), "unread" + like_bells(40));
    }
  });
}

// ---- killed where no instruction has to be found

// Who took the last bytes of a full ring had told nobody: the writer would wait for room, and the readers for bytes.
TEST(KilledFamilyMember, LeavesAHeadThatTheNextReaderPublishes) {
  bounded(kNetSeconds, [] {
    World world;
    upgrade(world.pair);
    const std::string block(20'000, 'b');
    while (write_to(world.peer(), block.data(), block.size(), MSG_DONTWAIT) > 0) {
    }
    std::thread writer([&] { say(world.peer(), block); });
    {
      char byte;
      EXPECT_EQ(read_from(world.mine(), &byte, 1, MSG_PEEK), 1);
      const Pin pin(world.mine());
      pin->side->head = pin->in->tail.load();  // all of it was taken
    }
    std::string data(block.size(), ' ');
    for (size_t got = 0; got < block.size();)
      got += static_cast<size_t>(read_from(world.mine(), data.data() + got, block.size() - got));
    EXPECT_TRUE(data == block);
    writer.join();
  });
}

// The same, and he had published that, but not rung yet for a writer that sleeps in poll: the writer would wait for
// room, and the next reader for bytes.
TEST(KilledFamilyMember, LeavesNoWriterAsleepBesideAnEmptyRing) {
  bounded(kNetSeconds, [] {
    World world;
    upgrade(world.pair);
    const std::string block(20'000, 'b');
    while (write_to(world.peer(), block.data(), block.size(), MSG_DONTWAIT) > 0) {
    }
    std::thread writer([&] {
      pollfd room{world.peer(), POLLOUT, 0};
      EXPECT_EQ(wait_poll(&room, 1, nullptr, nullptr), 1);
      say(world.peer(), "end");
    });
    await_armed(Pin(world.peer())->out->space_arm);
    {
      char byte;
      EXPECT_EQ(read_from(world.mine(), &byte, 1, MSG_PEEK), 1);
      const Pin pin(world.mine());
      pin->side->head = pin->in->tail.load();
      pin->in->head = pin->in->tail.load();
    }
    char data[4] = {};
    EXPECT_EQ(read_from(world.mine(), data, 3), 3);
    EXPECT_STREQ(data, "end");
    writer.join();
  });
}

// A process that was killed in a kernel read that had begun before the channel.
TEST(KilledFamilyMember, IsNoOldReaderAnyMore) {
  bounded(kNetSeconds, [] {
    World world;
    attach_only(world, "", "");
    int status;
    // The only process when the channel came, as its child sees it.
    const pid_t gone = fork_family();
    if (gone == 0) _exit(0);
    waitpid(gone, &status, 0);
    {
      const Pin pin(world.mine());
      pin->side->upgraded_by = static_cast<uint32_t>(gone);
      pin->side->kernel_readers = 1;
      pin->in->old_readers = 1;
    }
    Listener peer_hears(world.peer());
    go_on(world, Scene{.name = "", .prepare = nullptr, .call = nullptr}, peer_hears);
  });
}

// An old reader gets what lies in the kernel in one call, bells and, in a retreat, what was put back. One of the bells
// was counted and never sent, or sent twice.
TEST(KilledFamilyMember, LeavesBellsThatAnOldReaderTells) {
  bounded(kNetSeconds, [] {
    struct {
      bool leaves;
      uint32_t rung;
      std::string bells, data;
      uint32_t taken;
    } const cases[] = {
        {true, 3, std::string("\0\1", 2), "put back", 2},
        {true, 2, std::string("\0\0\1", 3), "put back", 2},
        {true, 1, "", "put back", 0},
        {false, 2, std::string("\0\0\1", 3), "", 2},
    };
    for (const auto& [leaves, rung, bells, data, taken] : cases) {
      World world;
      attach_only(world, "", "");
      const Pin pin(world.mine());
      pin->in->kernel_total = pin->side->kernel_received.load() + 4;
      pin->in->bells_rung = rung;
      pin->in->stage = Stage::ring;
      pin->side->leaving = leaves;
      std::string got = "last" + bells + data;
      iovec part{got.data(), got.size()};
      const long length = account_kernel_bytes(*pin, static_cast<long>(got.size()), Cursor(&part, 1));
      EXPECT_EQ(got.substr(0, static_cast<size_t>(length)), "last" + data);
      EXPECT_EQ(pin->side->bells_taken, taken);
    }
  });
}

}  // namespace
}  // namespace shunt::testing
