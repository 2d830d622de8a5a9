// Makes and verifies channels. The peer is hostile: seals rule out SIGBUS, the type rules out huge pages, the bits rule out mix-ups.
#include "agreement/offer.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <new>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include "sys/raw.h"

namespace shunt {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// The fields of ChannelHeader that never change, read through the descriptor: nothing is mapped before they are checked.
struct Beginning {
  uint64_t magic;
  uint32_t version, bytes;
  uint8_t bits[16];
};
static_assert(sizeof(Beginning) == offsetof(ChannelHeader, bits) + 16);

bool read_beginning(int memfd, Beginning& seen) {
  const long got = sys::raw(SYS_pread64, memfd, &seen, sizeof seen, 0);
  if (!sys::refused(got)) return got == sizeof seen;
  const iovec part{&seen, sizeof seen};
  return sys::raw(SYS_preadv, memfd, &part, 1, 0, 0) == sizeof seen;
}

bool has_size_of_channel(int memfd) {
  struct stat status {};
  return sys::raw(SYS_fstat, memfd, &status) == 0 && status.st_size == static_cast<off_t>(kChannelBytes);
}

uint8_t* map_part(uint8_t* place, size_t bytes, int protection, int flags, int memfd, size_t offset) {
  const long address = sys::mmap(place, bytes, protection, flags | (place ? MAP_FIXED : 0), memfd, offset);
  return address < 0 && address > -4096 ? nullptr : reinterpret_cast<uint8_t*>(address);
}

uint8_t* map_shared(uint8_t* place, size_t bytes, int memfd, size_t offset) {
  uint8_t* part = map_part(place, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, offset);
  // A forked child keeps the mapping (the family shares it); a core dump does not need it.
  if (part) sys::raw(SYS_madvise, part, bytes, MADV_DONTDUMP);
  return part;
}

uint8_t* reserve(uint8_t* place, size_t headers) {
  return map_part(place, headers * kHeaderBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

long map(int memfd, Mapping& channel) {
  uint8_t* const reserved = channel.header;
  Mapping made;
  made.larger = map_shared(nullptr, kChannelBytes - kHeaderBytes, memfd, kHeaderBytes);
  if (!made.larger) return -ENOMEM;
  made.header = map_shared(reserved, kHeaderBytes, memfd, 0);
  if (!made.header) return sys::munmap(made.larger, kChannelBytes - kHeaderBytes), -ENOMEM;
  channel = made;
  return 0;
}

// ftruncate beyond RLIMIT_FSIZE raises SIGXFSZ, which would end the program.
bool file_size_allowed() {
  rlimit limit{};
  return sys::raw(SYS_prlimit64, 0, RLIMIT_FSIZE, nullptr, &limit) == 0 && limit.rlim_cur >= kChannelBytes;
}

}  // namespace

uint8_t* reserve_headers(size_t count) { return reserve(nullptr, count); }

long create_channel(const Bits& bits, Mapping& channel, int& memfd) {
  if (!file_size_allowed()) return -EFBIG;
  const long made = sys::raw(SYS_memfd_create, "shunt", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (made < 0) return made;
  memfd = static_cast<int>(made);
  long result = sys::raw(SYS_ftruncate, memfd, kChannelBytes);
  if (result == 0) result = sys::raw(SYS_fcntl, memfd, F_ADD_SEALS, kSeals);
  if (result == 0) result = map(memfd, channel);
  if (result < 0) {
    sys::close(memfd);
    return result;
  }
  auto* header = new (channel.header) ChannelHeader{};
  header->magic = kChannelMagic;
  header->version = kChannelVersion;
  header->bytes = kChannelBytes;
  memcpy(header->bits, bits.bytes, sizeof header->bits);
  for (Direction& direction : header->direction) {
    direction.data_arm.store(1, std::memory_order_relaxed);  // sequence 0, armed: somebody may sleep in the kernel already
    for (auto& from : direction.class_from) from.store(kNever, std::memory_order_relaxed);
  }
  return 0;
}

bool is_offer(int memfd, const Bits& bits) {
  // The bits alone tell it from the program's own descriptors. Seals are asked for first because a read of anything else might wait, or move something.
  const long seals = sys::raw(SYS_fcntl, memfd, F_GET_SEALS);
  Beginning seen;
  return (seals >= 0 || (sys::refused(seals) && has_size_of_channel(memfd))) && read_beginning(memfd, seen) && seen.magic == kChannelMagic &&
         memcmp(seen.bits, bits.bytes, sizeof seen.bits) == 0;
}

long map_channel(int memfd, const Bits& bits, Mapping& channel) {
  const long seals = sys::raw(SYS_fcntl, memfd, F_GET_SEALS);
  struct statfs system {};
  Beginning seen;
  if (seals < 0 || (seals & kSeals) != kSeals || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) return -EPROTO;
  if (!has_size_of_channel(memfd)) return -EPROTO;
  if (sys::raw(SYS_fstatfs, memfd, &system) < 0 || system.f_type != TMPFS_MAGIC) return -EPROTO;
  if (!read_beginning(memfd, seen) || memcmp(seen.bits, bits.bytes, sizeof seen.bits) != 0) return -EPROTO;
  if (seen.version != kChannelVersion || seen.bytes != kChannelBytes) return -EPROTO;
  return map(memfd, channel);
}

bool unmap_channel(const Mapping& channel, uint8_t* reserved) {
  sys::munmap(channel.larger, kChannelBytes - kHeaderBytes);
  if (channel.header == reserved) return reserve(reserved, 1) != nullptr;
  sys::munmap(channel.header, kHeaderBytes);
  return true;
}

}  // namespace shunt
