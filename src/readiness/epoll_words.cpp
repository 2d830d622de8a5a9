// See epoll_words.h. A set has as many entries as descriptors were ever registered in it at once, and a word more for each that changed since the
// table grew.
#include "readiness/epoll_words.h"

#include <sys/mman.h>

#include "sys/raw.h"

namespace shunt {
namespace {

constexpr size_t kFirstRoom = 128;

}  // namespace

template <typename T>
bool Words::Mapped<T>::grow(size_t room_wanted) {
  const long address = sys::mmap(nullptr, room_wanted * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address < 0 && address > -4096) return false;
  items = reinterpret_cast<T*>(address);
  room = room_wanted;
  return true;
}

template <typename T>
void Words::Mapped<T>::release() {
  if (items) sys::munmap(items, room * sizeof(T));
  items = nullptr;
  room = 0;
}

Words::Entry& Words::place_of(const Mapped<Entry>& entries, uint64_t word) {
  uint64_t hash = word * 0x9e3779b97f4a7c15u;
  hash ^= hash >> 32;
  for (size_t i = static_cast<size_t>(hash);; ++i)
    if (Entry& entry = entries.items[i & (entries.room - 1)]; !entry.used || entry.word == word) return entry;
}

// For one more word. What no registration uses any more is left behind.
bool Words::make_room() {
  if (used_ * 2 < entries_.room) return true;
  size_t live = 0;
  for (size_t i = 0; i < entries_.room; ++i) live += entries_.items[i].count > 0;
  Mapped<Entry> wider{};
  size_t room = kFirstRoom;
  while (room < live * 4) room *= 2;
  if (!wider.grow(room)) return false;
  for (size_t i = 0; i < entries_.room; ++i)
    if (const Entry& entry = entries_.items[i]; entry.count > 0) place_of(wider, entry.word) = entry;
  entries_.release();
  entries_ = wider;
  used_ = live;
  return true;
}

void Words::forget(Number& number) {
  number.known = false;
  Entry& entry = place_of(entries_, number.word);
  if (!entry.used || entry.count == 0) return;
  --entry.count;
  entry.ours = nullptr;  // whose it is now nobody knows until that one is modified
}

bool Words::enter() {
  if (busy_) unsure_ = true;
  return !unsure_ && (busy_ = true);
}

void Words::note(int fd, uint64_t word, Registration* ours) {
  if (fd < 0 || !enter()) return;
  note_alone(fd, word, ours);
  exit();
}

void Words::note_alone(int fd, uint64_t word, Registration* ours) {
  const auto index = static_cast<size_t>(fd);
  if (index >= numbers_.room) {
    Mapped<Number> wider{};
    size_t room = kFirstRoom;
    while (room <= index) room *= 2;
    if (!wider.grow(room)) return void(unsure_ = true);
    for (size_t i = 0; i < numbers_.room; ++i) wider.items[i] = numbers_.items[i];
    numbers_.release();
    numbers_ = wider;
  }
  Number& number = numbers_.items[index];
  const bool same = number.known && number.word == word && number.ours == ours;
  if (same && (!ours || place_of(entries_, word).ours == ours)) return;
  if (number.known) forget(number);
  if (!make_room()) return void(unsure_ = true);
  Entry& entry = place_of(entries_, word);
  if (!entry.used) entry = {word, nullptr, 0, true}, ++used_;
  entry.ours = entry.count++ == 0 ? ours : nullptr;
  number = {word, ours, true};
}

void Words::forget(int fd, const Registration* ours) {
  if (fd < 0 || !enter()) return;
  if (static_cast<size_t>(fd) < numbers_.room)
    if (Number& number = numbers_.items[fd]; number.known && number.ours == ours) forget(number);
  exit();
}

Registration* Words::only(uint64_t word) const {
  if (unsure_ || busy_ || !entries_.items) return nullptr;
  const Entry& entry = place_of(entries_, word);
  return entry.used && entry.count == 1 ? entry.ours : nullptr;
}

void Words::clear() {
  entries_.release();
  numbers_.release();
  used_ = 0;
  unsure_ = busy_ = false;
}

}  // namespace shunt
