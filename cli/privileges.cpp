// The kernel's rules for AT_SECURE (security/commoncap.c, fs/exec.c), and what they are applied to.
// Called by program inspection and tests, from one thread.
// Must not take a security module into account (SELinux, AppArmor transitions): a program cannot ask for its rules.
#include "cli/privileges.h"

#include <endian.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

namespace shunt::cli {
namespace {

uint64_t mask_of(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }

uint64_t bounding_set() {
  uint64_t set = 0;
  for (unsigned capability = 0; capability < 64; ++capability) {
    const int held = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (held < 0) break;  // EINVAL: beyond the last one that this kernel knows
    if (held == 1) set |= uint64_t{1} << capability;
  }
  return set;
}

// "P'(permitted) = (P(inheritable) & F(inheritable)) | (F(permitted) & bounding)", and an effective bit on the file is
// enough by itself; neither counts for a real root.
bool gains_capabilities(const FileCapabilities& file, const Credentials& process) {
  if (process.real_user == 0) return false;
  if (file.effective) return true;
  uint64_t gained = (file.permitted & process.bounding) | (file.inheritable & process.inheritable);
  if (process.no_new_privileges) gained &= process.permitted;
  return gained != 0;
}

}  // namespace

Elevation elevation(const FilePrivileges& file, const Credentials& process) {
  const bool set_id_counts = !file.mounted_nosuid && !process.no_new_privileges;
  // A set-group-id bit without group execution once meant mandatory locking, and elevates nothing.
  constexpr mode_t kSetGroup = S_ISGID | S_IXGRP;
  const bool sets_user = set_id_counts && (file.mode & S_ISUID) != 0;
  const bool sets_group = set_id_counts && (file.mode & kSetGroup) == kSetGroup;
  const uid_t effective_user = sets_user ? file.owner : process.effective_user;
  const gid_t effective_group = sets_group ? file.group : process.effective_group;
  if (effective_user != process.real_user) return sets_user ? Elevation::set_user_id : Elevation::ids_differ_already;
  if (effective_group != process.real_group)
    return sets_group ? Elevation::set_group_id : Elevation::ids_differ_already;
  if (file.capabilities && !file.mounted_nosuid && gains_capabilities(*file.capabilities, process))
    return Elevation::file_capabilities;
  return Elevation::none;
}

Credentials own_credentials() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  syscall(SYS_capget, &header, sets);  // cannot fail for the caller itself
  return Credentials{getuid(),
                     geteuid(),
                     getgid(),
                     getegid(),
                     mask_of(sets[0].permitted, sets[1].permitted),
                     mask_of(sets[0].inheritable, sets[1].inheritable),
                     bounding_set(),
                     prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1};
}

std::optional<FileCapabilities> parse_capabilities(const void* attribute, size_t bytes) {
  // Revision 3 carries the root user of the namespace that it is for. The kernel hands an attribute that counts for
  // the caller's namespace out as revision 2, so one that arrives as 3 is somebody else's.
  uint32_t words[5];
  if (bytes < sizeof(uint32_t) || bytes > sizeof words) return std::nullopt;
  std::memcpy(words, attribute, bytes);
  for (uint32_t& word : words) word = le32toh(word);
  const uint32_t revision = words[0] & VFS_CAP_REVISION_MASK;
  const bool effective = (words[0] & VFS_CAP_FLAGS_EFFECTIVE) != 0;
  if (revision == VFS_CAP_REVISION_1 && bytes == XATTR_CAPS_SZ_1)
    return FileCapabilities{words[1], words[2], effective};
  if (revision == VFS_CAP_REVISION_2 && bytes == XATTR_CAPS_SZ_2)
    return FileCapabilities{mask_of(words[1], words[3]), mask_of(words[2], words[4]), effective};
  return std::nullopt;
}

std::optional<FilePrivileges> read_privileges(const std::filesystem::path& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return std::nullopt;
  struct statvfs mount;
  const bool nosuid = statvfs(path.c_str(), &mount) == 0 && (mount.f_flag & ST_NOSUID) != 0;
  FilePrivileges result{status.st_mode, status.st_uid, status.st_gid, std::nullopt, nosuid};
  unsigned char attribute[64];
  const ssize_t bytes = getxattr(path.c_str(), "security.capability", attribute, sizeof attribute);
  if (bytes > 0) result.capabilities = parse_capabilities(attribute, static_cast<size_t>(bytes));
  return result;
}

}  // namespace shunt::cli
