// Which registration of a set a data word stands for. The kernel tells of a native registration by the program's own word alone, and programs may
// use one for several. Under the set's lock. Makes raw calls only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shunt {

struct Registration;

class Words {
 public:
  // `fd` is registered with `word`. Null: not a connection that we follow.
  void note(int fd, uint64_t word, Registration* ours);
  // That of `fd` has ended, if it still is that one.
  void forget(int fd, const Registration* ours);
  // Null: nothing of ours, or one of several that share the word.
  Registration* only(uint64_t word) const;
  void clear();

 private:
  struct Entry {
    uint64_t word;
    Registration* ours;  // null if there are several
    uint32_t count;      // of registrations with this word
    bool used;
  };
  struct Number {
    uint64_t word;
    Registration* ours;
    bool known;
  };
  template <typename T>
  struct Mapped {
    T* items;
    size_t room;
    bool grow(size_t room_wanted);
    void release();
  };
  // A handler inside its own thread's change: from then on nothing is known.
  bool enter();
  void exit() { busy_ = false; }
  void note_alone(int fd, uint64_t word, Registration* ours);
  static Entry& place_of(const Mapped<Entry>& entries, uint64_t word);
  bool make_room();
  void forget(Number& number);

  Mapped<Entry> entries_;  // open addressing; the room is a power of two
  Mapped<Number> numbers_;
  size_t used_;
  bool unsure_;  // no memory: nothing is known for the rest of the set's life
  bool busy_;    // in the middle of a change
};

}  // namespace shunt
